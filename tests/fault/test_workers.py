"""What a worker process can do to us, one thing a test: its job is charged, its neighbours notice nothing."""

import ctypes
import os
import pathlib
import re
import signal

import pytest

from harness.waiting import wait_for

def finished(db, job):
    """(state, attempt, errors) of an ended job."""
    return db.query("SELECT state::text, attempt, errors FROM jobq.finished_jobs WHERE id = %s", (job,))[0]


def wait_finished(db, job):
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)),
             what=lambda: f"job {job} to end: {db.query('SELECT state, attempt, errors FROM jobq.all_jobs WHERE id = %s', (job,))}")
    return finished(db, job)


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def wait_result(db, job):
    assert wait_finished(db, job)[0] == "completed"
    return db.value("SELECT result FROM jobq.finished_jobs WHERE id = %s", (job,))


def stopped_among(pids):
    return [pid for pid in pids if re.search(r"^State:\s+T", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)]


# ---- crashes ----

@pytest.mark.parametrize("kind, args, entry", [
    ("segfault", '{"times": 1}', {"signal": "SIGSEGV", "error": "was killed by signal 11 (SIGSEGV) while it held the job"}),
    ("abort", '{"times": 1}', {"signal": "SIGABRT"}),
    ("kill", '{"times": 1, "signal": 9}', {"signal": "SIGKILL"}),
    ("exit", '{"times": 1, "code": 3}', {"exit_code": 3, "error": "exited with status 3 while it held the job"}),
    ("exit", '{"times": 1, "code": 0}', {"exit_code": 0}),
])
def test_a_crash_is_charged_and_the_job_retried(db, jobqd, programs, kind, args, entry):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "backoff": "constant(0s)"}})
    neighbours = [db.enqueue("ok") for _ in range(5)]
    job = db.enqueue(kind, args)
    neighbours += [db.enqueue("ok") for _ in range(5)]
    state, attempt, errors = wait_finished(db, job)
    assert (state, attempt, len(errors)) == ("completed", 2, 1)
    assert errors[0]["kind"] == "crash" and errors[0]["attempt"] == 1
    assert {name: errors[0][name] for name in entry} == entry
    for neighbour in neighbours:
        assert wait_finished(db, neighbour) == ("completed", 1, [])
    assert node.running


@pytest.mark.parametrize("waiting", [0, 1, 500])
def test_a_worker_that_somebody_else_tells_to_go_gives_back_what_it_has_not_begun(db, jobqd, programs, waiting):
    """SIGTERM, as from pkill or a service manager: no job is charged, wherever it was on its way to the worker."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "max_restarts": 100}})
    for _ in range(5):
        jobs = db.query("INSERT INTO jobq.jobs (kind, args) SELECT CASE n WHEN 0 THEN 'kill' ELSE 'ok' END, '{\"signal\": 15}'"
                        " FROM generate_series(0, %s) n RETURNING id", (waiting,))
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
        assert db.query("SELECT id, state, errors FROM jobq.finished_jobs WHERE state <> 'completed' OR attempt > 1") == []
    assert db.value("SELECT count(*) FROM jobq.finished_jobs") == 5 * len(jobs)
    assert node.running


def test_what_a_c_worker_prints_to_stdout_comes_at_once(db, jobqd, programs):
    """Through a pipe, which is fully buffered where libjobq does not see to it."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    for _ in range(2):
        job = db.enqueue("stdout")
        node.wait_log(f"job {job} says: said by job {job}\n")
    job = db.enqueue("stdout", '{"crash": true}', max_attempts=1)
    db.wait_for_states({"completed": 2, "discarded": 1})
    assert db.value("SELECT errors -> 0 ->> 'output' FROM jobq.finished_jobs WHERE id = %s", (job,)) == f"said by job {job}\n"



def test_what_is_printed_is_logged_with_its_job(db, jobqd, programs):
    """However close its answer follows."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 1}})
    jobs = [db.enqueue("progress", '{"steps": 2, "ms": 0, "say": true}') for _ in range(100)]
    db.wait_for_states({"completed": len(jobs)})
    wait_for(lambda: node.log().count("step ") == 2 * len(jobs))
    assert [line for line in node.log().splitlines() if "step " in line and not re.search(r"job (\d+) says: step \d of job \1$", line)] == []


def test_the_end_of_the_output_is_kept(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "backoff": "constant(0s)"}})
    job = db.enqueue("stderr", '{"lines": 500, "error": "line number", "exit": 7}', max_attempts=1)
    state, _, (error,) = wait_finished(db, job)
    assert (state, error["kind"], error["exit_code"]) == ("discarded", "crash", 7)
    assert error["output"].rstrip().endswith("line number 500")
    assert len(error["output"]) <= 2048


def test_a_job_that_crashes_its_workers_is_poison(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)"}})
    job = db.enqueue("segfault")
    state, attempt, errors = wait_finished(db, job)
    assert (state, attempt) == ("discarded", 3)
    assert [error["kind"] for error in errors] == ["crash"] * 3
    assert errors[-1]["discarded"] == "crashed 3 workers"
    good = db.enqueue("ok")
    assert wait_finished(db, good)[0] == "completed"


# ---- deadlines ----

def test_a_hang_is_killed_with_its_children(db, jobqd, programs):
    """Neither the worker nor the process that an earlier job has left in its group heeds SIGTERM."""
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "200ms"}})
    earlier = db.enqueue("grandchild")
    wait_finished(db, earlier)
    grandchild = db.value("SELECT result FROM jobq.finished_jobs WHERE id = %s", (earlier,))
    assert not is_gone(grandchild)
    job = db.enqueue("hang", timeout_ms=300, max_attempts=1)
    state, attempt, (error,) = wait_finished(db, job)
    assert (state, attempt, error["kind"]) == ("discarded", 1, "timeout")
    assert "timeout of 300 ms" in error["error"] and error["signal"] == "SIGKILL"
    wait_for(lambda: is_gone(grandchild))
    assert wait_finished(db, db.enqueue("ok")) == ("completed", 1, [])


def test_a_handler_that_stops_when_told_to_is_late_all_the_same(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "timeout": "300ms",
                           "backoff": "constant(1h)"}})
    job = db.enqueue("sleep", '{"ms": 600000}')
    wait_for(lambda: db.value("SELECT state = 'retryable' FROM jobq.jobs WHERE id = %s", (job,)))
    (errors,), = db.query("SELECT errors FROM jobq.jobs WHERE id = %s", (job,))
    assert [error["kind"] for error in errors] == ["timeout"]


@pytest.mark.parametrize("kind", ["spin", "stop_itself", "half_line_and_hang", "hang"])
def test_whatever_does_not_answer_is_ended_by_its_deadline(db, jobqd, programs, kind):
    """A loop that ignores TERM, a stopped process, which cannot even receive it, half an answer and silence."""
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "100ms"}})
    grandchild = wait_result(db, db.enqueue("grandchild"))
    job = db.enqueue(kind, timeout_ms=300, max_attempts=1)
    later = db.enqueue("ok")
    state, attempt, (error,) = wait_finished(db, job)
    assert (state, attempt, error["kind"], error["signal"]) == (
        "discarded", 1, "timeout", "SIGTERM" if kind == "half_line_and_hang" else "SIGKILL")
    assert "timeout of 300 ms" in error["error"]
    assert wait_finished(db, later) == ("completed", 1, [])
    wait_for(lambda: is_gone(grandchild))


def test_a_stopped_worker_without_a_deadline_holds_up_its_job_alone(db, jobqd, programs):
    """Nobody but its operator can know what it waits for: it is left alone, until it goes on or jobqd stops."""
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 2, "stop_grace": "100ms"}},
                 shutdown_grace="100ms")
    jobs = [db.enqueue("stop_itself") for _ in range(2)]
    stopped = wait_for(lambda: len(stopped_among(node.workers())) == 2 and stopped_among(node.workers()))
    os.kill(stopped[0], signal.SIGCONT)
    # One goes on where it was, and takes what has come behind.
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 1)
    assert wait_finished(db, db.enqueue("ok")) == ("completed", 1, [])
    node.stop()
    assert is_gone(stopped[1])
    assert sorted(db.query("SELECT state::text, attempt, errors FROM jobq.all_jobs WHERE id = ANY(%s)", (jobs,))) == [
        ("available", 0, []), ("completed", 1, [])]


@pytest.mark.parametrize("kind, same_worker", [("late_ok", True), ("ok_at_term", False)])
def test_a_job_that_is_done_after_its_deadline_is_done(db, jobqd, programs, kind, same_worker):
    """Before its worker is killed, that is. One that has been sent SIGTERM already is not used again."""
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "300ms"}})
    before, = node.workers()
    job = db.enqueue(kind, timeout_ms=100)
    assert wait_finished(db, job) == ("completed", 1, [])
    assert f"job {job} (kind {kind}) has reached its timeout of 100 ms; asking it to stop" in node.log()
    assert wait_finished(db, db.enqueue("ok")) == ("completed", 1, [])
    assert (list(node.workers()) == [before]) is same_worker


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["fork_bomb", "fork_bomb_of_sessions"])
def test_a_fork_bomb_is_gone_with_its_job(db, jobqd, programs, kind):
    """Its processes fork until the last of them is killed; in the second case each has left the worker's group."""
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "100ms"},
                      "other": {"command": programs("fault_worker"), "concurrency": 1}})
    job = db.enqueue(kind)
    wait_for(lambda: len(node.workers()) > 10)  # most of them end while we look
    assert wait_finished(db, db.enqueue("ok", queue="other")) == ("completed", 1, [])
    db.query("SELECT jobq.cancel(%s)", (job,))
    state, attempt, (error,) = wait_finished(db, job)
    assert (state, attempt, error["signal"]) == ("cancelled", 1, "SIGKILL")
    assert wait_finished(db, db.enqueue("ok")) == ("completed", 1, [])
    # Whom the kill has missed would stay for two minutes.
    wait_for(lambda: len(node.workers()) == 2, 30, what=lambda: f"the bomb to be gone: {node.workers()}")


def test_an_exec_program_past_its_deadline(db, jobqd, tmp_path):
    script = tmp_path / "stubborn.sh"
    script.write_text("#!/bin/sh\ntrap '' TERM\nsleep 1000 &\nwhile :; do sleep 1000; done\n")
    script.chmod(0o755)
    node = jobqd(db, {"default": {"exec": script, "concurrency": 1, "stop_grace": "200ms", "timeout": "300ms"}})
    job = db.enqueue("work", max_attempts=1)
    state, _, (error,) = wait_finished(db, job)
    assert (state, error["kind"]) == ("discarded", "timeout")
    wait_for(lambda: not node.workers(), what=lambda: f"no process to be left: {node.workers()}")


# ---- the protocol ----

@pytest.mark.parametrize("kind, error", [
    ("garbage", "frame: expected an object"),
    ("binary", "frame: "),
    ("empty_line", "frame: "),
    ("array", "frame: expected an object"),
    ("unknown_type", "done"),
    ("no_id", "id"),
    ("two_objects", "frame: "),
    ("wrong_id", r"answered job \d+, which it does not hold"),
    ("job_back", "which only jobqd sends"),
    ("stop_back", "which only jobqd sends"),
    ("hello_again", "said hello twice"),
    ("long_line", r"longer than 4194304 bytes \(max_frame\)"),
    ("half_line", "in the middle of a line"),
    ("close", "closed its socket but did not exit"),
])
def test_broken_protocol_is_charged_to_the_job_at_the_head(db, jobqd, programs, kind, error):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "backoff": "constant(0s)",
                                  "max_restarts": 100, "stop_grace": "200ms"}})
    neighbours = [db.enqueue("ok") for _ in range(3)]
    job = db.enqueue(kind, max_attempts=2)
    neighbours += [db.enqueue("ok") for _ in range(3)]
    state, attempt, errors = wait_finished(db, job)
    assert (state, attempt) == ("discarded", 2)
    assert [(entry["attempt"], entry["kind"]) for entry in errors] == [(1, "protocol"), (2, "protocol")]
    assert all(re.search(error, entry["error"]) for entry in errors), errors
    for neighbour in neighbours:
        assert wait_finished(db, neighbour) == ("completed", 1, [])
    assert node.running


def test_an_answer_too_many_ends_the_worker_but_not_the_job(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "max_restarts": 100}})
    job = db.enqueue("answer_twice")
    assert wait_finished(db, job) == ("completed", 1, [])
    node.wait_log(f"answered job {job}, which it does not hold")


def test_an_answer_to_a_neighbour_s_job_does_not_reach_it(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 2, "mailbox": 1}},
          shutdown_grace="100ms")
    other = db.enqueue("hang_until_term")
    wait_for(lambda: db.value("SELECT state = 'executing' FROM jobq.jobs WHERE id = %s", (other,)))
    state, _, (error,) = wait_finished(db, db.enqueue("steal", f'{{"id": {other}}}', max_attempts=1))
    assert (state, error["kind"], error["error"]) == ("discarded", "protocol", f"answered job {other}, which it does not hold")
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (other,)) == [("executing", 1, [])]


def test_a_job_too_large_for_a_frame_is_discarded_at_once(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, max_frame="64KiB")
    job = db.enqueue("ok", '{"text": "%s"}' % ("x" * 70_000))
    state, _, (error,) = wait_finished(db, job)
    assert (state, error["kind"]) == ("discarded", "error") and "max_frame = 65536" in error["error"]
    assert wait_finished(db, db.enqueue("ok"))[0] == "completed"


def test_the_last_words_are_those_of_the_job_that_crashed(db, jobqd, programs):
    """What an earlier job of the same worker has printed is no part of them."""
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    earlier = db.enqueue("stderr", '{"lines": 20, "error": "an earlier job"}')
    assert wait_finished(db, earlier)[0] == "completed"
    _, _, (error,) = wait_finished(db, db.enqueue("segfault", max_attempts=1))
    assert error["output"] == "about to touch what is not there\n"


def test_the_last_words_of_a_job_that_began_unseen_are_whole(db, jobqd, programs):
    """It waited in the worker's mailbox, and began before jobqd heard the answer before it."""
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "mailbox": 8}})
    with db.connect(autocommit=False) as conn:
        jobs = [conn.execute("SELECT jobq.enqueue(%s, max_attempts => 1)", (kind,)).fetchone()[0]
                for kind in ["ok"] * 6 + ["segfault"]]
        conn.commit()
    _, _, (error,) = wait_finished(db, jobs[-1])
    assert error["output"].endswith("about to touch what is not there\n")


def test_the_end_of_a_traced_worker_is_waited_for(db, jobqd, programs, tmp_path):
    """A debugger is told of it first, and until it has asked the end is not the parent's to take."""
    started = tmp_path / "started"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, lease="2s")
    job = db.enqueue("hang", f'{{"file": "{started}"}}', max_attempts=1)
    wait_for(lambda: started.exists() and started.read_text().endswith("\n"))
    pid = int(started.read_text().split()[3])
    libc = ctypes.CDLL(None, use_errno=True)
    ptrace_seize = 0x4206
    if libc.ptrace(ptrace_seize, pid, None, None) != 0:
        pytest.skip(f"ptrace is not allowed: {os.strerror(ctypes.get_errno())}")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
    # The next renewal of the lease comes from the loop that has seen the pidfd.
    before = db.value("SELECT max(renewed_at) FROM jobq.nodes")
    wait_for(lambda: db.value("SELECT max(renewed_at) FROM jobq.nodes") != before)
    os.waitpid(pid, 0)  # the tracer's
    state, _, (error,) = wait_finished(db, job)
    assert (state, error["kind"], error["signal"]) == ("discarded", "crash", "SIGKILL")
    assert "has not ended" not in node.log()


def test_a_flood_on_stderr_leaves_the_daemon_as_it_was(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1}})
    job = db.enqueue("flood")
    most_kb = 0

    def ended():
        nonlocal most_kb
        most_kb = max(most_kb, node.rss_kb())
        return db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,))
    wait_for(ended, 120)
    assert finished(db, job) == ("completed", 1, [])
    print(f"100 MB on stderr: jobqd's memory {most_kb} KiB at most, its log {node.logfile.stat().st_size} bytes")
    assert most_kb < 40_000
    assert node.logfile.stat().st_size < 10_000_000
    node.stop()  # how much was dropped is said with the next line that is shown, or at the worker's end
    assert "lines of its output were not logged" in node.log()


def test_many_long_answers_at_once_come_a_few_at_a_time(db, jobqd, programs):
    """Frames of 4 MiB from 40 workers: 160 MiB, of which the daemon never has more than a part."""
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 40, "mailbox": 4},
                      "other": {"command": programs("noop_worker"), "concurrency": 1}})
    before_kb = node.rss_kb()
    for _ in range(400):
        db.enqueue("padded")
    for _ in range(10):
        db.enqueue("noop", queue="other")
    db.wait_for_states({"completed": 410})
    print(f"400 answers of 4 MiB: jobqd's memory {before_kb} KiB before, {node.peak_kb()} KiB at most, {node.rss_kb()} KiB after")
    assert node.peak_kb() < before_kb + 40_000
    assert node.rss_kb() < before_kb + 16_000  # buffers that grew are given back
    assert db.query("SELECT count(*) FROM jobq.finished_jobs WHERE errors <> '[]'") == [(0,)]


# ---- programs that do not start ----

@pytest.mark.parametrize("fault, words", [
    ("silent", "did not say hello within 200 ms"),
    ("future", "speaks protocol 2"),
    ("early", "sent another message before its hello"),
    ("no-interpreter", "cannot execute"),
    ("exit", "exited with status 3 before it said hello"),
])
def test_a_queue_that_cannot_start_backs_off_alone(db, jobqd, cli, programs, tmp_path, fault, words):
    command = f"{programs('rude_worker')} {fault}"
    if fault == "no-interpreter":
        command = tmp_path / "program"
        command.write_text("#!/no/such/interpreter\n")
        command.chmod(0o755)
    node = jobqd(db, {
        "broken": {"command": command, "concurrency": 2, "boot_timeout": "200ms", "max_restarts": 2},
        "sound": {"command": programs("fault_worker"), "concurrency": 2},
    }, lease="1s")
    waiting = db.enqueue("ok", queue="broken")
    node.wait_log(r"ERROR queue broken: process failures exceeded max_restarts = 2 within 10 s; starting no processes for [\d.]+ m?s")
    node.wait_log(re.escape(words))
    for _ in range(20):
        assert wait_finished(db, db.enqueue("ok", queue="sound")) == ("completed", 1, [])
    wait_for(lambda: db.value("SELECT (queues #>> '{broken,backing_off}')::bool FROM jobq.nodes"))
    wait_for(lambda: re.search(r"^broken\b.*backs off", cli("queues", db=db).stdout, re.M))
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (waiting,)) == [("available", 0, [])]
    sound = db.value("SELECT queues -> 'sound' FROM jobq.nodes")
    assert not sound["backing_off"] and sound["restarts"] == 0


def test_a_queue_that_cannot_start_holds_no_jobs_behind_a_long_one(db, jobqd, programs, tmp_path):
    """One worker is at a long job, no other can be started: what was claimed ahead goes to another node, uncounted."""
    program, long = tmp_path / "program", tmp_path / "long"
    program.symlink_to(programs("fault_worker"))
    queue = {"concurrency": 2, "mailbox": 1, "max_restarts": 0, "backoff": "constant(0s)"}
    node = jobqd(db, {"default": {**queue, "command": program}}, shutdown_grace="100ms")
    wait_for(lambda: node.log().count("ready after") == 2)
    db.enqueue("sleep", f'{{"ms": 600000, "file": "{long}"}}')
    busy = int(wait_for(lambda: long.exists() and long.read_text().split())[-1])
    (other,) = set(node.workers()) - {busy}
    program.unlink()
    program.symlink_to("/bin/false")
    with db.connect() as connection:
        connection.execute("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 6000)")
    wait_for(lambda: db.value("SELECT count(*) > 50 FROM jobq.finished_jobs"))
    os.kill(other, signal.SIGKILL)
    node.wait_log("starting no processes for")
    jobqd(db, {"default": {**queue, "command": programs("fault_worker")}}, shutdown_grace="100ms")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 1, timeout=30,
             what=lambda: db.query("SELECT state::text, attempted_by, count(*) FROM jobq.jobs GROUP BY 1, 2"))
    assert db.value("SELECT count(*) FROM jobq.finished_jobs WHERE attempt > 1") <= 1, "that of the killed worker alone"


def test_a_queue_comes_back_when_its_program_is_mended(db, jobqd, programs, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": program, "concurrency": 1, "max_restarts": 1}})
    job = db.enqueue("ok")
    node.wait_log("starting no processes for")
    program.write_text(f"#!/bin/sh\nexec {programs('fault_worker')}\n")
    assert wait_finished(db, job) == ("completed", 1, [])


def test_a_missing_program_is_refused_at_the_start(db, jobqd):
    node = jobqd(db, {"default": {"command": "/no/such/program"}}, ready=False)
    node.expected_exit = os.EX_CONFIG
    assert node.wait() == os.EX_CONFIG
    assert "/no/such/program" in node.log()


def test_an_exec_program_that_cannot_start_charges_no_job(db, jobqd, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"exec": program, "concurrency": 1, "max_restarts": 1}})
    job = db.enqueue("work")
    node.wait_log("starting no processes for")
    wait_for(lambda: db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (job,))
             == [("available", 0, [])])
    program.write_text("#!/bin/sh\nexit 0\n")
    assert wait_finished(db, job)[:2] == ("completed", 1)


# ---- exec ----

EXEC_SCRIPT = """#!/bin/sh
echo "attempt $JOBQ_ATTEMPT of $JOBQ_MAX_ATTEMPTS of job $JOBQ_JOB_ID in $JOBQ_QUEUE, due $JOBQ_DEADLINE_MS"
cat
case $JOBQ_KIND in
exit*) echo "going with ${JOBQ_KIND#exit}" >&2; exit "${JOBQ_KIND#exit}" ;;
signal*) kill -"${JOBQ_KIND#signal}" $$ ;;
esac
"""


@pytest.mark.parametrize("kind, state, attempt, entry", [
    ("exit0", "completed", 1, None),
    ("exit65", "discarded", 1, {"kind": "error", "exit_code": 65}),
    ("exit75", "scheduled", 0, None),
    ("exit1", "retryable", 1, {"kind": "error", "exit_code": 1}),
    ("exit255", "retryable", 1, {"kind": "error", "exit_code": 255}),
    ("signal9", "retryable", 1, {"kind": "crash", "signal": "SIGKILL"}),
    ("signal11", "retryable", 1, {"kind": "crash", "signal": "SIGSEGV"}),
])
def test_the_exit_code_of_an_exec_program_is_its_answer(db, jobqd, tmp_path, kind, state, attempt, entry):
    script = tmp_path / "handler.sh"
    script.write_text(EXEC_SCRIPT)
    script.chmod(0o755)
    jobqd(db, {"default": {"exec": script, "concurrency": 2}})
    job = db.enqueue(kind, '{"n": 123456789012345678}')
    db.wait_for_states({state: 1})
    (got, errors), = db.query("SELECT attempt, errors FROM jobq.all_jobs WHERE id = %s", (job,))
    assert got == attempt
    if entry is None:
        assert errors == []
        return
    assert len(errors) == 1 and {name: errors[0][name] for name in entry} == entry
    assert f"attempt 1 of 20 of job {job} in default, due " in errors[0]["output"]
    assert '{"n": 123456789012345678}' in errors[0]["output"]


def test_a_thousand_exec_jobs(db, jobqd, tmp_path):
    seen = tmp_path / "seen"
    script = tmp_path / "handler.sh"
    script.write_text(f"#!/bin/sh\nread -r args\nprintf '%s\\n' \"$args\" >>{seen}\n")
    script.chmod(0o755)
    jobqd(db, {"default": {"exec": script, "concurrency": 4}})
    db.query("SELECT jobq.enqueue('write', jsonb_build_object('n', n)) FROM generate_series(1, 1000) n")
    db.wait_for_states({"completed": 1000}, timeout=120)
    assert sorted(seen.read_text().split("\n")[:-1]) == sorted(f'{{"n": {n}}}' for n in range(1, 1001))


# ---- stopping ----

def start_one(db, node, kind, args, tmp_path):
    """Enqueues a job that writes to a file when it begins, and waits until it has."""
    began = tmp_path / f"began-{kind}"
    job = db.enqueue(kind, args % began)
    wait_for(began.exists)
    return job


def test_drain_lets_a_running_job_finish(db, jobqd, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    job = start_one(db, node, "sleep", '{"ms": 1000, "file": "%s"}', tmp_path)
    later = db.enqueue("ok")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert finished(db, job) == ("completed", 1, [])
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (later,)) == [("available", 0, [])]
    assert db.query("SELECT * FROM jobq.nodes") == []


@pytest.mark.parametrize("how", ["beyond the grace", "a second signal"])
def test_what_does_not_finish_is_released_uncounted(db, jobqd, programs, tmp_path, how):
    grace = "300ms" if how == "beyond the grace" else "1h"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, shutdown_grace=grace)
    job = start_one(db, node, "hang", '{"file": "%s"}', tmp_path)
    node.signal(signal.SIGTERM)
    if how == "a second signal":
        node.wait_log("draining: ")
        node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (job,)) == [("available", 0, [])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_without_end_do_not_change_the_end(db, jobqd, programs, number):
    """An impatient operator's TERM may come at any moment, the last one included: jobqd exits, and is not killed by it."""
    for _ in range(10):
        node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})

        def has_ended():
            for _ in range(20):
                if not node.running:
                    return True
                node.signal(number)
        wait_for(has_ended)
        assert node.wait() == 0, node.log()
    assert db.query("SELECT * FROM jobq.nodes") == []


def test_tstp_holds_back_and_cont_goes_on(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, lease="1s")
    node.signal(signal.SIGTSTP)
    node.wait_log("claims no more jobs")
    job = db.enqueue("ok")
    renewed = "SELECT count(*) FROM (SELECT renewed_at FROM jobq.nodes) n WHERE renewed_at > %s"
    for _ in range(3):  # the node lives, and still takes nothing
        since = db.value("SELECT clock_timestamp()")
        wait_for(lambda: db.value(renewed, (since,)))
    assert db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (job,)) == "available"
    node.signal(signal.SIGCONT)
    assert wait_finished(db, job) == ("completed", 1, [])
