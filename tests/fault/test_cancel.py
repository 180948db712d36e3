"""jobq.cancel of a job that runs: whatever its worker does, it ends as cancelled, and soon."""

import json
import re
import signal
import textwrap

import pytest

from harness.sqlfiles import statement
from harness.waiting import wait_for

HOUR = '{"ms": 3600000}'


def ended(db, job):
    return db.query("SELECT state::text, attempt, errors FROM jobq.finished_jobs WHERE id = %s", (job,))


def wait_ended(db, job):
    wait_for(lambda: ended(db, job),
             what=lambda: f"job {job} to end: {db.query('SELECT state, attempt, errors FROM jobq.all_jobs WHERE id = %s', (job,))}")
    return ended(db, job)[0]


def wait_running(db, job):
    wait_for(lambda: db.value("SELECT state = 'executing' FROM jobq.jobs WHERE id = %s", (job,)), what="the job to run")


def cancel(db, job):
    assert db.value("SELECT jobq.cancel(%s)", (job,)) is False  # not ended yet


def check_cancelled(db, job, error="cancelled by request"):
    """The job's one record says so; no request is left."""
    state, attempt, errors = wait_ended(db, job)
    assert (state, attempt) == ("cancelled", 1), errors
    assert [entry["kind"] for entry in errors] == ["cancelled"]
    assert errors[0]["error"].startswith(error), errors
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0
    return errors[0]


# ---- by hand ----

def running_by_hand(db):
    """A job that node `hand` runs, as claim.sql would leave it."""
    db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at) "
             "VALUES ('hand', 'h', 1, 1, '0', now() + interval '1 hour')")
    job = db.enqueue("k")
    claim_by_hand(db, job)
    return job


def claim_by_hand(db, job):
    assert db.query("UPDATE jobq.jobs SET state = 'executing', attempt = attempt + 1, attempted_at = now(), attempted_by = "
                    "(SELECT id FROM jobq.nodes) WHERE id = %s AND state = 'available' RETURNING id", (job,))


def run(db, name, params):
    """The daemon's own statement, with its $1 … parameters."""
    with db.connect() as conn:
        result = conn.pgconn.exec_params(statement(name).encode(), [None if p is None else p.encode() for p in params])
        assert not result.error_message, result.error_message


def node_of(db):
    return str(db.value("SELECT id FROM jobq.nodes"))


def settle(db, job, outcome, entry, delay_ms=0, result=None, max_crashes=3):
    attempt = db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", (job,))

    def array(value):
        return "{NULL}" if value is None else "{%s}" % json.dumps(value if isinstance(value, str) else json.dumps(value))
    run(db, "settle", ["{%d}" % job, "{%d}" % attempt, "{%s}" % outcome, "{%d}" % delay_ms, array(entry), array(result),
                       "{1000}", "{NULL}", "{NULL}", node_of(db), str(max_crashes), "true"])


def ack(db, job):
    attempt = db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", (job,))
    run(db, "ack", ["{%d}" % job, "{%d}" % attempt, node_of(db)])


# ---- the road of a deadline ----

def test_a_worker_is_told_and_obeys(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    job = db.enqueue("sleep", HOUR)
    wait_running(db, job)
    workers = set(node.workers())
    cancel(db, job)
    check_cancelled(db, job)
    after = db.enqueue("ok")
    assert wait_ended(db, after)[0] == "completed"
    assert workers <= set(node.workers()), "the worker lives on"


@pytest.mark.parametrize("kind, error, signal_name", [
    ("late_error", "cancelled by request: interrupted", None),
    ("hang_until_term", "cancelled by request: was killed by signal 15 (SIGTERM)", "SIGTERM"),
    ("hang", "cancelled by request: was killed by signal 9 (SIGKILL)", "SIGKILL"),
])
def test_a_worker_that_does_not_obey_is_ended(db, jobqd, programs, kind, error, signal_name):
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "200ms"}})
    job = db.enqueue(kind)
    wait_running(db, job)
    cancel(db, job)
    assert check_cancelled(db, job, error).get("signal") == signal_name
    assert wait_ended(db, db.enqueue("ok"))[0] == "completed"


def test_what_is_done_in_spite_of_it_is_completed(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1}})
    job = db.enqueue("late_ok")
    wait_running(db, job)
    cancel(db, job)
    assert wait_ended(db, job) == ("completed", 1, [])
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._cancels") == 0, what="the request to be cleaned up")


def test_an_exec_program_is_ended_with_its_children(db, jobqd, tmp_path):
    script = tmp_path / "stubborn.sh"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho 'still here'\nsleep 1000 &\nwhile :; do sleep 1000; done\n")
    script.chmod(0o755)
    node = jobqd(db, {"default": {"exec": script, "concurrency": 1, "stop_grace": "200ms"}})
    job = db.enqueue("work")
    node.wait_log("says: still here")
    cancel(db, job)
    entry = check_cancelled(db, job, "cancelled by request: was killed by signal 9 (SIGKILL)")
    assert entry["output"] == "still here\n" and entry["run_ms"] >= 200 and entry["max_rss_kb"] > 0
    wait_for(lambda: not node.workers(), what=lambda: f"no process to be left: {node.workers()}")


def test_an_exec_program_that_goes_well_when_told_to_is_cancelled_all_the_same(db, jobqd, tmp_path):
    script = tmp_path / "tidy.sh"
    script.write_text("#!/bin/sh\ntrap 'exit 0' TERM\necho here\nwhile :; do sleep 0.05; done\n")
    script.chmod(0o755)
    node = jobqd(db, {"default": {"exec": script, "concurrency": 1}})
    job = db.enqueue("work")
    node.wait_log("says: here")
    cancel(db, job)
    assert check_cancelled(db, job, "cancelled by request: exited with status 0")["exit_code"] == 0


def test_a_request_is_heard_without_notifications(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, notify="off")
    job = db.enqueue("sleep", HOUR)
    wait_running(db, job)
    cancel(db, job)
    check_cancelled(db, job)


# ---- jobs that have not begun ----

def test_jobs_in_a_mailbox_and_in_the_ready_list_are_taken_back(db, jobqd, programs, tmp_path):
    """One runs, two wait in the worker's mailbox (and answer when it is their turn); more are claimed ahead, or still
    in the table."""
    ran = tmp_path / "ran"
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "mailbox": 3}})
    args = json.dumps({"ms": 3600000, "file": str(ran)})
    db.query("SELECT jobq.enqueue('sleep', %s::jsonb) FROM generate_series(1, 8)", (args,))
    wait_for(lambda: ran.exists() and db.value("SELECT count(*) >= 3 FROM jobq.jobs WHERE state = 'executing'"))
    db.query("SELECT jobq.cancel(id) FROM jobq.jobs WHERE id > 1")
    wait_for(lambda: db.states() == {"executing": 3, "cancelled": 5}, what=db.states)
    cancel(db, 1)
    wait_for(lambda: db.states() == {"cancelled": 8}, what=db.states)
    assert len(ran.read_text().splitlines()) == 1
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_behind_a_head_that_hangs_it_is_ended_as_soon_as_its_turn_comes(db, jobqd, programs):
    """A worker that reads nothing while it works: the job behind is cancelled when the head is."""
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "mailbox": 2, "stop_grace": "200ms"}})
    first, second = db.query("SELECT jobq.enqueue('hang') FROM generate_series(1, 2)")
    wait_for(lambda: db.states() == {"executing": 2})
    cancel(db, second[0])
    cancel(db, first[0])
    wait_for(lambda: db.states() == {"cancelled": 2}, what=db.states)


# ---- whatever else ends it ----

def settled_by(db, job):
    state, _, errors = wait_ended(db, job)
    return state, errors[-1]["kind"], errors[-1].get("cancelled")


def test_a_drain_that_releases_it_ends_it(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "1h"}},
                 shutdown_grace="300ms")
    job = db.enqueue("hang")
    wait_running(db, job)
    cancel(db, job)
    node.wait_log("asking it to stop")
    assert node.stop() == 0
    check_cancelled(db, job)


def test_an_upgrade_in_place_goes_on_with_it(db, jobqd, programs):
    """The worker has been told to stop when the daemon executes itself: the next one ends it."""
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "2s"}})
    job = db.enqueue("hang_until_term")
    wait_running(db, job)
    cancel(db, job)
    node.wait_log("asking it to stop")
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from")
    assert check_cancelled(db, job)["signal"] == "SIGTERM"
    assert wait_ended(db, db.enqueue("ok"))[0] == "completed"


def test_a_dead_node_leaves_it_to_the_lifeline(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "1h"}}, lease="1s")
    job = db.enqueue("hang")
    wait_running(db, job)
    node.kill()
    cancel(db, job)
    jobqd(db, {"other": {"command": programs("rude_worker"), "concurrency": 1}}, lease="1s")
    assert settled_by(db, job) == ("cancelled", "orphaned", "by request")


@pytest.mark.parametrize("outcome, entry, kind", [
    ("failed", {"kind": "error", "error": "boom"}, "error"),
    ("crashed", {"kind": "crash", "error": "died"}, "crash"),
    ("snoozed", None, "cancelled"),
    ("released", None, "cancelled"),
    ("discarded", {"kind": "error", "error": "bad data"}, "error"),
])
def test_an_attempt_that_ends_before_the_node_has_heard_of_it(db, outcome, entry, kind):
    """The statement that settles it, with the request in the table: no daemon is needed."""
    job = running_by_hand(db)
    cancel(db, job)
    settle(db, job, outcome, entry)
    assert settled_by(db, job) == ("cancelled", kind, "by request")
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_completion_wins_over_a_request(db):
    job = running_by_hand(db)
    cancel(db, job)
    settle(db, job, "completed", None, result="1")
    assert wait_ended(db, job) == ("completed", 1, [])
    assert db.value("SELECT jobq._cancel_again()") == 0
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


# ---- races ----

def test_a_request_that_comes_as_its_attempt_fails_reaches_the_job(db):
    """The request is not committed when the attempt is settled: housekeeping carries it out."""
    job = running_by_hand(db)
    with db.connect(autocommit=False) as client:
        assert client.execute("SELECT jobq.cancel(%s)", [job]).fetchone()[0] is False
        settle(db, job, "failed", {"kind": "error", "error": "boom"}, delay_ms=3600000)  # does not wait for the client
        assert db.states() == {"retryable": 1}
        client.commit()
    assert db.value("SELECT jobq._cancel_again()") == 1
    state, attempt, errors = ended(db, job)[0]
    assert (state, attempt, errors[0]["error"]) == ("cancelled", 1, "boom")
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_a_request_follows_to_the_next_attempt_only_if_it_was_not_carried_out(db):
    job = running_by_hand(db)
    with db.connect(autocommit=False) as client:
        client.execute("SELECT jobq.cancel(%s)", [job])
        settle(db, job, "failed", {"kind": "error", "error": "boom"}, delay_ms=0)
        claim_by_hand(db, job)
        client.commit()
    assert db.query("SELECT job_id, attempt FROM jobq._cancels") == [(job, 1)]
    assert db.value("SELECT jobq._cancel_again()") == 1
    assert db.query("SELECT job_id, attempt FROM jobq._cancels") == [(job, 2)]


def test_a_retry_by_hand_is_not_hit_by_an_old_request(db):
    job = running_by_hand(db)
    cancel(db, job)
    ack(db, job)  # a plain ok looks at no request
    assert db.value("SELECT count(*) FROM jobq._cancels") == 1
    assert db.value("SELECT jobq.retry(%s)", (job,)) is True
    claim_by_hand(db, job)
    assert db.value("SELECT jobq._cancel_again()") == 0
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0
    assert db.states() == {"executing": 1}


def test_what_is_left_over_is_cleaned_up(db):
    job = running_by_hand(db)
    cancel(db, job)
    ack(db, job)
    assert db.value("SELECT jobq._cancel_again()") == 0
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_an_open_transaction_that_cancels_holds_no_answer_up(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    job = db.enqueue("sleep", '{"ms": 300}')
    wait_running(db, job)
    with db.connect(autocommit=False) as client:
        client.execute("SELECT jobq.cancel(%s)", [job])
        client.execute("SELECT jobq.cancel(%s)", [job])
        assert wait_ended(db, job)[0] == "completed"
        client.rollback()


# ---- poison ----

def crash(db, job):
    settle(db, job, "crashed", {"kind": "crash", "error": "was killed by signal 11 (SIGSEGV)", "signal": "SIGSEGV"})


def test_a_retry_by_hand_begins_a_new_count_of_crashes(db):
    job = running_by_hand(db)
    for _ in range(2):
        crash(db, job)
        claim_by_hand(db, job)
    crash(db, job)
    assert ended(db, job)[0][0] == "discarded"
    for _ in range(3):
        assert db.states() == {"discarded": 1}
        db.query("SELECT jobq.retry(%s)", (job,))
        for left in (2, 1):
            claim_by_hand(db, job)
            crash(db, job)
            assert db.states() == {"available": 1}, left
        claim_by_hand(db, job)
        crash(db, job)
    errors = ended(db, job)[0][2]
    assert len(errors) == 12
    assert ["discarded" in entry for entry in errors] == [False, False, True] * 4


DIES_UNREAD = """
    import os, select
    fd = int(os.environ["JOBQ_FD"])
    os.write(fd, b'{"t":"hello","protocol":1}\\n')
    select.select([fd], [], [])
    os.kill(os.getpid(), 11)
"""


@pytest.mark.parametrize("max_restarts, deaths", [(100, 3), (0, 1)])
def test_a_worker_that_always_dies_before_it_reads_its_job(db, jobqd, tmp_path, max_restarts, deaths):
    program = tmp_path / "unread.py"
    program.write_text(textwrap.dedent(DIES_UNREAD))
    node = jobqd(db, {"default": {"command": f"/usr/bin/python3 {program}", "concurrency": 1, "mailbox": 1,
                                  "backoff": "constant(1h)", "max_restarts": max_restarts}})
    job = db.enqueue("k")
    wait_for(lambda: db.value("SELECT state = 'retryable' FROM jobq.jobs WHERE id = %s", (job,)), what=node.log)
    (errors,), = db.query("SELECT errors FROM jobq.jobs WHERE id = %s", (job,))
    assert [(entry["kind"], entry["error"]) for entry in errors] == [
        ("crash", f"was killed by signal 11 (SIGSEGV) before it had read the job, like the {deaths - 1} before it")]


# ---- the story ----

def test_the_story_of_a_poison_job(db, jobqd, cli, tmp_path):
    script = tmp_path / "resize.sh"
    script.write_text("#!/bin/sh\necho \"resize: reading $JOBQ_KIND\" >&2\nkill -SEGV $$\n")
    script.chmod(0o755)
    jobqd(db, {"default": {"exec": script, "concurrency": 1, "backoff": "constant(0s)"}}, node="web-1")
    job = db.enqueue("resize")
    assert wait_ended(db, job)[0] == "discarded"
    story = cli("job", job, db=db).stdout
    print(story)
    # A small program that is dead before jobqd has read its line leaves no memory that could be told from jobqd's own.
    attempt = (r"  attempt {} +\S+  crash: was killed by signal 11 \(SIGSEGV\) while it held the job\n"
               r"    on web-1, claimed \S+, ran [\d.]+ m?s, SIGSEGV, cpu [\d.]+ m?s(, memory [\d.]+ MiB)?\n"
               r"    output:\n      resize: reading resize\n\n")
    assert re.search("errors\n" + "".join(attempt.format(n) for n in (1, 2, 3)) +
                     "    discarded as poison: crashed 3 workers; a retry by hand begins a new count\n$", story), story
