-- Gives jobq's roles what grants.sql says, takes from them and from PUBLIC what it does not. Where all is right nothing is
-- written. What one of them has passed on to others goes with it.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        WITH
@rights@
        SELECT s.sql
          FROM (SELECT DISTINCT w.oid, w.text, w.grantee, CASE w.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(w.role) END AS role
                  FROM wrong w) t
         CROSS JOIN LATERAL (
               SELECT string_agg(p.privilege || p.columns, ', ') AS rights
                 FROM (SELECT d.privilege, coalesce(' (' || string_agg(quote_ident(a.attname), ', ') || ')', '') AS columns
                         FROM wanted d
                         LEFT JOIN pg_attribute a ON d.attnum > 0 AND a.attrelid = d.oid AND a.attnum = d.attnum
                        WHERE d.oid = t.oid AND d.grantee = t.grantee
                        GROUP BY d.privilege, d.attnum > 0) p) wanted_here
         CROSS JOIN LATERAL (VALUES (1, format('REVOKE ALL ON %s FROM %s CASCADE', t.text, t.role)),
                                    (2, format('GRANT %s ON %s TO %s', wanted_here.rights, t.text, t.role))) s (nth, sql)
         WHERE s.nth = 1 OR wanted_here.rights IS NOT NULL
         ORDER BY t.text, t.role, s.nth
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$
