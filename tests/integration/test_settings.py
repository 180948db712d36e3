"""Some eighty settings that a DBA may have made for the database or the role: the schema is made, each function called, each command
run and jobs live and end as ever. What such a setting would spoil is set by jobq's sessions, or does not matter to its texts."""

import contextlib
import json
import os
import uuid

import psycopg
import pytest

from harness import story
from harness.pg import Database
from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

# The settings of a group do not meet: what one of them spoils is not hidden by another one.
GROUPS = {
    "time-outs": {
        "statement_timeout": "5s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "5s", "idle_session_timeout": "5s",
        "transaction_timeout": "5s", "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
        "synchronous_commit": "off", "exit_on_error": "off", "tcp_keepalives_idle": "7", "tcp_user_timeout": "0", "commit_delay": "1000",
        "vacuum_cost_delay": "10", "check_function_bodies": "off", "zero_damaged_pages": "on", "deadlock_timeout": "100ms"},
    "literals": {
        "standard_conforming_strings": "off", "backslash_quote": "off", "escape_string_warning": "on", "bytea_output": "escape",
        "extra_float_digits": "-15", "array_nulls": "off", "transform_null_equals": "on", "quote_all_identifiers": "on", "xmlbinary": "hex",
        "xmloption": "document", "lo_compat_privileges": "on", "client_encoding": "LATIN1", "client_min_messages": "error",
        "default_transaction_isolation": "repeatable read", "search_path": "''", "lc_numeric": "POSIX"},
    "times": {
        "DateStyle": "'SQL, DMY'", "IntervalStyle": "sql_standard", "TimeZone": "Pacific/Kiritimati", "timezone_abbreviations": "Australia",
        "lc_time": "POSIX", "lc_monetary": "POSIX", "lc_messages": "POSIX", "search_path": "nobody, public", "plan_cache_mode": "force_custom_plan",
        "default_text_search_config": "pg_catalog.german", "password_encryption": "md5", "gin_fuzzy_search_limit": "1"},
    "other times": {
        "DateStyle": "'German, YMD'", "IntervalStyle": "iso_8601", "TimeZone": "'<+1345>-13:45'", "plan_cache_mode": "force_generic_plan",
        "enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "search_path": "public, pg_catalog",
        "role": "same", "application_name": "'somebody''s \"own\"'"},
    "plpgsql": {
        "plpgsql.extra_errors": "all", "plpgsql.extra_warnings": "all", "plpgsql.variable_conflict": "use_column",
        "plpgsql.check_asserts": "off", "plpgsql.print_strict_params": "on", "row_security": "off",
        "default_tablespace": "elsewhere", "temp_tablespaces": "elsewhere", "default_table_access_method": "heap",
        "default_toast_compression": "pglz", "client_min_messages": "debug2", "event_triggers": "on",
        "createrole_self_grant": "set", "restrict_nonsystem_relation_kind": "foreign-table"},
    "plans": {
        "enable_seqscan": "off", "enable_nestloop": "off", "enable_tidscan": "off", "enable_sort": "off", "enable_hashagg": "off",
        "enable_material": "off", "enable_partition_pruning": "off", "from_collapse_limit": "1", "join_collapse_limit": "1", "geqo_threshold": "2",
        "work_mem": "64kB", "constraint_exclusion": "off", "random_page_cost": "1000", "cursor_tuple_fraction": "0.001",
        "default_statistics_target": "1", "temp_buffers": "800kB", "plpgsql.variable_conflict": "use_variable", "effective_cache_size": "8kB"},
    "other plans": {
        "max_parallel_workers_per_gather": "4", "force_parallel_mode": "regress", "debug_parallel_query": "regress", "parallel_setup_cost": "0",
        "min_parallel_table_scan_size": "0", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit_above_cost": "0",
        "jit_optimize_above_cost": "0", "seq_page_cost": "1000", "enable_incremental_sort": "off", "enable_memoize": "off", "geqo": "off",
        "enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on", "constraint_exclusion": "on"},
    "logs": {
        "log_statement": "all", "log_duration": "on", "log_min_duration_statement": "0", "log_parser_stats": "on", "log_planner_stats": "on",
        "log_executor_stats": "on", "log_error_verbosity": "verbose", "log_min_messages": "info", "log_lock_waits": "on", "log_temp_files": "0",
        "debug_print_plan": "on", "debug_pretty_print": "off", "track_activities": "off", "track_counts": "off", "track_functions": "all",
        "track_io_timing": "on", "stats_fetch_consistency": "snapshot", "session_preload_libraries": "auto_explain",
        "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on"},
}
# What a test's own sessions are not to suffer from: it is not about them.
OURS = {name: "0" for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
                               "transaction_timeout")}


@pytest.fixture(scope="module")
def elsewhere(postgres):
    """A tablespace."""
    folder = postgres.dir / "elsewhere"
    folder.mkdir()
    if postgres.user:
        os.chown(folder, postgres.user.pw_uid, postgres.user.pw_gid)
    with postgres.connect("postgres") as conn:
        conn.execute(f"CREATE TABLESPACE elsewhere LOCATION '{folder}'")


class Calm(Database):
    """A database whose settings do not hold for those who look."""

    def connect(self, autocommit=True, **more):
        known = {name for name, in self.cluster.connect("postgres").execute("SELECT name FROM pg_settings").fetchall()}
        own = {"search_path": "public", "DateStyle": "ISO", "client_min_messages": "warning", **{n: v for n, v in OURS.items() if n in known},
               "default_transaction_read_only": "off", "default_transaction_isolation": "read\\ committed", "jit": "off"}
        return psycopg.connect(self.cluster.conninfo(self.name, options=" ".join(f"-c {n}={v}" for n, v in own.items()),
                                                     client_encoding="UTF8", **more), autocommit=autocommit)


@contextlib.contextmanager
def database_with(postgres, settings):
    """A new, empty database with those of the settings that this server knows."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    postgres.create_database(name)
    database = Calm(postgres, name)
    with postgres.connect("postgres") as conn:
        known = {row[0].lower() for row in conn.execute("SELECT name FROM pg_settings").fetchall()}
        for setting, value in settings.items():
            if setting == "role":
                conn.execute(f'CREATE ROLE "{name}" SUPERUSER')
                value = name
            if setting.lower() in known or "." in setting or setting == "role":
                quoted = value if value.startswith("'") or setting in ("search_path",) else f"'{value}'"
                if setting == "DateStyle":
                    quoted = value.strip("'")
                conn.execute(f'ALTER DATABASE "{name}" SET {setting} = {quoted}')
    try:
        yield database
    finally:
        database.drop()
        with postgres.connect("postgres") as conn:
            conn.execute(f'DROP ROLE IF EXISTS "{name}"')


def application(database, settings):
    """A connection that suffers from all of them but time-outs."""
    known = {name for name, in database.query("SELECT name FROM pg_settings")}
    own = " ".join(f"-c {name}=0" for name in OURS if name in known)
    return psycopg.connect(database.cluster.conninfo(database.name, options=own), autocommit=True, prepare_threshold=None)


@pytest.mark.limit(600)
@pytest.mark.parametrize("group", GROUPS)
def test_settings(postgres, elsewhere, request, cli, jobqd, programs, tmp_path, group):
    settings = GROUPS[group]
    start = postgres.log_size()
    request.node.jobq_logs = [("postgres log", lambda: postgres.log(start))]
    with database_with(postgres, settings) as database:
        cli("migrate", "up", db=database)
        with application(database, settings) as app:
            story.call_all(database, app)
            story.life(database, database.uri, app, jobqd, programs, cli, tmp_path)
        story.command_all(cli, database, database.uri, tmp_path)


def test_there_are_enough_of_them():
    assert len({setting for settings in GROUPS.values() for setting in settings}) > 80


# ---- what our sessions set ----

# What a session of jobq's has, whatever the database says.
SET = {"search_path": "pg_catalog, pg_temp", "statement_timeout": "0"}
SET_FOR_SESSIONS = {"idle_session_timeout": "0", "transaction_timeout": "0", "default_transaction_isolation": "read committed",
                    "standard_conforming_strings": "on", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "extra_float_digits": "1",
                    "client_min_messages": "notice"}
SPOILT = {"search_path": "nobody, public", "statement_timeout": "1h", "idle_session_timeout": "1h", "transaction_timeout": "1h",
          "default_transaction_isolation": "repeatable read", "standard_conforming_strings": "off", "DateStyle": "'SQL, DMY'",
          "IntervalStyle": "iso_8601", "extra_float_digits": "-3", "client_min_messages": "error"}

# Notes what holds where a row of ours is written, and where the schema is changed.
WATCH = """
CREATE TABLE public.seen (who text, name text, value text);
CREATE FUNCTION public.look() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen
    SELECT pg_catalog.current_setting('application_name'), n.name, pg_catalog.current_setting(n.name, true)
      FROM pg_catalog.unnest(%s::pg_catalog.text[]) n (name);
END $$;
CREATE FUNCTION public.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.look(); RETURN NULL; END $$;
CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.look(); END $$;
"""


def watch(database):
    with database.connect() as conn:
        conn.execute(WATCH.replace("%s", "'{" + ",".join([*SET, *SET_FOR_SESSIONS]) + "}'"))


def seen(database, who):
    """{setting: values} in the sessions of that application_name."""
    found = {}
    for name, value in database.query("SELECT DISTINCT name, value FROM public.seen WHERE who = %s AND value IS NOT NULL", (who,)):
        found.setdefault(name, set()).add(value)
    return found


def check_seen(database, who, wanted):
    found = seen(database, who)
    assert found, f"no session {who} was seen"
    assert {name: found[name] for name in wanted if name in found} == {name: {value} for name, value in wanted.items() if name in found}, who


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "behind a pooler"])
def test_sessions_set_what_they_need(postgres, cli, jobqd, programs, pgbouncer, pooled):
    with database_with(postgres, SPOILT if not pooled else {**SPOILT, "default_transaction_isolation": "read committed"}) as database:
        watch(database)
        database.query("CREATE EVENT TRIGGER look ON ddl_command_end EXECUTE FUNCTION public.on_ddl()")
        uri = pgbouncer(database) if pooled else database.uri
        cli("migrate", "up", "--database", uri)
        database.query("DROP EVENT TRIGGER look")
        check_seen(database, "jobqd", SET if pooled else {**SET, **SET_FOR_SESSIONS})
        database.query("TRUNCATE public.seen")

        for table in ("jobs", "nodes", "_leader", "queues"):
            # By the row, after: so that it is the statement's session that is seen, not a function's own search_path.
            database.query(f"CREATE TRIGGER look AFTER INSERT OR UPDATE OR DELETE ON jobq.{table} FOR EACH ROW"
                           " EXECUTE FUNCTION public.on_row()")
        cli("pause", "q", "--database", uri)
        node = jobqd(uri, {"default": {"command": programs("noop_worker")}}, notify="off" if pooled else "on", poll_interval="100ms")
        job = database.enqueue("noop")
        wait_for(lambda: database.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed")
        wait_for(lambda: seen(database, "jobqd control") and seen(database, "jobqd work"))
        assert node.stop() == 0
        for who in ("jobqd work", "jobqd control"):
            check_seen(database, who, SET if pooled else {**SET, **SET_FOR_SESSIONS})
        check_seen(database, "jobqd", {"statement_timeout": "0"})


def test_nothing_is_set_for_others_behind_a_pooler(postgres, cli, pgbouncer):
    """What was set is gone with its transaction: the next client of that session has the database's settings."""
    with database_with(postgres, {"search_path": "nobody, public", "statement_timeout": "1h"}) as database:
        cli("migrate", "up", "--database", pgbouncer(database))
        with psycopg.connect(pgbouncer(database), autocommit=True, prepare_threshold=None) as app:
            pids = set()
            for _ in range(20):
                cli("enqueue", "k", "--database", pgbouncer(database))
                row = app.execute("SELECT pg_backend_pid(), current_setting('search_path'), current_setting('statement_timeout')").fetchone()
                pids.add(row[0])
                assert row[1:] == ("nobody, public", "1h")


# ---- what nobody can mend but the DBA ----

def test_a_database_that_is_read_only(postgres, cli, jobqd):
    with database_with(postgres, {}) as database:
        cli("migrate", "up", db=database)
        database.query(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
        cli("jobs", db=database)
        done = cli("enqueue", "k", db=database, code=70)
        assert done.stderr == ("jobqd enqueue: cannot execute INSERT in a read-only transaction: it is a replica, or "
                               "default_transaction_read_only is on for the database or the role\n")
        said = json.loads(cli("doctor", "--json", db=database, code=69).stdout)
        assert [f["remedy"] for f in said["findings"] if f["check"] == "writes"] == [
            f'ALTER DATABASE {database.name} RESET default_transaction_read_only, or the same for role admin or the server']
        node = jobqd(database, {"default": {"exec": "true"}}, ready=False)
        node.wait_log("session is read-only: it is a replica, or default_transaction_read_only is on for the database or the role")
        database.query(f'ALTER DATABASE "{database.name}" RESET default_transaction_read_only')
        node.wait_ready()


def test_a_database_whose_triggers_do_not_fire(postgres, cli):
    with database_with(postgres, {"session_replication_role": "replica"}) as database:
        cli("migrate", "up", db=database)
        said = json.loads(cli("doctor", "--json", db=database, code=69).stdout)
        found, = [f for f in said["findings"] if f["check"] == "writes" and f["level"] == "fail"]
        assert found["found"].startswith("triggers do not fire: session_replication_role is replica")
        database.query(found["remedy"].split(",")[0])
        said = json.loads(cli("doctor", "--json", db=database, code=None).stdout)
        assert [f["level"] for f in said["findings"] if f["check"] == "writes"] == ["ok"]
