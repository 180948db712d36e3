#!/bin/sh
# The quickstart's exec worker: compresses one document and writes its checksum. jobqd runs this script once for
# each job. The args are JSON on stdin, and the exit code is the result: 0 done, 65 the data is bad (never retried),
# anything else an error (retried).
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
# Work on a copy: a log that grows meanwhile would make checksum and file differ.
cp -- "$file" "$draft"
sum=$(sha256sum <"$draft")
sum=${sum%% *}
gzip -9nf "$draft"
draft=$draft.gz
gzip -t "$draft"
mv "$draft" "$folder/$name.gz"
printf '%s  %s\n' "$sum" "$file" >"$folder/$name.sha256"
echo "packed $file: $(stat -c %s "$folder/$name.gz") bytes, sha256 $sum"
