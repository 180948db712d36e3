-- What this node's running attempts say of how far they are, in one statement; nothing of those that have ended.
--   $1 node  $2 ids  $3 attempts  $4 done, in millionths  $5 notes
SELECT @schema@._note_progress($1, $2::bigint[], $3::int[], $4::bigint[], $5::text[])
