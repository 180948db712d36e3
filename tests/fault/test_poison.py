"""No content of a row, no lock on a row and no object that a user added to our tables stops any other row.

The table: poisons (harness/poisons.py) × statements (harness/statements.py). Here each statement meets all poisons that
concern it at once, each with a job of its own, and some of them by themselves; soak/poison.py tries every pair by itself and
prints the longest wait of a neighbour in each."""

import json
import re
import time
import zlib

import pytest

from harness.arena import BUSY, Arena, Cell
from harness.poisons import FAMILIES, POISONS
from harness.statements import LEFT_OUT, STATEMENTS, left_out
from harness.waiting import wait_for

GROUPS = 3  # processes that share the cells among them, each with a server and nodes of its own


def cells():
    for statement in STATEMENTS.values():
        mark = pytest.mark.xdist_group(f"poison-{zlib.crc32(statement.name.encode()) % GROUPS}")
        for number, poisons in enumerate(statement.together(), 1):
            yield pytest.param(statement, poisons, marks=mark, id=f"{statement.name}-all{number}")
        for poison in statement.singly():
            yield pytest.param(statement, [poison], marks=mark, id=f"{statement.name}-{poison.name}")


@pytest.fixture(scope="module")
def shared(postgres, template, jobqd_program, tmp_path_factory):
    arena = Arena(postgres, template, jobqd_program, tmp_path_factory.mktemp("poison"), BUSY)
    yield arena
    if arena.db is not None:
        arena.close()


@pytest.fixture
def arena(request, shared):
    """The two nodes of the cells before, or new ones where one of those failed. A failed cell shows what they logged."""
    if shared.db is None:
        shared.start()
    starts = {node: len(node.log()) for node in shared.nodes}
    server = shared.postgres.log_size()
    request.node.jobq_logs = [(f"log of {node.folder.name}", lambda node=node: node.log()[starts[node]:])
                              for node in shared.nodes]
    request.node.jobq_logs.append(("postgres log", lambda: shared.postgres.log(server)))
    yield shared


@pytest.mark.limit(600)
@pytest.mark.parametrize("statement, poisons", cells())
def test_no_row_stops_another(arena, statement, poisons):
    fine = False
    try:
        Cell(arena, statement, poisons).run()
        fine = True
    finally:
        if not fine:
            arena.drop()


@pytest.mark.once
def test_each_pair_is_tried_or_says_why():
    unsaid = [(statement.name, family) for statement in STATEMENTS.values() for family in FAMILIES
              if family != "nothing" and family not in statement.outcomes and left_out(statement.name, family) is None]
    assert unsaid == []
    assert all(reason for *_, reason in LEFT_OUT)
    for poison in POISONS.values():
        assert any(statement.takes(poison) for statement in STATEMENTS.values()), f"{poison.name} meets no statement"


# ---- the stories that the table began with ----

@pytest.fixture
def starts(tmp_path):
    """Where fault_worker's jobs write down that they begin: args {"file": path}."""
    return tmp_path / "starts"


def count_starts(path, job):
    return sum(line.split()[1] == str(job) for line in path.read_text().splitlines())


def settle_all(db, jobs, state="completed"):
    ended = "SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY(%s) AND state = %s"
    wait_for(lambda: db.value(ended, (jobs, state)) == len(jobs), what=lambda: f"jobs to be {state}: {db.states()}")


@pytest.mark.parametrize("timing", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_an_export_refers_to_a_job(db, jobqd, programs, cli, starts, timing):
    """A table of the application's refers to a job, which is done. Its neighbours completed with a result and are not run
    again; the job is parked, says why, and ends by itself when the row is gone."""
    db.query(f"CREATE TABLE exports (job_id bigint REFERENCES jobq.jobs (id) {timing})")
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 4}})
    args = json.dumps({"file": str(starts), "result": {"rows": 7}})
    with db.connect(autocommit=False) as conn:
        jobs = [conn.execute("SELECT jobq.enqueue('ok', %s)", (args,)).fetchone()[0] for _ in range(30)]
        held = jobs[11]
        conn.execute("INSERT INTO exports VALUES (%s)", (held,))
    others = [job for job in jobs if job != held]
    settle_all(db, others)
    node.wait_log(rf"\bjob {held}\b.*exports_job_id_fkey")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (held,)) == "suspended")
    assert db.query("SELECT DISTINCT attempt, errors, result FROM jobq.finished_jobs") == [(1, [], {"rows": 7})]
    assert re.search("exports_job_id_fkey", cli("job", held, db=db).stdout)
    assert re.search(rf"job {held}.*exports_job_id_fkey", cli("doctor", db=db, code=None).stdout)
    assert re.search("exports_job_id_fkey", cli("cancel", held, db=db, code=None).stderr)
    db.query("DELETE FROM exports")
    settle_all(db, [held])
    assert db.query("SELECT attempt, result FROM jobq.finished_jobs WHERE id = %s", (held,)) == [(1, {"rows": 7})]
    assert {count_starts(starts, job) for job in jobs} == {1}


def test_an_export_refers_to_a_job_of_an_exec_queue(db, jobqd, tmp_path):
    """Each success once became an error."""
    db.query("CREATE TABLE exports (job_id bigint REFERENCES jobq.jobs (id))")
    ran = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho $JOBQ_JOB_ID >> {ran}\n")
    script.chmod(0o755)
    with db.connect(autocommit=False) as conn:
        jobs = [conn.execute("SELECT jobq.enqueue('export')").fetchone()[0] for _ in range(12)]
        conn.execute("INSERT INTO exports VALUES (%s), (%s)", jobs[2:4])
    node = jobqd(db, {"default": {"exec": str(script), "concurrency": 4}})
    settle_all(db, jobs[:2] + jobs[4:])
    for job in jobs[2:4]:
        node.wait_log(rf"\bjob {job}\b.*exports_job_id_fkey")
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    db.query("TRUNCATE exports")
    settle_all(db, jobs)
    assert sorted(map(int, ran.read_text().split())) == sorted(jobs)


def test_the_fault_of_a_claim_is_not_charged_to_an_answer(db, jobqd, programs, starts):
    """`attempt` by a plain INSERT, as large as it goes: the claim is refused, in the cycle in which a neighbour's end is
    recorded."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}})
    args = json.dumps({"file": str(starts), "result": 1})
    jobs = []
    for _ in range(10):
        jobs.append(db.enqueue("ok", args))
        db.query("SET session_replication_role = replica")
        db.query("INSERT INTO jobq.jobs (kind, args, attempt) VALUES ('ok', %s, 2147483647)", (args,))
        db.query("SET session_replication_role = origin")
        jobs.append(db.enqueue("ok", args))
    settle_all(db, jobs)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs WHERE id = ANY(%s)", (jobs,)) == [(1, [])]
    assert {count_starts(starts, job) for job in jobs} == {1}
    assert node.running


LOCKS = {
    "psql": ("SELECT FROM jobq.jobs WHERE id = %(job)s FOR UPDATE", 12),
    "complete": ("SELECT jobq.complete(%(job)s, 1)", 4),
    "replace": ("SELECT jobq.enqueue('sleep', '{\"ms\": 500, \"n\": 1}', queue => 'held',"
                " unique_by => '{\"fields\": [\"kind\"]}', on_conflict => 'replace', replace => '{\"executing\": [\"args\"]}')", 4),
}


@pytest.mark.parametrize("how, seconds", LOCKS.values(), ids=LOCKS)
def test_a_forgotten_session_holds_a_job(db, jobqd, programs, how, seconds):
    """A running job's row stays locked, for much longer than jobqd waits for a lock. No other job waits, in any queue of that
    node; the log says who holds it; the job ends when the lock is gone."""
    worker = {"command": programs("fault_worker"), "concurrency": 2}
    node = jobqd(db, {"held": worker, "one": worker, "two": worker})
    held = db.enqueue("sleep", '{"ms": 500}', queue="held", unique_by='{"fields": ["kind"]}')
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (held,)) == "executing")
    with db.connect(autocommit=False, application_name="forgotten psql") as conn:
        conn.execute(how, {"job": held})
        began, longest = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            sent = time.monotonic()
            jobs = [db.enqueue("ok", queue=queue) for queue in ("held", "one", "two")]
            settle_all(db, jobs)
            longest = max(longest, time.monotonic() - sent)
        assert longest < BUSY.neighbour_s, f"a neighbour waited {longest:.1f} s"
        node.wait_log(rf"\bjob {held}\b.*application forgotten psql")
        conn.rollback()
    settle_all(db, [held])
    assert db.query("SELECT attempt, errors FROM jobq.finished_jobs WHERE id = %s", (held,)) == [(1, [])]


def test_a_dead_node_s_job_cannot_be_written(db, jobqd, programs):
    """Its other jobs are rescued, and a node of its name starts; so do jobs that become due, though one expired that cannot be
    written either."""
    db.query("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF OLD.args ? 'ledger' AND OLD.state <> 'available' THEN RAISE EXCEPTION 'the ledger is closed'; END IF;
            RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION refuse();""")
    first = jobqd(db, {"default": {"exec": "/bin/sh -c 'sleep 600'", "concurrency": 4}}, node="one", lease="3s")
    ledger = db.enqueue("ok", '{"ledger": 1}')
    jobs = [db.enqueue("ok") for _ in range(3)]
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 4)
    first.kill()
    late = db.value("SELECT jobq.enqueue('ok', '{\"ledger\": 1}', scheduled_at => now() + interval '1 day',"
                    " expires_at => now() + interval '2 days')")
    db.query("SET session_replication_role = replica")
    db.query("UPDATE jobq.jobs SET expires_at = now() WHERE id = %s", (late,))
    db.query("SET session_replication_role = origin")
    jobs += [row[0] for row in db.query("SELECT jobq.enqueue('ok', scheduled_at => now() + n * interval '1 s')"
                                        " FROM generate_series(1, 3) n")]
    second = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 4}}, node="one", lease="3s")
    settle_all(db, jobs)
    for job in (ledger, late):
        second.wait_log(rf"\bjob {job}\b.*the ledger is closed")
    db.query("DROP FUNCTION refuse() CASCADE")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY(%s)", ([ledger, late],)) == 2, 150,
             what=lambda: f"both to end: {db.query('SELECT id, state, errors FROM jobq.jobs')}")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 1)


def test_thousands_of_guilty_ones_are_ahead(db, jobqd, programs):
    """A whole kind cannot be claimed. Those behind it do not wait until each of it has been tried."""
    db.query("ALTER TABLE jobq.jobs ADD CONSTRAINT closed CHECK (kind <> 'closed' OR state <> 'executing') NOT VALID")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'closed' FROM generate_series(1, 5000)")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2},
                      "other": {"command": programs("noop_worker"), "concurrency": 1}})
    began = time.monotonic()
    jobs = [db.enqueue("noop") for _ in range(10)]
    others = [db.enqueue("noop", queue="other")]
    settle_all(db, others)
    assert time.monotonic() - began < BUSY.neighbour_s
    settle_all(db, jobs)
    assert time.monotonic() - began < 3 * BUSY.neighbour_s
    node.wait_log("closed")
    db.query("ALTER TABLE jobq.jobs DROP CONSTRAINT closed")


def test_an_index_of_the_user_s_lets_one_run_at_a_time(db, jobqd, programs, starts):
    """A limit made by hand: each is let in by itself, but not two at once. All of them run in the end, and those of other
    customers at once."""
    db.query("CREATE UNIQUE INDEX one_at_a_time ON jobq.jobs ((args ->> 'customer')) WHERE state = 'executing'")
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 4}})
    with db.connect(autocommit=False) as conn:
        def enqueue(customer):
            args = json.dumps({"file": str(starts), "customer": customer})
            return conn.execute("SELECT jobq.enqueue('ok', %s)", (args,)).fetchone()[0]
        mine = [enqueue("a"), enqueue("a")]
        others = [enqueue(f"b{n}") for n in range(10)]
    began = time.monotonic()
    settle_all(db, others)
    assert time.monotonic() - began < BUSY.neighbour_s
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY(%s)", (mine,)) == 2, 150)
    assert {count_starts(starts, job) for job in mine + others} == {1}


def test_a_node_s_row_is_locked_for_longer_than_its_lease(db, jobqd, programs):
    """It cannot renew its lease, so it stops its workers. The other node notices nothing; when the lock is gone, the first one
    comes back by itself, and no job is lost."""
    worker = {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 1}  # no job waits behind the long one
    first = jobqd(db, {"mine": worker}, node="first", lease="2s")
    jobqd(db, {"yours": worker}, node="second", lease="2s")
    running = db.enqueue("sleep", '{"ms": 100000}', queue="mine", max_attempts=1000)
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (running,)) == "executing")
    with db.connect(autocommit=False, application_name="forgotten psql") as conn:
        conn.execute("SELECT FROM jobq.nodes WHERE name = 'first' FOR UPDATE")
        mine, longest = [], 0
        while "must stop its jobs: " not in first.log():
            sent = time.monotonic()
            mine.append(db.enqueue("ok", queue="mine"))
            settle_all(db, [db.enqueue("ok", queue="yours")])
            longest = max(longest, time.monotonic() - sent)
        assert longest < BUSY.neighbour_s, f"a job of the other node waited {longest:.1f} s"
        first.wait_log("application forgotten psql")
        conn.rollback()
    began = time.monotonic()
    settle_all(db, mine)
    assert time.monotonic() - began < BUSY.neighbour_s
    db.value("SELECT jobq.cancel(%s)", (running,))
    settle_all(db, [running], "cancelled")
    errors = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s", (running,))
    assert [error["kind"] for error in errors][:1] == ["orphaned"]
