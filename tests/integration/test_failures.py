"""Each attempt that fails and each job that is discarded or expires has its line in the log: in text, in JSON and logfmt with the
same members, and for the journal with a priority. Many that are alike are counted."""

import json
import os
import re
import shlex
import socket
import threading

import pytest

from harness.ends import ENDS, put
from harness.waiting import wait_for

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"


def logfmt(line):
    """A line's members: values in quotes are JSON strings."""
    return {name: json.loads(value) if value[0] == '"' else value
            for name, value in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)}


def members_of(form, line):
    return json.loads(line) if form == "json" else logfmt(line)


def queues(programs):
    return {"default": {"command": programs("fault_worker"), "concurrency": 2, "max_restarts": 100}}


@pytest.fixture(params=["text", "json", "logfmt"])
def form(request):
    return request.param


def test_each_end_has_its_line(db, jobqd, programs, form):
    jobs = {name: put(db, *given) for name, (given, _) in ENDS.items()}
    node = jobqd(db, queues(programs), log_format=form, lease="2s")
    for name, (given, (level, state, attempt, error_kind, error, worker)) in ENDS.items():
        kind, job, queue = given[0], jobs[name], given[2].get("queue", "idle" if given[0] == "orphan" else "default")
        if form == "text":
            line = node.wait_log(rf"^.* queue \w+: job {job} \(kind .*$").group()
            what = f"attempt {attempt} of " if attempt else "was never started: "
            assert re.search(rf"^{TIME} {level} queue {queue}: job {job} \(kind {kind}\): {what}.*{error_kind}: .*{re.escape(error)}",
                             line), f"{name}: {line}"
            ends = {"retryable": rf"; next attempt at {TIME}", "available": "; retrying now", "discarded": "; discarded",
                    "cancelled": "; cancelled"}[state]
            who = r" \(worker default/w\d pid \d+\)" if worker else ""
            assert re.search(ends + who + "$", line), f"{name}: {line}"
            continue
        pattern = rf'"message":"job {job} \(kind {kind}\): ' if form == "json" else rf'message="job {job} \(kind {kind}\): '
        got = members_of(form, node.wait_log(rf"^.*{pattern}.*$").group())
        wanted = {"level": level, "node": "node1", "subject": f"queue {queue}", "job": job, "kind": kind, "queue": queue,
                  "state": state, "error_kind": error_kind}
        if attempt:
            wanted["attempt"] = attempt
        assert {key: str(got.get(key)) for key in wanted} == {key: str(value) for key, value in wanted.items()}, name
        assert error in got["error"], name
        assert re.fullmatch(TIME, got["time"])
        assert ("retry_at" in got) == (state == "retryable"), got
        assert ("worker" in got and int(got["pid"]) > 0) == worker, got


def test_the_members_are_the_same_in_json_and_logfmt(db, jobqd, programs):
    job = db.enqueue("segfault", max_attempts=1)
    lines = {}
    for form in ("json", "logfmt"):
        node = jobqd(db, queues(programs), log_format=form)
        lines[form] = members_of(form, node.wait_log(rf"^.*job {job} \(kind .*attempt 1 of 1 failed.*$").group())
        node.stop()
        job = db.enqueue("segfault", max_attempts=1)
    assert list(lines["json"]) == list(lines["logfmt"])


def test_a_crash_line_names_its_job(db, jobqd, programs):
    node = jobqd(db, queues(programs), log_format="json")
    job = db.enqueue("segfault", max_attempts=1)
    line = json.loads(node.wait_log(r'^.*"subject":"worker default/w\d pid \d+","message":"crashed.*$').group())
    assert line["message"].startswith("crashed: ") and line["message"].endswith(f" (job {job}, kind segfault, attempt 1 of 1)")
    assert (line["job"], line["kind"], line["queue"], line["attempt"], line["error_kind"]) == (job, "segfault", "default", 1, "crash")
    assert re.fullmatch(r"default/w\d", line["worker"]) and line["pid"] > 0


def test_what_a_worker_prints_has_the_job(db, jobqd, programs):
    node = jobqd(db, queues(programs), log_format="json")
    job = db.enqueue("stderr", '{"lines": 1}')
    line = json.loads(node.wait_log(rf'^.*"message":"job {job} says: .*$').group())
    assert (line["job"], line["kind"], line["queue"]) == (job, "stderr", "default")


class Journal:
    """What a service manager connects a service's stderr to, as jobqd may know it by JOURNAL_STREAM."""

    def __init__(self, path):
        self.ours, self.theirs = socket.socketpair()
        stat = os.fstat(self.theirs.fileno())
        self.stream = f"{stat.st_dev}:{stat.st_ino}"
        self.thread = threading.Thread(target=self.copy, args=(path,), daemon=True)
        self.thread.start()

    def copy(self, path):
        with open(path, "ab", 0) as out:
            while data := self.ours.recv(65536):
                out.write(data)


def test_the_journal_gets_priorities(db, jobqd, programs, tmp_path):
    journal = Journal(tmp_path / "journal")
    jobs = {name: put(db, *given) for name, (given, _) in ENDS.items() if name in ("an error", "a discard")}
    node = jobqd(db, queues(programs), output=lambda _: journal.theirs.fileno(), env={"JOURNAL_STREAM": journal.stream}, ready=False)

    def said(pattern):
        path = tmp_path / "journal"
        return wait_for(lambda: path.exists() and re.search(pattern, path.read_text(), re.M), what=lambda: path.read_text())
    said(rf"^<4>WARNING queue default: job {jobs['an error']} ")
    said(rf"^<3>ERROR queue default: job {jobs['a discard']} ")
    said(r"^<6>INFO jobqd: .*ready database=")
    assert not re.search(rf"^<.>{TIME}", (tmp_path / "journal").read_text(), re.M)
    node.stop()


def test_many_that_are_alike_are_counted(db, jobqd, programs):
    """At the end of jobqd, too, all that was counted is told."""
    many = 10_000
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'discard', '{\"error\": \"user 17 not found\"}' FROM generate_series(1, %s)",
             (many,))
    node = jobqd(db, queues(programs))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'discarded'") == many)
    node.stop()
    lines = [line for line in node.log().splitlines() if "user 17 not found" in line]
    one_by_one = [line for line in lines if ": attempt 1 of " in line]
    counts = [int(re.search(r"ERROR queue default: (\d+) more jobs of kind discard failed the same way \(now discarded\) within \d+ s,"
                            r" most recently job \d+: error: user 17 not found$", line)[1])
              for line in lines if line not in one_by_one]
    print(f"{many} equal failures: {len(lines)} lines")
    assert len(one_by_one) == 5 and sum(counts) == many - 5 and len(lines) <= 10


def test_many_that_differ_are_counted(db, jobqd, programs):
    db.query("SELECT jobq.enqueue('discard', jsonb_build_object('error', translate(n::text, '0123456789', 'abcdefghij')))"
             " FROM generate_series(1, 1000) n")
    node = jobqd(db, queues(programs))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'discarded'") == 1000)
    node.stop()
    assert len(re.findall(r"ERROR queue default: job \d+ \(kind discard\): attempt", node.log())) == 64
    assert re.search(f"ERROR jobqd: {1000 - 64} more jobs were discarded or cancelled within ", node.log())


def test_retries_that_differ_hide_no_discard(db, jobqd, programs):
    node = jobqd(db, queues(programs))
    for a in "abcdefghij":
        for b in "abcdefghij":
            db.enqueue("fail", json.dumps({"error": f"no such user {a}{b}", "retry_in_ms": 3600000}))
    node.wait_log(r"WARNING jobqd: \d+ more attempts failed within \d+ s, with too many different errors to log each")
    job = db.enqueue("discard", '{"error": "it is over"}')
    node.wait_log(rf"ERROR queue default: job {job} \(kind discard\): .*it is over; discarded")


def test_what_is_not_told_of_a_dead_node_is_counted(db, jobqd, programs):
    db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at) VALUES ('gone', 'h', 1, 1, '0', now())")
    db.query("INSERT INTO jobq.jobs (kind, queue, max_attempts) SELECT 'k', 'idle', 1 + (n <= 1100)::int FROM generate_series(1, 1101) n")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_at = now(),"
             " attempted_by = (SELECT id FROM jobq.nodes WHERE name = 'gone')")
    node = jobqd(db, queues(programs), lease="1s")
    node.wait_log(r"WARNING jobqd: 101 more jobs of dead nodes lost their attempt")
    node.wait_log(r"ERROR queue idle: job 1101 \(kind k\): attempt 1 of 1 failed: orphan")


def test_a_handlers_text_cannot_forge_a_line(db, jobqd, programs, form):
    mean = "no\n2026-01-01T00:00:00Z ERROR x: y\" job=1 \u202e\x1b[31m"
    job = put(db, "fail", {"error": mean}, {"max_attempts": 1})
    node = jobqd(db, queues(programs), log_format=form)
    line = node.wait_log(rf"^.*job {job} \(kind fail\).*$").group()
    assert "\x1b" not in line and "\u202e" not in line
    if form != "text":
        got = members_of(form, line)
        assert str(got["job"]) == str(job) and got["error"].startswith("no 2026-01-01T00:00:00Z ERROR x: y\" job=1 ")


def test_a_locked_database_does_not_repeat_a_line(db, jobqd, programs):
    """The line comes when the end is recorded, once."""
    node = jobqd(db, queues(programs))
    with db.connect() as conn:
        job = db.enqueue("fail", json.dumps({"error": "said once", "retry_in_ms": 3_600_000}))
        wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (job,)) == "retryable")
        del conn
    node.wait_log("said once")
    node.stop()
    assert len(re.findall("said once", node.log())) == 1


def test_exec_jobs_have_their_line(db, jobqd):
    node = jobqd(db, {"default": {"exec": shlex.join(["/bin/sh", "-c", "echo no such host >&2; exit 3"])}})
    job = db.enqueue("lookup", max_attempts=1)
    line = node.wait_log(rf"^.*ERROR queue default: job {job} \(kind lookup\).*$").group()
    assert "attempt 1 of 1 failed: error: " in line and "; discarded (worker default/w" in line


def test_an_exec_jobs_error_has_its_last_line(db, jobqd):
    """Cleaned and bounded; and it does not make failures different that are alike."""
    program = "echo trying; printf 'smtp said \\033[31mno, %0300d\\n\\n' 7 >&2; exit 1"
    jobqd(db, {"default": {"exec": shlex.join(["/bin/sh", "-c", program])},
               "gone": {"exec": shlex.join(["/bin/sh", "-c", "echo no such user; exit 65"])}})
    job, gone = db.enqueue("mail", max_attempts=1), db.enqueue("mail", queue="gone")
    db.wait_for_states({"discarded": 2})
    error = db.value("SELECT errors -> -1 ->> 'error' FROM jobq.finished_jobs WHERE id = %s", (job,))
    assert error.startswith("exited with status 1: smtp said \\x1b[31mno, 000") and error.endswith("\u2026") and len(error) < 240
    assert db.value("SELECT errors -> -1 ->> 'error' FROM jobq.finished_jobs WHERE id = %s", (gone,)) == \
        "exited with status 65 (discard): no such user"


def test_last_lines_that_differ_are_counted_together(db, jobqd):
    letters = "import os; print('no ' + chr(97 + os.getpid() % 26) + chr(97 + os.getpid() // 26 % 26)); raise SystemExit(65)"
    node = jobqd(db, {"default": {"exec": shlex.join(["/usr/bin/python3", "-S", "-c", letters])}})
    for _ in range(20):
        db.enqueue("mail")
    db.wait_for_states({"discarded": 20})
    node.stop()
    lines = re.findall(r"ERROR queue default: job \d+ \(kind mail\): attempt", node.log())
    assert len(lines) == 5 and re.search(r"ERROR queue default: 15 more jobs of kind mail failed the same way", node.log())
