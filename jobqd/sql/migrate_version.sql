-- The schema's version, which a dump of the schema without its data keeps. Made anew by each step, up and down:
-- @version@ is filled in by migrate.c, because the body of a function takes no parameter.
CREATE OR REPLACE FUNCTION @schema@.version() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS 'SELECT @version@'
