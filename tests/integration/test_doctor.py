"""`jobqd doctor`: each finding, provoked for real: what it says, how bad it is, and what to do."""

import json
import os
import re
import resource
import subprocess
import uuid
from pathlib import Path

import pytest

from harness.daemon import SANITIZER_REPORT, clean_environment
from harness.pg import Cluster
from harness.waiting import wait_for


@pytest.fixture
def doctor(cli):
    """doctor(db, "--held", "0s") -> {check: [(level, found, remedy)]}; the exit code is in ["exit"]."""
    def run(db, *args, **options):
        database = [] if db is None else ["--database", db if isinstance(db, str) else db.uri]
        done = cli("doctor", "--json", *database, *args, code=None, **options)
        said = json.loads(done.stdout)
        found = {"exit": done.returncode, "skipped": said["skipped"]}
        for f in said["findings"]:
            found.setdefault(f["check"], []).append((f["level"], f["found"], f["remedy"]))
        levels = [f["level"] for f in said["findings"]]
        assert [levels.count(level) for level in ("ok", "warn", "fail")] == [said["ok"], said["warn"], said["fail"]]
        assert (done.returncode == 0) == ("fail" not in levels)
        return found
    return run


def check(said, name, level, found, remedy=None):
    """One of the check's findings is of this level, and matches (re)."""
    for l, f, r in said[name]:
        if l == level and re.search(found, f) and (r is None if remedy is None else re.search(remedy, r or "")):
            return
    raise AssertionError(f"{name}: no {level} {found!r} {remedy!r} in {said[name]}")


def bad(said, but=()):
    """What is not ok, by check; the tests' server has fsync off."""
    return {name: rows for name, rows in said.items()
            if name not in ("exit", "skipped", "durability", *but) and any(level != "ok" for level, _, _ in rows)}


@pytest.fixture
def role(request, postgres):
    """Makes roles that may log in, for the time of a test."""
    made = []

    def make(options="", member_of=None):
        name = f"r_{uuid.uuid4().hex[:8]}"
        with postgres.connect("postgres") as conn:
            conn.execute(f"CREATE ROLE {name} LOGIN {options}" + (f" IN ROLE {member_of}" if member_of else ""))
        made.append(name)
        return name

    yield make
    with postgres.connect("postgres") as conn:
        for name in made:
            conn.execute(f"DROP ROLE {name}")


def as_role(db, name):
    return f"{db.conninfo} user={name}"


def test_all_is_well(db, jobqd, programs, for_anyone, doctor):
    user = {"user": "nobody"} if os.geteuid() == 0 else {}  # root's own workers are worth a warning
    node = jobqd(db, {"default": {"command": for_anyone(programs("noop_worker")), "concurrency": 2, **user}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._leader") == 1)
    said = doctor(None, "-c", node.conf)
    assert bad(said) == {} and said["skipped"] == 0 and said["exit"] == 0
    assert len(said) == 38 + 2
    check(said, "config", "ok", r"jobqd.conf is valid, 1 queue$")
    check(said, "programs", "ok", "the queue's program can be started here")
    check(said, "open files", "ok", "^all workers together need 72 open files")
    check(said, "connection", "ok", "as role admin$")
    check(said, "notify", "ok", "^notifications arrive$")


def test_a_line_a_finding(db, cli):
    done = cli("doctor", db=db)
    *lines, last = done.stdout.splitlines()
    assert all(re.match(r"(ok|warn|fail) +[a-z ]+  \S", line) for line in lines), lines
    assert "warn  nodes         no node is alive: no jobs run -> start a jobqd" in lines
    warnings = sum(line.startswith("warn ") for line in lines)  # that no node lives, and what the tests' server is spared
    assert last == f"{len(lines) - warnings} ok, {warnings} warning{'s' * (warnings != 1)}, 0 failures"


def test_a_wrong_time_is_refused(db, cli):
    done = cli("doctor", "--held", "soon", db=db, code=64)
    assert done.stderr.startswith("jobqd doctor: --held soon: ")


# ---- the way to the database ----

def test_nobody_answers(doctor, tmp_path):
    said = doctor(f"postgresql://admin@/x?host={tmp_path}")
    check(said, "connection", "fail", "No such file or directory", "start the server")
    assert said["exit"] == 69 and said["skipped"] == 32


def test_a_password_is_not_shown(db, doctor):
    said = doctor(db.conninfo + " password=geheim")
    assert "geheim" not in json.dumps(said)


def test_a_configuration_that_cannot_be_read(doctor, tmp_path):
    conf = tmp_path / "jobqd.conf"
    conf.write_text("[queue default]\nprogram = true\n")
    said = doctor(None, "-c", conf)
    check(said, "config", "fail", "jobqd.conf:2: .* program: no such option", "config check")
    assert said["exit"] == 78 and said["skipped"] == 37


def test_programs_that_are_not_there(db, doctor, tmp_path):
    conf = tmp_path / "jobqd.conf"
    conf.write_text("[queue one]\ncommand = /no/such/program\n[queue two]\nexec = no-such-name\n[queue three]\nexec = true\n")
    said = doctor(db, "-c", conf)
    check(said, "programs", "fail", "jobqd.conf:2: .queue one. command: cannot run /no/such/program: No such file", "neither starts")
    check(said, "programs", "fail", 'jobqd.conf:4: .queue two. exec: no program "no-such-name" on PATH', "neither starts")
    assert len(said["programs"]) == 2
    assert said["exit"] == 78 and said["skipped"] == 0, "the rest is looked at all the same"


@pytest.mark.parametrize("change, words, remedy", [
    (lambda db: db.set_version(999), "has version 999, this jobqd supports up to", "use the jobqd version"),
    (lambda db: None, "has version 1, this jobqd needs version 2", "migrate up"),
    (lambda db: db.query("CREATE FUNCTION jobq.next_position() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
     "from before its first release", "^save what you need from it, run DROP SCHEMA"),
    (lambda db: db.query("DROP FUNCTION jobq.version(); TRUNCATE jobq.schema_version"), "its version is unknown",
     "that INSERT"),
    (lambda db: db.query("DROP SCHEMA jobq CASCADE"), "schema jobq is missing", "migrate up"),
], ids=["newer", "older", "unreleased", "unknown", "missing"])
def test_a_schema_of_another_version(request, db, doctor, jobqd_program, jobqd_next, change, words, remedy):
    change(db)
    said = doctor(db, program=jobqd_next if "[older]" in request.node.name else jobqd_program)
    check(said, "schema", "fail", words, remedy)
    [(_, found, _)] = said["schema"]
    assert "migrate up" not in found, "the remedy says it"
    assert said["exit"] == 78 and said["skipped"] == 19


def test_a_database_that_takes_no_writes(db, doctor):
    db.query(f'ALTER DATABASE "{db.name}" SET default_transaction_read_only = on')
    said = doctor(db)
    check(said, "writes", "fail", "read only", f"ALTER DATABASE {db.name} RESET")
    assert said["exit"] == 69


def test_a_pooler_in_transaction_mode(db, doctor, pgbouncer, tmp_path):
    said = doctor(pgbouncer(db))
    check(said, "connection", "ok", "through a pooler$")
    check(said, "notify", "warn", "^a pooler in transaction mode does not pass on LISTEN", "own address")
    assert bad(said, but=["notify", "nodes"]) == {}
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[jobqd]\nnotify = off\ndatabase = {pgbouncer(db)}\n")
    check(doctor(None, "-c", conf), "notify", "ok", "a pooler in transaction mode, but notify is off, so none are needed")


def test_little_room_for_connections(db, doctor, role):
    name = role("SUPERUSER CONNECTION LIMIT 5")
    check(doctor(as_role(db, name)), "connections", "warn", f"^1 of 5 connections of role {name} are in use", f"ALTER ROLE {name} CONN")


# ---- who holds vacuum back ----

def test_an_old_transaction(db, doctor):
    with db.connect(autocommit=False, application_name="report") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT 1 FROM jobq.jobs")
        pid = conn.info.backend_pid
        said = doctor(db, "--held", "0s")
        check(said, "sessions", "warn", rf"^client backend pid {pid} \(role admin, report, idle in transaction\) has held vacuum back "
              r"for 00:00:\d\d, \d+ transactions$", rf"pg_terminate_backend\({pid}\)")
        assert "sessions" not in bad(doctor(db))  # not for long yet
        conn.rollback()
        assert "sessions" not in bad(doctor(db, "--held", "0s"))


def test_a_slot_that_nobody_uses(db, doctor):
    name = f"left_{uuid.uuid4().hex[:8]}"
    db.query("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
    try:
        check(doctor(db), "slots", "warn", f"^replication slot {name} is not in use, but keeps .* of WAL$",
              rf"pg_drop_replication_slot\('{name}'\)")
    finally:
        db.query("SELECT pg_drop_replication_slot(%s)", (name,))


@pytest.mark.untrapped
@pytest.mark.postgres(max_prepared_transactions="2", max_locks_per_transaction="10", max_connections="20", wal_level="logical")
def test_a_server_with_many_faults(cluster, doctor):
    """Prepared transactions, few locks, a lost role, a logical slot, tables that a crash empties."""
    db = cluster.db
    db.query("SELECT pg_create_logical_replication_slot('gone', 'pgoutput')")
    with db.connect() as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT jobq.enqueue('never')")
        conn.execute("PREPARE TRANSACTION 'forgotten'")
    for offset in range(4, 40, 4):
        db.query("SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date + %s, 4)", (offset,))
    db.query("DROP OWNED BY jobq_viewer")
    db.query("DROP ROLE jobq_viewer")
    said = doctor(db, "--held", "0s")
    check(said, "prepared", "warn", "^prepared transaction 'forgotten' of role admin has held vacuum back for", "ROLLBACK PREPARED")
    check(said, "slots", "warn", r"slot gone is not in use, but keeps .* of WAL, and holds vacuum back by \d+ transactions", "drop_repl")
    check(said, "locks", "warn", r"takes up to \d+ of the server's 220 locks", "max_locks_per_transaction")
    check(said, "roles", "warn", "^jobq_viewer missing", "^jobqd migrate grant$")
    check(said, "durability", "ok", "survive a crash")
    assert said["exit"] == 0


def test_what_a_crash_empties(db, doctor):
    check(doctor(db), "durability", "warn", "fsync is off: a crash of the host", "fsync = on")
    db.query("ALTER TABLE jobq.jobs SET UNLOGGED")
    said = doctor(db)
    check(said, "durability", "fail", "jobs is an unlogged table", 'ALTER TABLE "jobq".jobs SET LOGGED')
    assert said["exit"] == 69


# ---- the tables ----

def test_dead_rows_and_claims_that_are_not_hot(db, doctor):
    db.query("ALTER TABLE jobq.jobs SET (autovacuum_enabled = false)")
    db.query("CREATE INDEX own ON jobq.jobs (queue) WHERE state = 'available'")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'noop' FROM generate_series(1, 60000)")
    db.query("UPDATE jobq.jobs SET state = 'executing' WHERE id <= (SELECT min(id) + 2000 FROM jobq.jobs)")
    db.query("DELETE FROM jobq.jobs")
    db.close()  # or its session would keep its figures to itself for 10 s
    said = {}

    def counted():
        said.update(doctor(db))
        return "dead rows" in bad(said) and "hot updates" in bad(said)
    wait_for(counted, what=lambda: said)
    check(said, "dead rows", "warn", r"^jobs: \d+ live rows, 6\d{4} dead, \d+ MB", "VACUUM")
    check(said, "hot updates", "warn", r"^0 of 2001 updates of jobs were HOT", "index of your own")
    check(said, "indexes", "warn", "^index jobq.own on jobs covers state, which every claim changes", "DROP INDEX jobq.own")
    check(said, "autovacuum", "warn", "autovacuum is off for jobs", r"RESET \(autovacuum_enabled\)")
    assert said["exit"] == 0


def test_an_index_and_settings_that_are_gone(db, doctor):
    db.query("DROP INDEX jobq.jobs_claim")
    db.query("ALTER TABLE jobq.jobs RESET (fillfactor, autovacuum_vacuum_scale_factor)")
    said = doctor(db)
    check(said, "indexes", "fail", "index jobs_claim of jobs is missing or invalid", "migration 1")
    check(said, "autovacuum", "warn", "has lost its storage settings from migration 1", "fillfactor = 45")


def test_a_missing_partition(db, doctor):
    name = db.value("SELECT '_finished_completed' || to_char(now() AT TIME ZONE 'UTC' + interval '1 day', '\"_p\"YYYYMMDD')")
    db.query(f"DROP TABLE jobq.{name}")
    db.query("""INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority,
                queue, kind, args, meta, tags, errors) VALUES (1, now(), now(), now() + interval '1 day', 'completed', 1, 1, 0, 'q', 'k',
                '{}', '{}', '{}', '[]')""")
    said = doctor(db)
    check(said, "partitions", "warn", f"^partition {name} is missing", "create_partitions")
    check(said, "partitions", "warn", "finished jobs are in a default partition", "from their oldest finished_at on")


# ---- nodes and jobs ----

def test_a_dead_node_and_its_jobs(db, jobqd, programs, doctor):
    job = db.enqueue("noop")
    dead = db.value("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, renewed_at, expires_at) "
                    "VALUES ('web-9', 'elsewhere', 1, 1, '0', now() - interval '1 hour', now() - interval '3599 seconds') RETURNING id")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = %s", (dead,))
    waits = db.enqueue("noop", queue="lonely")
    said = doctor(db)
    check(said, "nodes", "warn", r"^node web-9 \(pid 1\) is dead: its lease expired \d\d:\d\d:\d\d ago$", "start a jobqd")
    check(said, "nodes", "fail", "^no node is alive", "start a jobqd")
    check(said, "held jobs", "fail", f"^1 executing job is held by no live node, the first is job {job}$", "start a jobqd")
    check(said, "queues", "fail", "^jobs are waiting in queue lonely, which no live node serves", r"\[queue lonely\]")
    assert said["exit"] == 69
    jobqd(db, {"lonely": {"command": programs("noop_worker")}}, lease="1s")
    db.query("UPDATE jobq.nodes SET upgrade = '{\"error\": \"it is too old\"}' WHERE id <> %s", (dead,))
    said = doctor(db)
    check(said, "nodes", "warn", "could not be upgraded in place: it is too old", "jobqd upgrade")
    assert "fail" not in [level for level, _, _ in said["nodes"]]
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (waits,)) == "completed")
    db.query("UPDATE jobq.nodes SET upgrade = NULL")
    # jobq takes care of the rest: what is left is the rescued job, in a queue that nobody serves here.
    wait_for(lambda: list(bad(doctor(db))) == ["queues"], what=lambda: bad(doctor(db)))


# ---- rights ----

def test_a_viewer_is_told_what_it_lacks(db, doctor, role):
    name = role(member_of="jobq_viewer")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT jobq.enqueue('noop')")
        said = doctor(as_role(db, name), "--held", "0s")
        conn.rollback()
    assert said["rights"] == [("ok", f"{name} has another of jobq's roles; jobqd itself needs jobq_daemon", None)]
    check(said, "sessions", "warn", r"^cannot see into \d+ sessions? of other roles$", f"GRANT pg_monitor TO {name}")
    assert said["exit"] == 0 and said["skipped"] == 0
    assert set(bad(said)) == {"sessions", "nodes"}


def test_a_role_without_rights_learns_that(db, doctor, role):
    name = role()
    said = doctor(as_role(db, name))
    check(said, "queues", "warn", "could not check: permission denied", f'^GRANT jobq_viewer, pg_monitor TO "{name}"$')
    assert said["exit"] == 77


def test_a_role_with_rights_that_owns_nothing(db, doctor, role):
    name = role()
    db.query(f"GRANT USAGE ON SCHEMA jobq TO {name}")
    db.query(f"GRANT ALL ON ALL TABLES IN SCHEMA jobq TO {name}")
    said = doctor(as_role(db, name))
    check(said, "rights", "fail", r"lacks EXECUTE on jobq._claim_apart\(.*, EXECUTE on ", f"^GRANT jobq_daemon TO {name}$")
    assert said["exit"] == 77
    db.query(f"DROP OWNED BY {name}")


def test_a_replica_that_reads_for_long(db, postgres, doctor):
    """By a slot. A healthy one is nothing to mention, however long it is connected."""
    db.query("SELECT pg_create_physical_replication_slot('doctor', true)")
    standby = Cluster(settings={"primary_slot_name": "doctor", "hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"},
                      standby_of=postgres)
    xmin = "SELECT age(xmin) FROM pg_replication_slots WHERE slot_name = 'doctor' AND active"
    try:
        standby.start()
        wait_for(lambda: db.value(xmin) is not None)
        said = doctor(db, "--held", "0s")
        assert not [found for level, found, _ in said["slots"] + said["sessions"] if level != "ok" and ("doctor" in found or "walsender" in found)]
        with standby.connect("postgres", autocommit=False) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT 1 FROM pg_class LIMIT 1")
            db.query("CREATE TABLE public.burnt (n int)")
            db.query("DO $$ BEGIN FOR i IN 1 .. 10100 LOOP BEGIN INSERT INTO public.burnt VALUES (i); "
                     "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$")
            wait_for(lambda: (db.value(xmin) or 0) > 10000)
            check(doctor(db), "slots", "warn", r"the replica of slot doctor holds vacuum back by \d{5} transactions", "hot_standby_feedback")
    finally:
        standby.remove()
        wait_for(lambda: not db.value("SELECT active FROM pg_replication_slots WHERE slot_name = 'doctor'"))
        db.query("SELECT pg_drop_replication_slot('doctor')")


# ---- the host ----

@pytest.mark.root
def test_programs_that_cannot_be_started(db, doctor, tmp_path):
    """Each queue by itself. The other user cannot enter this test's folder."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[jobqd]\ndatabase = {db.uri}\n[queue fine]\nexec = {program}\n"
                    f"[queue hidden]\nexec = {program}\nuser = nobody\n[queue away]\nexec = /bin/true\nuser = nobody\n"
                    f"working_directory = {closed}\n")
    said = doctor(None, "-c", conf)
    assert len(said["programs"]) == 2
    check(said, "programs", "fail", r"jobqd.conf:6: \[queue hidden\]", "neither starts nor reloads")
    check(said, "programs", "fail", r"jobqd.conf:\d+: \[queue away\] working_directory", "neither starts nor reloads")
    assert said["exit"] == 78


def test_too_few_open_files(db, jobqd_program, tmp_path):
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[jobqd]\ndatabase = {db.uri}\n[queue default]\nexec = /bin/true\nconcurrency = 100\n")
    done = subprocess.run([jobqd_program, "doctor", "-c", str(conf)], env=clean_environment(), capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert not SANITIZER_REPORT.search(done.stderr)
    assert done.returncode == 71
    assert "fail  open files    all workers together need 464 open files, but this user may have only 200 -> raise" in done.stdout


def test_an_embedded_database(doctor, tmp_path):
    """One that is not there is not made; a folder of somebody else's is named."""
    said = doctor(None, "--embedded", tmp_path / "new")
    check(said, "embedded", "warn", r"new has no cluster yet: jobqd will create one with PostgreSQL \d+ at its first start", "start jobqd")
    check(said, "connection", "warn", "there is no embedded database", "start jobqd")
    assert said["exit"] == 0 and not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    said = doctor(None, "--embedded", tmp_path)
    check(said, "embedded", "fail", str(tmp_path), "another folder")
    assert said["exit"] == 69


def test_server_binaries_that_are_gone(doctor, tmp_path):
    said = doctor(None, "--embedded", tmp_path / "new", env={"JOBQ_PG_BINDIR": str(tmp_path)})
    check(said, "embedded", "fail", "PG_BINDIR|initdb|binaries", "install them")
