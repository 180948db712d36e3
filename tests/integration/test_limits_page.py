"""The table of limits in the man page: each row is tried, at its bound and beyond it."""

import json
import pathlib
import re

import psycopg
import pytest

from harness.raw import raw_worker
from harness.waiting import wait_for

PAGE = pathlib.Path(__file__).resolve().parents[2] / "jobqd" / "jobqd.1.scd"
MOST = 4190208  # max_job_bytes
FRAME = 4 * 1024 * 1024
TRIED = {}  # row of the table: its test


def row_of_the_table(*names):
    def note(test):
        TRIED.update(dict.fromkeys(names, test.__name__))
        return test
    return note


def refused(db, sql, *params):
    """What the database says to it."""
    with pytest.raises(psycopg.Error) as caught:
        db.query(sql, params)
    return caught.value.diag.message_primary


def insert(db, **columns):
    """A plain INSERT, for the columns that enqueue does not take."""
    names = ", ".join(columns)
    values = ", ".join(f"%({name})s" for name in columns)
    return db.value(f"INSERT INTO jobq.jobs (kind, {names}) VALUES ('noop', {values}) RETURNING id", columns)


def insert_refused(db, **columns):
    with pytest.raises(psycopg.Error) as caught:
        insert(db, **columns)
    return caught.value.diag.message_primary


ENQUEUE = "SELECT jobq.enqueue('noop', {} => %s)"


# ---- a job ----

@row_of_the_table("a job's id")
def test_its_id(db):
    assert insert(db, id=2**53 - 1) == 2**53 - 1
    assert insert(db, id=1) == 1
    for id in (0, -1, 2**53, 2**63 - 1):
        assert insert_refused(db, id=id) == f"jobq.jobs: id must be 1 to 9007199254740991, got {id}"


@row_of_the_table("its position")
def test_its_position(db):
    insert(db, position=2**53 - 1), insert(db, position=1)
    for position in (0, -1, 2**53):
        said = insert_refused(db, position=position)
        assert said == f"jobq.jobs: position must be null or 1 to 9007199254740991, got {position}"


@row_of_the_table("its attempt, by an INSERT of the owner's")
def test_its_attempt(db):
    insert(db, attempt=1000), insert(db, attempt=0)
    assert insert_refused(db, attempt=1001) == "jobq.jobs: attempt must be 0 to 1000, got 1001"
    assert "jobs_attempt_is_not_negative" in insert_refused(db, attempt=-1)


@row_of_the_table("its kind; its queue")
def test_its_kind_and_queue(db, cli):
    for name in ("ä" * 64, "x"):
        db.query("SELECT jobq.enqueue(%s, queue => %s)", [name, name])
    for name in ("", "ä" * 65):
        words = f"must be text of 1 to 128 bytes, got {json.dumps(name, ensure_ascii=False)[:20]}"
        assert f"kind {words}" in refused(db, "SELECT jobq.enqueue(%s)", name)
        assert f"queue {words}" in refused(db, ENQUEUE.format("queue"), name)
        assert "128" in cli("enqueue", name, db=db, code=65).stderr
        assert "128" in cli("enqueue", "noop", "--queue", name, db=db, code=None).stderr


@row_of_the_table("its key; its unique\\_key")
@pytest.mark.parametrize("name", ["key", "unique_key"])
def test_its_keys(db, name):
    db.query(ENQUEUE.format(name), ["k" * 512])
    insert(db, **{name: "l" * 512})
    for key in ("", "k" * 513):
        assert f"{name} must be null or text of 1 to 512 bytes, got" in refused(db, ENQUEUE.format(name), key)
        assert f"{name} must be null or text of 1 to 512 bytes, got" in insert_refused(db, **{name: key})


@row_of_the_table("its args and meta together")
def test_its_args_and_meta(db, cli, tmp_path):
    def args(size):
        return json.dumps({"x": "y" * (size - 9)})  # {"x": "…"}

    fine = db.value("SELECT jobq.enqueue('noop', %s)", [args(MOST - 2)])  # meta is {}
    assert db.value("SELECT octet_length(args::text) FROM jobq.jobs WHERE id = %s", [fine]) == MOST - 2
    words = f"args and meta must be at most {MOST} bytes of JSON \\(max_job_bytes of table settings\\), got {MOST + 1}$"
    assert re.search(words, refused(db, "SELECT jobq.enqueue('noop', %s)", args(MOST - 1)))
    assert re.search(words, refused(db, "SELECT jobq.enqueue('noop', %s, meta => %s)", args(100), args(MOST - 99)))
    assert re.search(words, refused(db, "INSERT INTO jobq.jobs (kind, args) VALUES ('noop', %s)", args(MOST - 1)))
    many = json.dumps([{"kind": "noop", "args": json.loads(args(MOST - 1))}])
    assert re.search(words[:-1], refused(db, "SELECT jobq.enqueue_many(%s)", many))
    line = json.dumps({"kind": "noop", "args": json.loads(args(MOST - 1))})
    assert re.search(words[:-1], cli("enqueue", "-", input=line + "\n", db=db, code=65).stderr)
    assert db.states() == {"available": 1}
    db.query("UPDATE jobq.settings SET max_job_bytes = 65536")
    assert "at most 65536 bytes" in refused(db, "SELECT jobq.enqueue('noop', %s)", args(65535))
    for bound in (65535, 67104769):
        assert "max_job_bytes" in refused(db, "UPDATE jobq.settings SET max_job_bytes = %s", bound)


@row_of_the_table("a number in args, meta or result")
@pytest.mark.parametrize("number, fine", [
    ("9e3999", True), ("1e-4000", True), ("-9e3999", True), ("1e4000", False), ("-1e4000", False), ("1e-4001", False),
    ("1e131071", False), ("0e-4001", False)])
def test_its_numbers(db, cli, number, fine):
    document = f'{{"deep": [[{{"n": {number}}}]]}}'
    doors = [("SELECT jobq.enqueue('noop', %s)", document), ("SELECT jobq.enqueue('noop', meta => %s)", document),
             ("INSERT INTO jobq.jobs (kind, args) VALUES ('noop', %s)", document),
             ("INSERT INTO jobq.jobs (kind, meta) VALUES ('noop', %s)", document),
             ("SELECT jobq.enqueue_many(%s)", f'[{{"kind": "noop", "args": {document}}}]'),
             ("SELECT jobq.cron_set('nightly', '@daily', 'noop', %s)", document)]
    if fine:
        for sql, value in doors:
            db.query(sql, [value])
        cli("enqueue", "noop", document, db=db)
        return
    words = "must not hold a number with more than 4000 digits before or after the decimal point"
    for sql, value in doors:
        assert words in refused(db, sql, value)
    assert words in cli("enqueue", "noop", document, db=db, code=65).stderr
    assert words in cli("cron", "set", "nightly", "--schedule", "@daily", "--kind", "noop", "--args", document, db=db, code=65).stderr
    assert db.states() == {}


@row_of_the_table("its tags")
def test_its_tags(db):
    fine, large = ["t" * 1000] * 65, ["t" * 1000] * 66
    db.query(ENQUEUE.format("tags"), [fine])
    assert "tags must take at most 65536 bytes" in refused(db, ENQUEUE.format("tags"), large)
    assert "tags must take at most 65536 bytes" in insert_refused(db, tags=large)


@row_of_the_table("its errors, by an INSERT of the owner's")
def test_its_errors(db):
    insert(db, errors="[]")
    for errors in ("{}", "null", "3"):
        assert insert_refused(db, errors=errors) == f"jobq.jobs: errors must be a JSON array, got {errors}"


@row_of_the_table("entries of errors", "an entry: error; detail; output", "an entry: other members")
def test_entries_of_errors(db):
    """Their bounds to the byte: test_limits.py."""
    entry = {"error": "e" * 5000, "detail": "d" * 70000, "output": "o" * 70000, "other": "x" * 9000, "small": 1}
    entries = db.value("SELECT jobq._add_error(%s, %s)", [json.dumps([entry] * 150), json.dumps({**entry, "last": True})])
    assert len(entries) == 100 and entries[-1]["last"]
    for entry in entries:
        assert len(entry["error"]) == 4096
        assert all(65000 < len(entry[name]) <= 65536 for name in ("detail", "output"))
        assert "other" not in entry and entry["small"] == 1


# ---- what workers say ----

@pytest.fixture
def worker(tmp_path):
    return raw_worker(tmp_path, r"""
if "print" in args:
    print("p" * args["print"], flush=True)
if "note" in args:
    sock.sendall(json.dumps({"t": "progress", "id": id, "done": 0.5, "note": args["note"]}).encode() + b"\n")
    read.readline()
head = b'{"t":"%s","id":%d,"%s":"' % (args.get("t", "ok").encode(), id, args.get("member", "result").encode())
sock.sendall(head + b"x" * (args["line"] - len(head) - 2) + b'"}\n')
""")


def job(db, **args):
    return db.enqueue("say", json.dumps(args), max_attempts=1)


@row_of_the_table("its result", "a line between jobqd and a worker")
def test_a_workers_line(db, jobqd, worker):
    fine, much = job(db, line=FRAME), job(db, line=FRAME + 1)
    node = jobqd(db, {"default": {"command": worker, "concurrency": 1}})
    db.wait_for_states({"completed": 1, "discarded": 1})
    assert db.value("SELECT length(result #>> '{}') FROM jobq.finished_jobs WHERE id = %s", [fine]) > FRAME - 100
    [error] = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s", [much])
    assert error["kind"] == "protocol" and f"sent a line longer than {FRAME} bytes (max_frame)" in error["error"]
    node.wait_log("max_frame")


def test_a_result_in_complete(db, programs, jobqd, tmp_path):
    held = db.enqueue("hang")
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "stop_grace": "0"}}, shutdown_grace="0")
    db.wait_for_states({"executing": 1})
    result = json.dumps("r" * (MOST - 1))  # with its quotes one more than fits
    assert f"result must be at most {MOST} bytes of JSON" in refused(db, "SELECT jobq.complete(%s, 1, %s)", held, result)
    db.query("SELECT jobq.complete(%s, 1, %s)", [held, json.dumps("r" * (MOST - 2))])
    db.wait_for_states({"completed": 1})


@row_of_the_table("a worker's progress note")
def test_a_progress_note(db, jobqd, worker):
    one = job(db, line=100, note="n" * 300)
    jobqd(db, {"default": {"command": worker, "concurrency": 1}}, shutdown_grace="0")
    note = "SELECT progress ->> 'note' FROM jobq.all_jobs WHERE id = %s AND progress IS NOT NULL"
    wait_for(lambda: db.query(note, [one]))
    assert db.value(note, [one]) == "n" * 255


@row_of_the_table("a worker's output")
def test_a_workers_output(db, jobqd, worker):
    one = job(db, line=100, print=10000, t="error", member="error")
    node = jobqd(db, {"default": {"command": worker, "concurrency": 1}})
    db.wait_for_states({"discarded": 1})
    [error] = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s", [one])
    assert 2000 <= len(error["output"].rstrip("\n")) <= 2048
    line = next(line for line in node.log().splitlines() if "ppp" in line)
    assert len(line) < 8192 + 200


@row_of_the_table("a worker's output in the log")
def test_a_workers_output_in_the_log(db, jobqd, tmp_path):
    """Whatever comes of 20,000 lines within some seconds, all are accounted for."""
    script = tmp_path / "talker"
    script.write_text("#!/bin/sh\nseq -f 'line %g' 20000\n")
    script.chmod(0o755)
    node = jobqd(db, {"default": {"exec": script, "concurrency": 1}})
    db.enqueue("talk")
    db.wait_for_states({"completed": 1})
    hidden = r"(\d+) lines of its output were not logged: more than 500 lines or 128 KiB per second"
    wait_for(lambda: len(re.findall(r"says: line \d+$", node.log(), re.M)) + sum(map(int, re.findall(hidden, node.log()))) == 20000)
    seconds = {}
    for second in re.findall(r"^(\S+)\.\d+Z INFO .*says: line \d+$", node.log(), re.M):
        seconds[second] = seconds.get(second, 0) + 1
    assert re.search(hidden, node.log()) and max(seconds.values()) <= 1000  # one of jobqd's seconds may lie in two of the log's


# ---- the rest ----

@row_of_the_table("a line of *jobqd enqueue -*")
def test_a_line_of_enqueue(db, cli):
    long = json.dumps({"kind": "noop", "args": {"x": "y" * (16 << 20)}})
    said = cli("enqueue", "-", input='{"kind": "noop"}\n' + long + "\n", db=db, code=65).stderr
    assert "line 2: longer than 16 MiB; nothing was enqueued" in said
    assert db.states() == {}


@row_of_the_table("a configuration")
def test_a_configuration(cli, tmp_path):
    conf = tmp_path / "jobqd.conf"

    def check(text, code):
        conf.write_text(text)
        return cli("config", "check", "-c", conf, code=code).stderr

    def queues(n):
        return "[jobqd]\ndatabase = postgresql:///x\n" + "".join(f"[queue q{i}]\nexec = /bin/true\n" for i in range(n))

    def crons(n):
        return queues(1) + "".join(f"[cron c{i}]\nschedule = @daily\nkind = k\nqueue = q0\n" for i in range(n))

    check(queues(1000), 0), check(crons(1000), 0)
    assert "1000" in check(queues(1001), 78)
    assert "1000" in check(crons(1001), 78)
    assert "64 KiB" in check(queues(1) + "env = A=" + "x" * 65536 + "\n", 78)


# Those that no single call meets: how they hold under load.
TRIED.update({
    "answers that one transaction records": "fault/test_heavy_answers.py, unit/test_outbox.c",
    "answers that wait for the database": "fault/test_heavy_answers.py",
    "the log's lines that wait to be read": "fault/test_log.py",
})


def test_each_row_of_the_table_is_tried():
    section = PAGE.read_text().split("# LIMITS\n")[1].split("\n# ")[0]
    rows = re.findall(r"^\|  (.*)\n:", section, re.M)
    assert sorted(rows) == sorted(TRIED)
