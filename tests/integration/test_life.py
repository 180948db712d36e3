"""The life of a job, each row of the table in the design: what leads to which state, and what is written down of it."""

import json
import signal
import subprocess

import psycopg
import pytest

from harness.waiting import wait_for


def job_row(db, job, columns):
    """One row of all_jobs as a tuple; columns as in SQL."""
    rows = db.query(f"SELECT {columns} FROM jobq.all_jobs WHERE id = %s", (job,))
    assert len(rows) == 1, f"job {job} is there {len(rows)} times"
    return rows[0]


def wait_state(db, job, state):
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == state,
             what=lambda: f"job {job} to be {state}: {job_row(db, job, 'state, attempt, errors')}")


@pytest.fixture
def worker(programs):
    """The queue that most tests use: whatever a job asks for."""
    return {"default": {"command": programs("fault_worker"), "concurrency": 2}}


def test_a_job_is_done(db, jobqd, worker):
    job = db.enqueue("ok", '{"result": {"answer": 42}}', priority=3, tags=["a", "b"], meta='{"trace": "x"}')
    assert job_row(db, job, "state::text, attempt, attempted_at, attempted_by, position IS NULL") == \
        ("available", 0, None, None, False)
    jobqd(db, worker)
    wait_state(db, job, "completed")
    node, = db.query("SELECT id FROM jobq.nodes")[0]
    assert job_row(db, job, "state::text, attempt, attempted_by, result, errors, priority, tags, meta, kind, queue") == \
        ("completed", 1, node, {"answer": 42}, [], 3, ["a", "b"], {"trace": "x"}, "ok", "default")
    assert job_row(db, job, "inserted_at <= attempted_at AND attempted_at <= finished_at") == (True,)
    assert db.query("SELECT * FROM jobq.jobs") == []


def test_a_plain_insert_is_done_as_well(db, jobqd, worker):
    jobqd(db, worker)
    job = db.value("INSERT INTO jobq.jobs (kind, args) VALUES ('echo', '{\"plain\": true}') RETURNING id")
    wait_state(db, job, "completed")
    assert job_row(db, job, "result") == ({"plain": True},)


def test_a_job_rolled_back_was_never_there(db, jobqd, worker):
    jobqd(db, worker)
    with db.connect(autocommit=False) as conn:
        job = conn.execute("SELECT jobq.enqueue('ok')").fetchone()[0]
        conn.rollback()
        later = conn.execute("SELECT jobq.enqueue('ok')").fetchone()[0]
    wait_state(db, later, "completed")
    assert db.query("SELECT * FROM jobq.all_jobs WHERE id = %s", (job,)) == []


def test_an_error_is_retried_as_oban_does(db, jobqd, worker):
    jobqd(db, worker)
    job = db.enqueue("fail", '{"error": "no luck", "detail": "at line 7"}')
    wait_state(db, job, "retryable")
    (error,), attempt, position = job_row(db, job, "errors, attempt, position")
    assert (attempt, position) == (1, None)
    assert {name: error[name] for name in ("attempt", "kind", "error", "detail")} == \
        {"attempt": 1, "kind": "error", "error": "no luck", "detail": "at line 7"}
    delay, = job_row(db, job, "extract(epoch FROM scheduled_at - (errors -> -1 ->> 'at')::timestamptz)::float")
    assert 17 <= delay <= 17 * 1.1  # 15 + 2^1, up to 10 % more


@pytest.mark.parametrize("backoff, args, delays", [
    ("constant(0s)", '{"times": 3}', [0, 0, 0]),
    ("exponential(base=100ms, cap=250ms)", '{"times": 3}', [0.1, 0.2, 0.25]),
    ("linear(base=50ms, step=100ms, cap=10s)", '{"times": 3}', [0.05, 0.15, 0.25]),
    ("constant(1h)", '{"times": 2, "retry_in_ms": 120}', [0.12, 0.12]),
])
def test_a_queue_and_a_handler_name_their_own_delays(db, jobqd, worker, backoff, args, delays):
    with db.connect() as conn:  # a handler's retry leaves no trace in the row but its last; so each is kept
        conn.execute("CREATE TABLE public.due (attempt int, delay float)")
        conn.execute("""CREATE FUNCTION public.keep_due() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.due VALUES (OLD.attempt, extract(epoch FROM NEW.scheduled_at
                - (NEW.errors -> -1 ->> 'at')::timestamptz)); RETURN NULL; END $$""")
        conn.execute("""CREATE TRIGGER keep_due AFTER UPDATE ON jobq.jobs FOR EACH ROW
            WHEN (NEW.errors <> OLD.errors) EXECUTE FUNCTION public.keep_due()""")
    worker["default"]["backoff"] = backoff
    jobqd(db, worker)
    job = db.enqueue("fail", args)
    wait_state(db, job, "completed")
    kept = [delay for delay, in db.query("SELECT delay FROM public.due ORDER BY attempt")]
    assert len(kept) == len(delays)
    for delay, named in zip(kept, delays):
        assert named <= delay + 1e-6 <= named * 1.1 + 2e-6  # jitter comes on top
    errors, attempt = job_row(db, job, "errors, attempt")
    assert [error["attempt"] for error in errors] == list(range(1, len(delays) + 1)) and attempt == len(delays) + 1


def test_without_attempts_left_a_job_is_discarded_and_may_be_retried_by_hand(db, jobqd, worker):
    worker["default"]["backoff"] = "constant(0s)"
    jobqd(db, worker)
    job = db.enqueue("fail", '{"times": 2}', max_attempts=2)
    wait_state(db, job, "discarded")
    assert job_row(db, job, "attempt, jsonb_array_length(errors)") == (2, 2)
    assert db.value("SELECT jobq.retry(%s)", (job,))
    wait_state(db, job, "completed")
    assert job_row(db, job, "attempt, jsonb_array_length(errors)") == (3, 2)


def test_the_handler_discards(db, jobqd, worker):
    jobqd(db, worker)
    job = db.enqueue("discard", '{"error": "bad address"}')
    wait_state(db, job, "discarded")
    (error,), = job_row(db, job, "errors")
    assert error["error"] == "bad address"


def test_the_handler_cancels(db, jobqd, worker):
    jobqd(db, worker)
    job = db.enqueue("cancel", '{"error": "no longer wanted"}')
    wait_state(db, job, "cancelled")
    assert job_row(db, job, "attempt, errors -> 0 ->> 'error'") == (1, "no longer wanted")


def test_the_handler_snoozes_and_that_is_no_attempt(db, jobqd, worker, tmp_path):
    enough, began = tmp_path / "enough", tmp_path / "began"
    jobqd(db, worker)
    job = db.enqueue("snooze", json.dumps({"ms": 50, "unless": str(enough), "file": str(began)}), max_attempts=1)
    wait_for(lambda: began.exists() and len(began.read_text().splitlines()) >= 3)
    enough.touch()
    wait_state(db, job, "completed")
    assert job_row(db, job, "attempt, errors") == (1, [])
    assert {line.split()[2] for line in began.read_text().splitlines()} == {"1"}


def test_a_kind_that_nobody_handles(db, jobqd, worker):
    jobqd(db, worker)
    job = db.enqueue("no-such-kind", max_attempts=1)
    wait_state(db, job, "discarded")
    (error,), = job_row(db, job, "errors")
    assert error["kind"] == "unhandled" and "no-such-kind" in error["error"]


def test_a_scheduled_job_starts_at_its_time(db, jobqd, worker):
    # Polling once an hour: so it is the stager that knows the time, and a notification that wakes.
    jobqd(db, worker, poll_interval="1h")
    wait_for(lambda: db.query("SELECT * FROM jobq._idle"))
    late_ms = []
    for _ in range(3):
        job = db.value("SELECT jobq.enqueue('ok', scheduled_at => clock_timestamp() + interval '700 ms')")
        assert job_row(db, job, "state::text") == ("scheduled",)
        wait_state(db, job, "completed")
        late_ms.append(float(job_row(db, job, "extract(epoch FROM attempted_at - scheduled_at) * 1000")[0]))
    far = db.value("SELECT jobq.enqueue('ok', scheduled_at => clock_timestamp() + interval '1 hour')")
    print(f"scheduled jobs were claimed {[round(ms, 1) for ms in late_ms]} ms after their time")
    assert min(late_ms) >= 0 and max(late_ms) < 5000
    assert job_row(db, far, "state::text") == ("scheduled",)


def test_a_notification_wakes_an_idle_node(db, jobqd, worker):
    jobqd(db, worker, poll_interval="1h")
    for _ in range(5):
        wait_for(lambda: db.query("SELECT * FROM jobq._idle"))
        wait_state(db, db.enqueue("ok"), "completed")


def test_by_polling_alone(db, jobqd, worker):
    node = jobqd(db, worker, notify="off", poll_interval="50ms")
    for _ in range(5):
        wait_state(db, db.enqueue("ok"), "completed")
    assert db.query("SELECT * FROM jobq._idle") == []
    assert db.value("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%%' AND datname = current_database()") == 0
    assert node.running


def test_priorities_go_first(db, jobqd, worker, tmp_path):
    began = tmp_path / "began"
    worker["default"].update(concurrency=1, mailbox=1)
    jobs = {priority: [db.enqueue("ok", json.dumps({"file": str(began)}), priority=priority) for _ in range(5)]
            for priority in (9, 4, 0)}
    jobqd(db, worker)
    db.wait_for_states({"completed": 15})
    order = [int(line.split()[1]) for line in began.read_text().splitlines()]
    assert order == jobs[0] + jobs[4] + jobs[9]


BIG = '{"f": 0.1, "n": 123456789012345678, "deep": [1e400, -0.0, "\\u00e9\\n"]}'


def test_the_bytes_of_args_and_result_arrive(db, jobqd, programs, tmp_path):
    """What Postgres holds is what the worker reads, and what it answers is what Postgres is given."""
    args = tmp_path / "args"
    script = tmp_path / "handler.sh"
    script.write_text(f"#!/bin/sh\ncat >{args}\n")
    script.chmod(0o755)
    jobqd(db, {"echo": {"command": programs("fault_worker"), "concurrency": 1},
               "exec": {"exec": script, "concurrency": 1}})
    jobs = [db.enqueue("echo", BIG, queue=queue) for queue in ("echo", "exec")]
    for job in jobs:
        wait_state(db, job, "completed")
    held, result = job_row(db, jobs[0], "args::text, result::text")
    assert "123456789012345678" in held and '"f": 0.1,' in held
    assert result == held
    assert args.read_text().strip() == held


@pytest.fixture
def completing_handler(tmp_path):
    """An exec program that finishes its job in a transaction of its own, with an effect, as many times as it is run."""
    script = tmp_path / "handler.sh"

    def write(db, ending):
        psql = subprocess.check_output(["sh", "-c", "command -v psql"], text=True).strip()
        script.write_text(f"""#!/bin/sh
{psql} -X -q -v ON_ERROR_STOP=1 '{db.uri}' <<END
BEGIN;
INSERT INTO public.effects VALUES ($JOBQ_JOB_ID, $JOBQ_ATTEMPT);
SELECT jobq.complete($JOBQ_JOB_ID, $JOBQ_ATTEMPT, '{{"by": "handler"}}');
COMMIT;
END
{ending}
""")
        script.chmod(0o755)
        db.query("CREATE TABLE public.effects (job bigint, attempt int)")
        return script
    return write


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "kill -9 $$"])
def test_a_handler_completes_its_job_in_its_own_transaction(db, jobqd, completing_handler, ending):
    """Whatever the process does afterwards: its answer comes late, is refused, and is counted."""
    jobqd(db, {"default": {"exec": completing_handler(db, ending), "concurrency": 1}}, lease="1s")
    job = db.enqueue("effect")
    wait_state(db, job, "completed")
    wait_for(lambda: db.value("SELECT (queues #>> '{default,refused}')::int FROM jobq.nodes") == 1)
    assert job_row(db, job, "state::text, result, errors, attempt") == ("completed", {"by": "handler"}, [], 1)
    assert db.query("SELECT * FROM public.effects") == [(job, 1)]


def test_keep_none_leaves_no_history_of_what_went_well(db, jobqd, worker):
    worker["default"].update(keep="none", backoff="constant(0s)")
    jobqd(db, worker)
    for args in ("{}", '{"result": 1}'):
        db.enqueue("ok", args)
    failed = db.enqueue("fail", max_attempts=1)
    retried = db.enqueue("fail", '{"times": 1}')
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
    assert db.states() == {"discarded": 1}
    assert job_row(db, failed, "errors -> 0 ->> 'kind'") == ("error",)
    assert db.query("SELECT * FROM jobq.all_jobs WHERE id = %s", (retried,)) == []


def test_a_waiting_job_is_cancelled(db, jobqd, worker):
    job = db.enqueue("ok")
    assert db.value("SELECT jobq.cancel(%s)", (job,))
    other = db.enqueue("ok")
    jobqd(db, worker)
    wait_state(db, other, "completed")
    assert job_row(db, job, "state::text, attempt") == ("cancelled", 0)


def test_two_nodes_share_the_work(db, jobqd, worker):
    worker["default"]["mailbox"] = 1
    jobqd(db, worker)
    jobqd(db, worker)
    db.query("SELECT jobq.enqueue('sleep', '{\"ms\": 20}') FROM generate_series(1, 200)")
    db.wait_for_states({"completed": 200})
    shares = dict(db.query("SELECT attempted_by, count(*) FROM jobq.finished_jobs GROUP BY 1"))
    assert len(shares) == 2 and min(shares.values()) > 10, shares


def test_a_node_takes_its_own_queues_alone(db, jobqd, worker):
    jobqd(db, worker)
    elsewhere = db.enqueue("ok", queue="elsewhere")
    wait_state(db, db.enqueue("ok"), "completed")
    assert job_row(db, elsewhere, "state::text") == ("available",)


def test_two_nodes_of_one_name_are_refused(db, jobqd, worker):
    jobqd(db, worker, node="twin", lease="1s")
    second = jobqd(db, worker, node="twin", lease="1s", ready=False)
    second.expected_exit = 69
    assert second.wait() == 69
    assert "the name twin is in use by a running node" in second.log()


@pytest.mark.parametrize("change, words", [
    (lambda db: db.set_version(999),
     r"schema jobq has version 999, this jobqd needs version \d+: install a newer jobqd, or run `jobqd migrate down`"),
    (lambda db: db.set_version(0), r"schema jobq has version 0, this jobqd needs version \d+: run `jobqd migrate up`$"),
    (lambda db: db.query("CREATE FUNCTION jobq.next_position() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
     r"schema jobq was made by a jobq from before its first release, this jobqd needs version \d+: run `jobqd migrate status` to see what to do"),
    (lambda db: db.query("DROP FUNCTION jobq.version()"),
     r"schema jobq has no function version\(\), this jobqd needs version \d+: run `jobqd migrate up`$"),
    (lambda db: db.query("DROP SCHEMA jobq CASCADE"),
     r"schema jobq is missing in this database, this jobqd needs version \d+: run `jobqd migrate up`$"),
], ids=["newer", "older", "unreleased", "without version()", "missing"])
def test_a_schema_of_another_version_is_refused(db, jobqd, worker, change, words):
    change(db)
    node = jobqd(db, worker, ready=False)
    node.expected_exit = 69
    assert node.wait() == 69
    node.wait_log("ERROR jobqd: " + words)


def test_usr1_logs_the_state_and_work_goes_on(db, jobqd, worker):
    node = jobqd(db, worker)
    node.signal(signal.SIGUSR1)
    node.wait_log(r'INFO jobqd: node \d+, waits for events, leader (yes|no), queues \{"default":\{"wanted":2')
    wait_state(db, db.enqueue("ok"), "completed")


def test_progress_is_no_log(db, jobqd, worker):
    """A handler may report a thousand times a second."""
    node = jobqd(db, worker, log_level="debug")
    job = db.enqueue("progress", '{"steps": 1}')
    wait_state(db, job, "completed")
    assert "a step" not in node.log()


def test_a_node_without_queues_keeps_house(db, jobqd, worker):
    keeper = jobqd(db, {})
    keeper.wait_log("WARNING jobqd: the configuration has no \\[queue NAME\\] section: this node runs no jobs, but can be the leader$")
    keeper.wait_log("this node is now the leader")
    job = db.value("SELECT jobq.enqueue('ok', scheduled_at => clock_timestamp() + interval '300 ms')")
    wait_state(db, job, "available")
    jobqd(db, worker)
    wait_state(db, job, "completed")


# ---- behind a pooler ----

@pytest.mark.parametrize("notify", ["on", "off"])
def test_jobs_flow_through_a_transaction_mode_pooler(db, jobqd, worker, pgbouncer, pgbouncer_for_sql, notify):
    worker["default"]["backoff"] = "constant(0s)"
    # LISTEN is lost behind such a pooler, so it is polling that finds the jobs.
    nodes = [jobqd(pgbouncer(db), worker, notify=notify, poll_interval="100ms") for _ in range(2)]
    with psycopg.connect(pgbouncer_for_sql(db), autocommit=True, prepare_threshold=None) as conn:
        conn.execute("SELECT jobq.enqueue('echo', jsonb_build_object('n', n)) FROM generate_series(1, 2000) n")
        conn.execute("SELECT jobq.enqueue('fail', '{\"times\": 1}') FROM generate_series(1, 100) n")
        conn.execute("SELECT jobq.enqueue('segfault', '{\"times\": 1}')")
        conn.execute("SELECT jobq.enqueue('ok', scheduled_at => now() + interval '1 second')")
    db.wait_for_states({"completed": 2102}, timeout=120)
    with psycopg.connect(pgbouncer_for_sql(db), autocommit=True, prepare_threshold=None) as conn:
        conn.execute("SELECT jobq.enqueue('sleep', '{\"ms\": 3600000}')")
        db.wait_for_states({"completed": 2102, "executing": 1})
        conn.execute("SELECT jobq.cancel(id) FROM jobq.jobs")
    db.wait_for_states({"completed": 2102, "cancelled": 1})
    for node in nodes:
        assert node.stop() == 0
    assert db.query("SELECT * FROM jobq.nodes") == []
