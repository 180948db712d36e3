-- A function, because a dump of the schema without its data keeps it. Each step makes it anew, up and down. migrate.c
-- fills in @version@, because the body of a function takes no parameter. COMMENT ON names the empty argument list, because
-- an application may have put another function of that name into the schema.
CREATE OR REPLACE FUNCTION @schema@.version() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS 'SELECT @version@';
COMMENT ON FUNCTION @schema@.version() IS
'Returns the version of this schema: the number of the last migration that was applied.'
