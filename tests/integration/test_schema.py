"""What psql shows of the schema: a comment on every object, the public API by its names, and no way in for PUBLIC."""

import os
import re
import subprocess
import uuid

import pytest

# What `\df jobq.[^_]*` lists; `wait` is a procedure.
FUNCTIONS = {
    "version",
    "enqueue", "enqueue_many", "try_enqueue", "try_enqueue_many",
    "cancel", "cancel_many", "retry", "retry_many", "delete", "delete_many", "purge", "complete", "wait",
    "pause", "resume", "scale",
    "cron_next", "cron_set", "cron_pause", "cron_resume", "cron_delete", "cron_run",
}
VIEWS = {"all_jobs"}
TABLES = {"jobs", "finished_jobs", "nodes", "queues", "queue_nodes", "crons", "refusals", "settings", "schema_version"}

# The partition of a day is made while nodes run, so it is exempt.
COMMENTS = r"""
SELECT o.sort, o.name, coalesce(btrim(o.comment), '') AS comment
  FROM (SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS sort, c.relname::text AS name,
               obj_description(c.oid, 'pg_class') AS comment
          FROM pg_class c
         WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
               AND NOT (c.relispartition AND c.relname ~ '_p[0-9]{8}$')
        UNION ALL
        SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.proname::text, obj_description(p.oid, 'pg_proc')
          FROM pg_proc p
         WHERE p.pronamespace = 'jobq'::regnamespace
        UNION ALL
        SELECT 'type', t.typname::text, obj_description(t.oid, 'pg_type')
          FROM pg_type t
          LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE t.typnamespace = 'jobq'::regnamespace AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c')) o
 ORDER BY 1, 2
"""

COLUMNS = """
SELECT c.relname::text, a.attname::text, coalesce(btrim(col_description(c.oid, a.attnum)), '') AS comment
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'jobq'::regnamespace AND c.relname = ANY (%s)
 ORDER BY c.relname, a.attnum
"""

OPEN = """
SELECT p.proname::text FROM pg_proc p
 WHERE p.pronamespace = 'jobq'::regnamespace AND starts_with(p.proname, '_')
       AND has_function_privilege(%s::name, p.oid, 'EXECUTE')
"""


def without_comment(db):
    return [f"{sort} {name}" for sort, name, comment in db.query(COMMENTS) if comment == ""]


def columns_without_comment(db):
    return [f"{table}.{column}" for table, column, comment in db.query(COLUMNS, (list(TABLES | VIEWS),)) if comment == ""]


def names(db, sorts):
    """Those that do not begin with _."""
    return {name for sort, name, _ in db.query(COMMENTS) if sort in sorts and not name.startswith("_")}


@pytest.fixture
def stranger(db):
    """A role that nothing was granted to."""
    name = f"stranger_{uuid.uuid4().hex[:12]}"
    db.query(f"CREATE ROLE {name}")
    yield name
    db.query(f"DROP ROLE {name}")


def test_every_object_has_a_comment(db):
    found = db.query(COMMENTS)
    assert {sort for sort, _, _ in found} == {"table", "view", "function", "procedure", "type"}
    assert {"jobs", "_finished_failed_default", "job_state", "_cron_fields", "_settle"} <= {name for _, name, _ in found}
    assert without_comment(db) == []
    # Each kind of object would be found.
    db.query("CREATE FUNCTION jobq._bare() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
             "CREATE PROCEDURE jobq._bare_procedure() LANGUAGE sql AS 'SELECT 1'; "
             "CREATE TABLE jobq._bare_table (n int); CREATE VIEW jobq._bare_view AS SELECT 1 AS n; "
             "CREATE TYPE jobq._bare_enum AS ENUM ('a'); CREATE TYPE jobq._bare_row AS (n int); "
             "COMMENT ON TABLE jobq.jobs IS ' '")
    assert without_comment(db) == ["function _bare", "procedure _bare_procedure", "table _bare_table", "table jobs",
                                   "type _bare_enum", "type _bare_row", "view _bare_view"]


def test_every_public_column_has_a_comment(db):
    found = {table: [] for table in TABLES | VIEWS}
    for table, column, _ in db.query(COLUMNS, (list(TABLES | VIEWS),)):
        found[table].append(column)
    assert all(found.values()) and "retried_attempt" in found["jobs"] and "progress" in found["all_jobs"]
    assert columns_without_comment(db) == []
    db.query("ALTER TABLE jobq.jobs ADD COLUMN bare int; COMMENT ON COLUMN jobq.all_jobs.progress IS NULL")
    assert columns_without_comment(db) == ["all_jobs.progress", "jobs.bare"]


def test_the_printed_script_has_the_comments(empty_db, cli):
    with empty_db.connect() as conn:
        conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
    assert len(empty_db.query(COMMENTS)) > 150
    assert without_comment(empty_db) == [] and columns_without_comment(empty_db) == []


def test_the_names_of_the_public_api(db):
    def listed():
        return subprocess.run(["psql", "-qXAt", "-F", " ", db.uri, "-c", r"\df jobq.[^_]*"], check=True, capture_output=True,
                              text=True, env={**os.environ, "PGOPTIONS": "-c search_path=public"}).stdout
    assert {line.split()[1] for line in listed().splitlines()} == FUNCTIONS
    assert names(db, {"function", "procedure"}) == FUNCTIONS
    assert names(db, {"table"}) == TABLES
    assert names(db, {"view"}) == VIEWS
    assert names(db, {"type"}) == {"job_state"}
    db.query("CREATE FUNCTION jobq.bare() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE jobq.bare_table (n int)")
    assert "bare" in listed() and names(db, {"function", "procedure"}) == FUNCTIONS | {"bare"}
    assert names(db, {"table"}) == TABLES | {"bare_table"}


def test_public_may_execute_nothing_internal(db, stranger):
    assert db.query(OPEN, (stranger,)) == []
    db.query("GRANT EXECUTE ON FUNCTION jobq._utc TO PUBLIC")
    assert db.query(OPEN, (stranger,)) == [("_utc",)]
