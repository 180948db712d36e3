#!/bin/sh
# The quickstart's exec worker: compresses one document and writes its checksum. A job is one run of this script:
# its args come as JSON on stdin, and how it ended is the exit code (0 done, 65 the data is bad: never again,
# anything else: an error, tried again).
set -eu

fields=$(jq -er '.file, .folder') || {
    echo "args must have file and folder" >&2
    exit 65
}
{ read -r file && read -r folder; } <<END
$fields
END
[ -f "$file" ] && [ -r "$file" ] || {
    echo "$file: no such document" >&2
    exit 65
}

name=$(printf '%s' "${file#/}" | tr / _)
draft="$folder/.$name.$JOBQ_JOB_ID.$JOBQ_ATTEMPT"
trap 'rm -f "$draft"' EXIT
# Packed from a copy, so that a log that grows meanwhile cannot come between the two.
cp -- "$file" "$draft"
sum=$(sha256sum <"$draft")
sum=${sum%% *}
gzip -9nf "$draft"
draft=$draft.gz
gzip -t "$draft"
mv "$draft" "$folder/$name.gz"
printf '%s  %s\n' "$sum" "$file" >"$folder/$name.sha256"
echo "packed $file: $(stat -c %s "$folder/$name.gz") bytes, sha256 $sum"
