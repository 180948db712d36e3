-- Publications that cover jobq's tables. A table without a key cannot be updated or deleted from there, unless it has a
-- replica identity; a subscriber that is not sent the history by its root needs each day's partition under its own name.
WITH RECURSIVE covered AS (
    SELECT p.pubname, p.pubviaroot, c.oid, c.relname
      FROM pg_publication_tables t
      JOIN pg_publication p ON p.pubname = t.pubname AND (p.pubupdate OR p.pubdelete)
      JOIN pg_namespace n ON n.nspname = t.schemaname
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
     WHERE t.schemaname = '@channel@'
    UNION
    SELECT v.pubname, v.pubviaroot, c.oid, c.relname
      FROM covered v JOIN pg_inherits i ON i.inhparent = v.oid JOIN pg_class c ON c.oid = i.inhrelid
), bare AS (
    SELECT string_agg(DISTINCT v.pubname::text, ', ') AS pubs, v.oid
      FROM covered v JOIN pg_class c ON c.oid = v.oid
     WHERE c.relkind = 'r' AND c.relreplident <> 'f'
       AND NOT EXISTS (SELECT FROM pg_index i
                        WHERE i.indrelid = c.oid AND i.indisvalid
                          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)
     GROUP BY v.oid
), found (level, what, remedy) AS (
    SELECT 'fail', format('%s of jobq''s tables without a replica identity, such as %s, %s published by %s: rows of such a '
                          'table cannot be updated or deleted', count(*), min(b.oid::regclass::text), CASE count(*) WHEN 1 THEN 'is' ELSE 'are' END,
                          min(b.pubs)),
           string_agg(format('ALTER TABLE %s REPLICA IDENTITY FULL', b.oid::regclass), '; ' ORDER BY b.oid::regclass::text)
      FROM bare b HAVING count(*) > 0
    UNION ALL
    SELECT DISTINCT 'warn', format('publication %s publishes each partition of the history: its subscriber needs a table '
                                   'for every day',
                                   v.pubname),
           format('ALTER PUBLICATION %I SET (publish_via_partition_root = true)', v.pubname)
      FROM covered v WHERE NOT v.pubviaroot AND v.relname ~ '^_?finished_'
)
SELECT f.level, f.what, f.remedy FROM found f
UNION ALL
SELECT 'ok', coalesce('jobq''s tables are published by ' || (SELECT string_agg(DISTINCT v.pubname::text, ', ') FROM covered v)
                      || ', with suitable settings', 'no publication covers jobq''s tables'), NULL
 WHERE NOT EXISTS (SELECT FROM found)
