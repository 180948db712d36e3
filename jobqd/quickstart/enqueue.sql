-- Enqueues one `pack` job for each path on stdin, in one transaction. psql -v folder=WHERE.
\set QUIET on
BEGIN;
CREATE TEMPORARY TABLE documents (path text) ON COMMIT DROP;
\copy documents FROM pstdin
SELECT count(jobq.enqueue('pack', jsonb_build_object('file', path, 'folder', :'folder'),
                          queue => 'documents', priority => 5)) || ' jobs: documents to pack'
  FROM documents;
COMMIT;
