"""What a database may have around jobq: publications, another encoding, prepared transactions, schemas that are open to all."""

import json
import re
import uuid

import psycopg
import pytest

from harness import story
from harness.pg import Cluster, Database, in_memory
from harness.schema import ROOT
from harness.waiting import wait_for


@pytest.fixture
def doctor(cli):
    """doctor(db) -> {check: [(level, found, remedy)]}"""
    def run(db):
        found = {}
        for f in json.loads(cli("doctor", "--json", db=db, code=None).stdout)["findings"]:
            found.setdefault(f["check"], []).append((f["level"], f["found"], f["remedy"]))
        return found
    return run


def the(said, name, level, pattern):
    """The remedy of the finding of this check and level that matches."""
    for found_level, found, remedy in said[name]:
        if found_level == level and re.search(pattern, found):
            return remedy
    raise AssertionError(f"{name}: no {level} {pattern!r} in {said[name]}")


def levels(said, name):
    return {level for level, _, _ in said[name]}


# ---- publications ----

def migrated_under(cluster, cli, publication):
    """A database that had the publication before it had jobq."""
    db = cluster.create_database(f"t_{uuid.uuid4().hex[:8]}")
    db.query(publication)
    cli("migrate", "up", db=db)
    return db


PUBLISHED = ["CREATE PUBLICATION everything FOR ALL TABLES",
             "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)"]


@pytest.mark.limit(600)
@pytest.mark.postgres(wal_level="logical")
@pytest.mark.parametrize("publication", PUBLISHED, ids=["by partition", "by root"])
def test_a_publication_for_all_tables(cluster, cli, jobqd, programs, publication):
    """Whatever jobq deletes and updates it can, while the tables are published: from the first step on, and by the days to come."""
    db = migrated_under(cluster, cli, publication)
    with db.connect() as conn:
        conn.execute("INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority,"
                     " queue, kind, args, meta, tags, errors) SELECT nextval('jobq.jobs_id_seq'), now(), now(), now() - interval '40 days',"
                     " s::jobq.job_state, 1, 1, 0, 'q', 'k', '{}', '{}', '{}', '[]' FROM unnest('{completed,discarded}'::text[]) s")
        assert conn.execute("SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date - 40, 1)").fetchone() == (2,)
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}}, keep_completed="100d", keep_failed="100d")
    done, failed = db.enqueue("ok"), db.enqueue("fail", max_attempts=1)
    db.wait_for_states({"completed": 2, "discarded": 2})
    again = db.enqueue("fail", '{"times": 1}', max_attempts=2, unique_key="u")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (again,)) == "retryable")
    db.query("SELECT jobq.retry(%s)", (again,))
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (again,)) == "completed")
    db.query("SELECT jobq.retry(%s)", (failed,))
    wait_for(lambda: db.value("SELECT attempt FROM jobq.finished_jobs WHERE id = %s", (failed,)) == 2)
    assert db.value("SELECT jobq.delete(%s)", (done,)) is True
    db.query("SELECT jobq.enqueue('ok', '{\"user\": 1}')")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE args <> '{}'") == 2)
    assert db.value("SELECT jobq.purge('{\"user\": 1}')") == 1
    assert db.value("SELECT jobq.delete_many('{\"state\": \"discarded\", \"queue\": \"q\"}')") == 1
    db.query("SELECT jobq._prune_history('{\"queues\": {\"default\": {\"completed_ms\": 0}}}', 1000000)")
    assert db.value("SELECT count(*) FROM jobq.finished_jobs WHERE queue = 'default' AND state = 'completed'") == 0
    db.query("SELECT jobq.pause('default'), jobq.resume('default'), jobq.cron_set('c', '@daily', 'k'), jobq.cron_delete('c')")
    assert db.value("SELECT jobq._drop_partitions('30 days', '30 days')") == 1
    node.stop()
    cli("migrate", "down", "0", db=db)


@pytest.mark.postgres(wal_level="logical")
def test_doctor_looks_at_publications(cluster, cli, doctor):
    db = migrated_under(cluster, cli, PUBLISHED[0])
    remedy = the(doctor(db), "publications", "warn", "^publication everything publishes each partition of the history: its subscriber needs")
    assert remedy == "ALTER PUBLICATION everything SET (publish_via_partition_root = true)"
    db.query(remedy)
    the(doctor(db), "publications", "ok", "^jobq's tables are published by everything")
    # A history from before its partitions had a replica identity; and a table of the user's own is none of our business.
    for name, in db.query("SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^_?finished_' AND relkind = 'r'"):
        db.query(f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT")
    db.query("CREATE TABLE public.bare (n int)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.query("SELECT jobq.purge('{\"user\": 1}'); DELETE FROM jobq.finished_jobs")
    remedy = the(doctor(db), "publications", "fail",
                 r"^\d+ of jobq's tables without a replica identity, such as jobq._?finished_\w+, are published by everything: ")
    db.query(remedy)
    assert levels(doctor(db), "publications") == {"ok"}
    db.query("DELETE FROM jobq.finished_jobs")
    db.query("DROP PUBLICATION everything")
    the(doctor(db), "publications", "ok", "^no publication covers jobq's tables$")


@pytest.mark.postgres(wal_level="logical")
def test_a_publication_of_the_schema(cluster, cli, doctor):
    db = cluster.db
    if db.value("SELECT current_setting('server_version_num')::int") < 150000:
        db.query("CREATE PUBLICATION ours FOR TABLE jobq.jobs, jobq.finished_jobs, jobq._uniques")
    else:
        db.query("CREATE PUBLICATION ours FOR TABLES IN SCHEMA jobq")
    the(doctor(db), "publications", "warn", "^publication ours publishes each partition of the history")
    assert db.value("SELECT jobq._create_partitions('2031-01-01', 1)") == 2
    db.query("DELETE FROM jobq.finished_jobs; UPDATE jobq.finished_jobs SET kind = 'a'; DELETE FROM jobq.jobs; DELETE FROM jobq._idle")


REPLICATION = (ROOT / "jobqd" / "docs" / "replication.md").read_text(encoding="utf-8")


def of_the_page(begin):
    """The page's statement that begins so."""
    return re.search(rf"^({re.escape(begin)}[^;]*);$", REPLICATION, re.M)[1]


@pytest.mark.limit(600)
@pytest.mark.postgres(wal_level="logical", max_worker_processes="16")
def test_a_subscriber_has_what_the_page_says(cluster, cli, jobqd, programs):
    """A copy follows, then takes over, without an id or a position being given out twice."""
    db = cluster.db
    db.query(of_the_page("CREATE PUBLICATION"))
    db.query("SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
    copy = cluster.create_database("copy")
    cli("migrate", "up", db=copy)
    copy.query(of_the_page("TRUNCATE"))
    # Both are on one server here: a slot that CREATE SUBSCRIPTION made itself would wait for its own transaction.
    copy.query(of_the_page("CREATE SUBSCRIPTION").replace("dbname=app", db.conninfo) + " WITH (create_slot = false, slot_name = 'copy')")
    # Each table's first copy is done, and none is tried again for ever.
    wait_for(lambda: copy.query("SELECT srrelid::regclass::text, srsubstate FROM pg_subscription_rel WHERE srsubstate <> 'r'") == [], 60,
             what=lambda: copy.query("SELECT srrelid::regclass::text, srsubstate FROM pg_subscription_rel WHERE srsubstate <> 'r'"))
    node = jobqd(db, {"default": {"command": programs("noop_worker")}})
    ids = [db.enqueue("noop") for _ in range(20)]
    later = db.enqueue("noop", scheduled_at="2100-01-01")
    states = {"completed": 20, "scheduled": 1}
    db.wait_for_states(states)
    copy.wait_for_states(states)
    db.query("SELECT jobq.delete(%s)", (ids[0],))
    copy.wait_for_states({"completed": 19, "scheduled": 1})
    node.stop()
    wait_for(lambda: copy.value("SELECT count(*) FROM jobq.nodes") == 0)
    copy.query("ALTER SUBSCRIPTION copy DISABLE")
    wait_for(lambda: not db.value("SELECT active FROM pg_replication_slots"))
    copy.query("ALTER SUBSCRIPTION copy SET (slot_name = NONE)")
    copy.query("DROP SUBSCRIPTION copy")
    for name, value in (("id", "jobs_id_seq"), ("position", "jobs_position_seq"), ("node", "nodes_id_seq")):
        copy.query(of_the_page(f"SELECT setval('jobq.{value}'").replace(f":last_{name}", str(db.value(f"SELECT last_value FROM jobq.{value}"))))
    jobqd(copy, {"default": {"command": programs("noop_worker")}})
    new = copy.enqueue("noop")
    assert new > later
    copy.query("SELECT jobq.retry(%s)", (later,))
    copy.wait_for_states({"completed": 21})


# ---- encodings ----

@pytest.fixture
def other_encoding(request, postgres):
    """A database of that encoding."""
    made = []

    def make(encoding):
        name = f"t_{uuid.uuid4().hex[:12]}"
        with postgres.connect("postgres") as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
        made.append(Database(postgres, name))
        return made[-1]
    yield make
    for db in made:
        db.drop()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "WIN1252"])
def test_a_database_that_does_not_hold_any_text(postgres, other_encoding, cli, doctor, jobqd, programs, template, encoding):
    db = other_encoding(encoding)
    said = cli("migrate", "up", db=db, code=78).stderr
    assert said == (f"jobqd migrate: the database's encoding is {encoding}, but jobq needs UTF8: create another database (CREATE DATABASE "
                    "... TEMPLATE template0 ENCODING 'UTF8') and move your data there\n")
    assert db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 0
    with db.connect() as conn, pytest.raises(psycopg.Error, match=f"the database's encoding is {encoding}"):
        conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
    remedy = the(doctor(db), "encoding", "fail", f"^the database's encoding is {encoding}, but jobq needs UTF8")
    assert remedy == (f"CREATE DATABASE {db.name}_utf8 TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    db.query(remedy)
    mended = Database(postgres, f"{db.name}_utf8")
    try:
        assert levels(doctor(mended), "encoding") == {"ok"}
        cli("migrate", "up", db=mended)
    finally:
        mended.drop()
    # Where one got there by another way, jobqd says so, too: a version() is all that it asks for before.
    db.query(f"CREATE SCHEMA jobq; CREATE FUNCTION jobq.version() RETURNS int LANGUAGE sql AS "
             f"'SELECT {json.loads(cli('version', '--json').stdout)['schema']}'")
    node = jobqd(db, {"default": {"command": programs("noop_worker")}}, ready=False)
    node.expected_exit = 69
    assert node.wait() == 69
    node.wait_log("ERROR jobqd: the database's encoding is not UTF8, so a job with characters that it lacks fails")


# ---- transactions that are prepared ----

NOTIFIERS = {
    "an insert": "INSERT INTO jobq.jobs (kind) VALUES ('a')",
    "enqueue": "SELECT jobq.enqueue('a')",
    "enqueue_many": "SELECT jobq.enqueue_many('[{\"kind\": \"a\"}]')",
    "try_enqueue": "SELECT jobq.try_enqueue('a', unique_by => '{}')",
    "due soon": "SELECT jobq.enqueue('a', scheduled_at => now() + interval '1 second')",
    "replaced, due soon": "SELECT jobq.try_enqueue('later', unique_key => 'u', on_conflict => 'replace', replace => '[\"scheduled_at\"]',"
                          " scheduled_at => now() + interval '1 second')",
    "replaced, due": "SELECT jobq.try_enqueue('later', unique_key => 'u', on_conflict => 'replace', replace => '[\"scheduled_at\"]')",
    "cancel": "SELECT jobq.cancel(id) FROM jobq.jobs WHERE kind = 'running'",
    "delete": "SELECT jobq.delete(id) FROM jobq.jobs WHERE kind = 'running'",
    "cancel_many": "SELECT jobq.cancel_many('{\"kind\": \"running\"}')",
    "retry": "SELECT jobq.retry(id) FROM jobq.jobs WHERE kind = 'later'",
    "retry of an ended one": "SELECT jobq.retry(id) FROM jobq.finished_jobs",
    "retry_many": "SELECT jobq.retry_many('{\"all\": true}')",
    "pause": "SELECT jobq.pause('default')",
    "resume": "SELECT jobq.resume('paused')",
    "scale": "SELECT jobq.scale('default', 3)",
    "cron_set": "SELECT jobq.cron_set('c', '@daily', 'k')",
    "cron_run": "SELECT jobq.cron_run('nightly')",
    "a cron's row": "UPDATE jobq.crons SET schedule = '@every 1s' WHERE name = 'nightly'",
}


@pytest.fixture(scope="module")
def preparing():
    """A server that prepares transactions, with a database in which each of NOTIFIERS has somebody to notify."""
    from harness import schema
    server = Cluster(where=in_memory(), settings={"max_prepared_transactions": "10"}).start()
    try:
        db = server.create_database("app")
        schema.migrate(db)
        db.query("INSERT INTO jobq._idle VALUES ('default', 1)")
        db.query("SELECT jobq.cron_set('nightly', '@daily', 'k')")
        db.query("SELECT jobq.pause('paused'), jobq.enqueue('later', scheduled_at => '2100-01-01', unique_key => 'u'), jobq.enqueue('ended')")
        db.query("SELECT jobq.cancel(id) FROM jobq.jobs WHERE kind = 'ended'")
        db.query("SELECT jobq.enqueue('running')")
        db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1 WHERE kind = 'running'")
        yield db
    finally:
        server.remove()


@pytest.mark.parametrize("what", NOTIFIERS)
def test_a_transaction_that_does_not_notify_can_be_prepared(preparing, what):
    with preparing.connect() as conn:
        conn.execute("BEGIN")
        conn.execute(NOTIFIERS[what])
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
            conn.execute("PREPARE TRANSACTION 'x'")
        conn.execute("SET jobq.notify = off")
        conn.execute("BEGIN")
        conn.execute(NOTIFIERS[what])
        conn.execute("PREPARE TRANSACTION 'x'")
        conn.execute("ROLLBACK PREPARED 'x'")


@pytest.mark.parametrize("value, notifies", [("on", True), ("TRUE", True), ("yes", True), ("1", True), ("", True), ("off", False),
                                             ("False", False), ("no", False), ("0", False)])
def test_the_values_of_the_setting(preparing, value, notifies):
    with preparing.connect() as conn:
        conn.execute("SELECT set_config('jobq.notify', %s, false)", [value])
        heard = []
        conn.add_notify_handler(lambda notice: heard.append(notice.payload))
        conn.execute("LISTEN jobq")
        job = conn.execute("SELECT jobq.enqueue('a')").fetchone()[0]
        conn.execute("SELECT pg_notify('jobq', 'end')")  # one's own come with the statement's answer
        assert heard == (["queue default"] if notifies else []) + ["end"]
        conn.execute("SELECT jobq.cancel(%s)", [job])


def test_a_wrong_value_is_named(preparing):
    with preparing.connect() as conn:
        conn.execute("SET jobq.notify = 'perhaps'")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match='jobq.notify must be on or off, got "perhaps"'):
            conn.execute("SELECT jobq.enqueue('a')")


@pytest.mark.postgres(max_prepared_transactions="2")
def test_a_prepared_job_runs_once_it_is_committed(cluster, jobqd, programs):
    """By the role's own setting; the node finds it by looking."""
    db = cluster.db
    db.query("CREATE ROLE bank LOGIN IN ROLE jobq_enqueuer")
    db.query("ALTER ROLE bank SET jobq.notify = off")
    jobqd(db, {"default": {"command": programs("noop_worker")}}, poll_interval="500ms")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle") == 1)
    with db.connect(user="bank") as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT jobq.enqueue('noop')")
        conn.execute("PREPARE TRANSACTION 'transfer 7'")
    assert db.states() == {}
    db.query("COMMIT PREPARED 'transfer 7'")
    db.wait_for_states({"completed": 1})


# ---- schemas that others may write in ----

@pytest.fixture
def app(postgres, db):
    """A role of an application."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    db.query(f"CREATE ROLE {name} LOGIN IN ROLE jobq_enqueuer")
    yield name
    db.query(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_path_that_is_open_to_all(db, app, doctor):
    db.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert levels(doctor(db), "search path") == {"ok"}
    db.query("GRANT CREATE ON SCHEMA public TO PUBLIC")
    remedy = the(doctor(db), "search path", "warn",
                 f"^every role may create functions and operators in schema public, which is on the search_path of admin, {app}")
    assert remedy == "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    db.query(remedy)
    assert levels(doctor(db), "search path") == {"ok"}


@pytest.mark.untrapped
@pytest.mark.postgres(search_path="tools")
def test_a_path_of_the_servers_own(cluster, doctor):
    db = cluster.db
    db.query("CREATE SCHEMA tools; GRANT CREATE ON SCHEMA tools TO PUBLIC")
    db.query(the(doctor(db), "search path", "warn", "^every role may create .* in schema tools, which is on the search_path of admin$"))
    assert levels(doctor(db), "search path") == {"ok"}


@pytest.mark.untrapped
def test_a_path_of_a_roles_or_a_databases_own(db, app, doctor):
    db.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    db.query('CREATE SCHEMA shared; CREATE SCHEMA "Odd, one"; CREATE SCHEMA closed')
    db.query(f'CREATE SCHEMA {app} AUTHORIZATION {app}')
    mallory = f"{app}_m"
    db.query(f"CREATE ROLE {mallory}")
    db.query(f'GRANT CREATE ON SCHEMA "Odd, one", shared, {app} TO {mallory}')
    try:
        the(doctor(db), "search path", "warn", f"^role {mallory} may create functions and operators in schema {app}, which is on the search_path of {app}$")
        db.query(f"REVOKE CREATE ON SCHEMA {app} FROM {mallory}")
        assert levels(doctor(db), "search path") == {"ok"}
        db.query(f'ALTER DATABASE "{db.name}" SET search_path = closed, "Odd, one"')
        remedy = the(doctor(db), "search path", "warn", f"^role {mallory} may create functions and operators in schema Odd, one, .* of admin, {app}$")
        db.query(remedy)
        assert remedy == f'REVOKE CREATE ON SCHEMA "Odd, one" FROM {mallory}'
        assert levels(doctor(db), "search path") == {"ok"}
        db.query(f"ALTER ROLE {app} IN DATABASE \"{db.name}\" SET search_path = shared")
        db.query(the(doctor(db), "search path", "warn", f"schema shared, which is on the search_path of {app}$"))
        assert levels(doctor(db), "search path") == {"ok"}
    finally:
        db.query(f"DROP OWNED BY {mallory} CASCADE; DROP ROLE {mallory}")


# ---- columns of the application's own ----

def variables(db):
    """The names of all parameters and variables of jobq's functions."""
    names = set()
    for source, given in db.query("SELECT prosrc, coalesce(proargnames, '{}') FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"):
        names |= {name for name in given if name}
        for declared in re.findall(r"^DECLARE\n(.*?)^BEGIN", source, re.S | re.M):
            names |= set(re.findall(r"^ {4}(\w+) ", declared, re.M))
    return names


@pytest.mark.limit(600)
def test_columns_that_are_called_like_a_functions_variable(db, jobqd, programs, cli, tmp_path):
    """A table of jobq's may have any more columns."""
    names = variables(db)
    assert {"due", "ids", "told", "fields", "hash"} <= names
    tables = db.query("SELECT c.relname, ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid) FROM pg_class c"
                      " WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition")
    for table, columns in tables:
        more = sorted(names - set(columns))
        db.query(f"ALTER TABLE jobq.{table} " + ", ".join(f'ADD COLUMN "{name}" text' for name in more))
    with db.connect() as app:
        app.prepare_threshold = None
        story.call_all(db, app)
        story.life(db, db.uri, app, jobqd, programs, cli, tmp_path)
    assert "ambiguous" not in db.cluster.log()
