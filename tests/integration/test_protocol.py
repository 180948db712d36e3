"""The worker protocol, version 1, as a worker in another language meets it: what each wrong line costs and what is written
down of it, and the bound of a line. The daemon's side of libjobq/README.md."""

import base64
import json
import pathlib
import re

import pytest

from harness.waiting import wait_for

# Sends the bytes that a job's args hold, with {id} in them replaced by its id and {long} by 70,000 bytes, and then hangs: whoever ends it is jobqd.
# The first argument is what it says instead of a hello.
RUDE = r'''#!/usr/bin/python3
import base64, json, os, signal, socket, sys
channel = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
lines = channel.makefile("rb")
hello = base64.b64decode(sys.argv[1]) if len(sys.argv) > 1 else b'{"t":"hello","protocol":1}\n'
channel.sendall(hello.replace(b"{long}", 70000 * b"x"))
for line in lines:
    message = json.loads(line)
    if message["t"] == "job":
        say = base64.b64decode(message["args"]["say"])
        channel.sendall(say.replace(b"{id}", str(message["id"]).encode()).replace(b"{long}", 70000 * b"x"))
    if message["t"] == "job" and message["args"].get("exit"):
        sys.exit(0)
    if message["t"] == "job" and not message["args"].get("go_on"):
        signal.pause()
    if message["t"] == "stop":
        break
'''

KNOWN = "known are job, cancel, stop, hello, ok, error, snooze, discard, progress, fork, forked and start"
WHOLE = "a whole number from 1 to 9223372036854775807"
MS = "a whole number of milliseconds, 0 or more"

# What is sent (a newline follows), and the error that the job shows.
WRONG = [
    (b'Traceback (most recent call last):', "frame: expected an object at byte 1, found 'T'"),
    (b'', "frame: expected an object at byte 1, found the end"),
    (b'\x00\xff\xfe', "frame: expected an object at byte 1, found byte 0x00"),
    (b'[1,2]', "frame: expected an object at byte 1, found '['"),
    (b'{"t":"ok","id":{id}', None),  # the end's place depends on the id: below
    (b'{"t":"ok","id":7} {}', "frame: expected the end of the line at byte 19, found '{'"),
    (b"{'t':'ok'}", "frame: expected a string at byte 2, found '''"),
    (b'{"t":"ok",}', "frame: expected a string at byte 11, found '}'"),
    (b'{"id":{id}}', 'frame: "t", its type, is missing'),
    (b'{"t":"done","id":{id}}', f'frame: unknown type "done" at byte 6; {KNOWN}'),
    (b'{"t":1}', f'frame: unknown type 1 at byte 6; {KNOWN}'),
    (b'{"t":"job","id":{id}}', 'job frame: "attempt" is missing'),
    (b'{"t":"job","id":1,"attempt":1,"max_attempts":1,"queue":"q","kind":"k","args":{}}',
     'sent a "job" message, which only jobqd sends'),
    (b'{"t":"stop"}', 'sent a "stop" message, which only jobqd sends'),
    (b'{"t":"hello","protocol":1}', "said hello twice"),
    (b'{"t":"ok"}', 'ok frame: "id" is missing'),
    (b'{"t":"ok","id":"{id}"}', f'ok frame: "id" must be {WHOLE}, got "{{id}}" at byte 16'),
    (b'{"t":"ok","id":{id}.0}', f'ok frame: "id" must be {WHOLE}, got {{id}}.0 at byte 16'),
    (b'{"t":"ok","id":-1}', f'ok frame: "id" must be {WHOLE}, got -1 at byte 16'),
    (b'{"t":"ok","id":1{id}}', "answered job 1{id}, which it does not hold"),
    (b'{"t":"ok","id":1,"id":2}', "frame: expected each member once at byte 18, found '\"'"),
    (b'{"t":"ok","id":1,"result":nil}', "frame: expected a value at byte 27, found 'n'"),
    (b'{"t":"ok","id":1,"result":"\\u0000"}',
     "frame: expected no \\u0000, which jsonb cannot hold, at byte 28, found '\\'"),
    (b'{"t":"ok","id":1,"result":"\xff"}', "frame: expected UTF-8 at byte 28, found byte 0xFF"),
    (b'{"t":"ok","id":1,"result":' + 200 * b"[" + 200 * b"]" + b'}',
     "frame: expected at most 128 levels of nesting at byte 155, found '['"),
    (b'{"t":"error","id":{id}}', 'error frame: "error" is missing'),
    (b'{"t":"error","id":1,"error":["x"]}', 'error frame: "error" must be a text, got ["x"] at byte 29'),
    (b'{"t":"error","id":1,"error":"x","retry_in_ms":-5}',
     f'error frame: "retry_in_ms" must be {MS}, got -5 at byte 47'),
    (b'{"t":"snooze","id":{id}}', 'snooze frame: "in_ms" is missing'),
    (b'{"t":"snooze","id":1,"in_ms":"5m"}', f'snooze frame: "in_ms" must be {MS}, got "5m" at byte 30'),
    (b'{"t":"discard","id":1,"reason":7}', 'discard frame: "reason" must be a text, got 7 at byte 32'),
    (b'{"t":"cancel","reason":"x"}', 'cancel frame: "id" is missing'),
    (b'{"t":"progress","id":1,"done":40}', 'progress frame: "done" must be a number from 0 to 1, got 40 at byte 31'),
    (b'{"t":"progress","id":1{id},"done":1}', "reported progress of job 1{id}, which it does not hold"),
    (b'{"t":"ok","id":1,"result":"{long}"}', "sent a line longer than 65536 bytes (max_frame)"),
]
WRONG_HELLO = {
    "future": (b'{"t":"hello","protocol":2}\n', "speaks protocol 2, this jobqd speaks 1"),
    "early": (b'{"t":"ok","id":1}\n', "sent another message before its hello"),
    "nothing": (b'{"t":"hello"}\n', 'hello frame: "protocol" is missing'),
    "text": (b'{"t":"hello","protocol":"1"}\n',
             'hello frame: "protocol" must be a whole number from 1 to 2147483647, got "1" at byte 25'),
    "none": (b'{"t":"hello","protocol":1,"kinds":[]}\n',
             'hello frame: "kinds" must be an array of one or more texts, got [] at byte 35'),
    "words": (b'{"t":"hello","protocol":1,"kinds":"a b"}\n',
              'hello frame: "kinds" must be an array of one or more texts, got "a b" at byte 35'),
    "banner": (b'worker v3 starting\n', "frame: expected an object at byte 1, found 'w'"),
    "long": (b"{long}", "sent a line longer than 65536 bytes (max_frame)"),
}


@pytest.fixture
def rude(tmp_path):
    worker = tmp_path / "rude.py"
    worker.write_text(RUDE)
    worker.chmod(0o755)
    return worker


def ended(db, job):
    """(state, attempt, errors) of a job, once it has ended."""
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)),
             what=lambda: f"job {job} to end: {db.query('SELECT state, attempt, errors FROM jobq.all_jobs WHERE id = %s', (job,))}")
    return db.query("SELECT state::text, attempt, errors FROM jobq.finished_jobs WHERE id = %s", (job,))[0]


def say(line, **more):
    return json.dumps({"say": base64.b64encode(line).decode(), **more})


def test_each_wrong_line_is_charged_to_the_job_at_the_head_with_its_error(db, jobqd, rude):
    node = jobqd(db, {"default": {"command": rude, "concurrency": 2, "max_restarts": 1000, "stop_grace": "100ms",
                                  "mailbox": 4}}, max_frame="64KiB")
    jobs = [db.enqueue("wrong", say(line + b"\n"), max_attempts=1) for line, _ in WRONG]
    ok = [db.enqueue("right", say(b'{"t":"ok","id":{id}}\n', go_on=True)) for _ in WRONG]
    found, expected = {}, {}
    for job, (line, error) in zip(jobs, WRONG):
        state, attempt, (entry,) = ended(db, job)
        assert (state, attempt, entry["kind"], entry["attempt"]) == ("discarded", 1, "protocol", 1)
        place = len(line.replace(b"{id}", str(job).encode())) + 1
        found[line[:80]] = entry["error"]
        expected[line[:80]] = (error or f"frame: expected ',' or '}}' at byte {place}, found the end").replace("{id}", str(job))
    assert found == expected
    for job in ok:
        assert ended(db, job) == ("completed", 1, [])
    assert node.running


def test_the_table_of_the_readme():
    """Each row is one that is sent above."""
    readme = (pathlib.Path(__file__).resolve().parents[2] / "libjobq" / "README.md").read_text()
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", readme[readme.index("### What is wrong"):], re.M)
    sent = {(line.decode(errors="replace").replace("{long}", "\u2026").replace("{id}", "7"), (error or "").replace("{id}", "7"))
            for line, error in WRONG}
    assert len(rows) >= 15
    assert [row for row in rows if row not in sent] == []


def test_a_connection_that_ends_within_a_line(db, jobqd, rude):
    jobqd(db, {"default": {"command": rude, "concurrency": 1, "max_restarts": 1000}})
    state, _, (entry,) = ended(db, db.enqueue("wrong", say(b'{"t":"ok",', exit=True), max_attempts=1))
    assert (state, entry["kind"], entry["error"]) == ("discarded", "protocol", "closed the connection in the middle of a line")


def test_what_is_wrong_before_the_hello_is_logged_and_charged_to_no_job(db, jobqd, rude):
    node = jobqd(db, {name: {"command": f"{rude} {base64.b64encode(hello).decode()}", "concurrency": 1, "stop_grace": "100ms"}
                      for name, (hello, _) in WRONG_HELLO.items()}, max_frame="64KiB")
    waiting = {name: db.enqueue("any", say(b""), queue=name) for name in WRONG_HELLO}
    for name, (_, error) in WRONG_HELLO.items():
        node.wait_log(rf"WARNING worker {name}/w1 pid \d+: broke the protocol: {re.escape(error)}$")
    for job in waiting.values():
        assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (job,)) == [("available", 0, [])]


def test_members_of_a_later_version_are_let_through(db, jobqd, rude):
    jobqd(db, {"default": {"command": rude, "concurrency": 1}})
    line = b' { "new" : {"deep": [1, {}]}, "id" : {id} , "t" : "ok" , "result" : {"n": 123456789012345678, "x": 1.10} } \r\n'
    job = db.enqueue("right", say(line, go_on=True))
    assert ended(db, job) == ("completed", 1, [])
    assert db.value("SELECT result::text FROM jobq.finished_jobs WHERE id = %s", (job,)) == '{"n": 123456789012345678, "x": 1.10}'


@pytest.mark.parametrize("max_frame", ["64KiB", "8MiB"])
def test_the_bound_of_a_line_holds_at_both_ends(db, jobqd, programs, max_frame):
    """A worker of libjobq learns it from JOBQ_MAX_FRAME: a result that is too long is left out, the work is not done again, and
    nobody is ended."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, max_frame=max_frame)
    db.query("UPDATE jobq.settings SET max_job_bytes = 8388608")
    most = {"64KiB": 64, "8MiB": 8192}[max_frame] * 1024
    fits = json.dumps({"text": (most - 1000) * "x"})
    job = db.enqueue("echo", fits)
    assert ended(db, job) == ("completed", 1, [])
    assert db.value("SELECT result = args FROM jobq.finished_jobs WHERE id = %s", (job,))
    state, _, (entry,) = ended(db, db.enqueue("big", json.dumps({"bytes": most + 1000}), max_attempts=1))
    assert (state, entry["kind"]) == ("completed", "error")
    assert re.fullmatch(rf"the result was left out: jobq_work_ok: the answer takes \d+ bytes, at most {most} are allowed", entry["error"])
    assert len(re.findall(r"ready after", node.log())) == 1


# One buffered file for both ways: Python drops the lines that it has read ahead when it writes.
FORGETFUL = r'''#!/usr/bin/python3
import json, os, socket
jobqd = socket.socket(fileno=int(os.environ["JOBQ_FD"])).makefile("rw")
jobqd.write('{"t":"hello","protocol":1}\n')
jobqd.flush()
for line in jobqd:
    message = json.loads(line)
    if message["t"] == "stop":
        break
    jobqd.write(json.dumps({"t": "ok", "id": message["id"]}) + "\n")
    jobqd.flush()
'''


def test_a_worker_that_loses_jobs_is_named(db, jobqd, tmp_path):
    """It answers what came later, and never what it had read ahead."""
    program = tmp_path / "forgetful"
    program.write_text(FORGETFUL)
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": program, "concurrency": 1, "mailbox": 100}})
    db.query("SELECT jobq.enqueue_many(jsonb_agg(jsonb_build_object('kind', 'k'))) FROM generate_series(1, 20) n")
    done = "SELECT count(*) FROM jobq.finished_jobs"
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'available'") == 0 and db.value(done) > 0)

    def warned():
        db.enqueue("k")
        return re.search(r"WARNING worker default/w1 pid \d+: answered job \d+ before job \d+, which it got first; if it"
                         r" reads and writes through one buffered file", node.log())
    wait_for(warned)
    assert node.log().count("which it got first") == 1


# Reads while it works: what is cancelled is answered at once, its turn or not.
ATTENTIVE = r'''#!/usr/bin/python3
import json, os, socket
jobqd = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
jobqd.sendall(b'{"t":"hello","protocol":1}\n')
for line in jobqd.makefile("rb"):
    message = json.loads(line)
    if message["t"] == "cancel":
        jobqd.sendall(json.dumps({"t": "cancel", "id": message["id"]}).encode() + b"\n")
    if message["t"] == "stop":
        break
'''


def test_a_cancel_that_is_answered_before_its_turn_is_no_fault(db, jobqd, tmp_path):
    program = tmp_path / "attentive"
    program.write_text(ATTENTIVE)
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": program, "concurrency": 1, "mailbox": 100}})
    ids = [db.enqueue("k") for _ in range(5)]
    db.wait_for_states({"executing": 5})
    for job in reversed(ids):
        db.query("SELECT jobq.cancel(%s)", [job])
        wait_for(lambda job=job: db.value("SELECT count(*) FROM jobq.jobs WHERE id = %s", [job]) == 0)
    assert "which it got first" not in node.log()
