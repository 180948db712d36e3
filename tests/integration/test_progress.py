"""What running jobs say of how far they are: kept, bounded, of the attempt that runs alone, and gone with it."""

import json
import textwrap

import pytest

from harness.waiting import wait_for

HOUR = 3600000

# A worker that says what its job's args hold under "say": lines for the socket, with ID for the job's id and NUL for that
# character; then waits for a
# word to stop, unless "end" is true. "flood": so many progress lines a batch, for ever.
WORKER = r"""
import json, os, select, socket, sys
sock = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
sock.sendall(b'{"t":"hello","protocol":1}\n')
lines = sock.makefile("rb")
for line in lines:
    job = json.loads(line)
    if job["t"] == "stop":
        break
    if job["t"] != "job":
        continue
    args, id = job["args"], str(job["id"])
    for say in args.get("say", []):
        sock.sendall(say.replace("ID", id).replace("NUL", "\\u0000").encode() + b"\n")
    n = 0
    while not args.get("end") and not select.select([sock], [], [], 0.01 if "flood" in args else None)[0]:
        batch = []
        for _ in range(args["flood"]):
            n += 1
            batch.append('{"t":"progress","id":%s,"done":%.6f,"note":"step %d"}' % (id, n % 1000000 / 1e6, n))
        sock.sendall("\n".join(batch).encode() + b"\n")
    if args.get("crash"):
        os._exit(3)
    sock.sendall(('{"t":"ok","id":%s}' % id).encode() + b"\n")
"""


@pytest.fixture
def talker(tmp_path):
    path = tmp_path / "talker.py"
    path.write_text(textwrap.dedent(WORKER))
    return f"/usr/bin/python3 {path}"


def says(*lines, **more):
    return json.dumps({"say": [json.dumps({"t": "progress", "id": "ID", **line}).replace('"ID"', "ID") for line in lines], **more})


def progress(db, job):
    return db.value("SELECT progress FROM jobq.all_jobs WHERE id = %s", [job])


def wait_progress(db, job):
    return wait_for(lambda: progress(db, job), what=lambda: f"word of job {job}: {db.states()}")


def test_the_newest_word_is_seen(cli, db, jobqd, talker):
    jobqd(db, {"default": {"command": talker, "concurrency": 1}})
    job = db.enqueue("k", says({"done": 0.1, "note": "begins"}, {"done": 0.4, "note": "copies\n\x07 files"}))
    wait_for(lambda: wait_progress(db, job)["done"] == 0.4, what="the second word")
    assert progress(db, job)["note"] == "copies\n\x07 files"
    text = cli("job", job, db=db).stdout
    assert "\n  progress    40.0 %: copies\\n\\x07 files\n" in text
    assert json.loads(cli("job", job, "--json", db=db).stdout)["progress"]["done"] == 0.4
    assert db.value("SELECT progress FROM jobq.all_jobs WHERE id = %s", [db.enqueue("other", queue="nobody")]) is None
    db.query("SELECT jobq.cancel(%s)", [job])
    wait_for(lambda: db.states().get("executing") is None, what="it to end")
    assert progress(db, job) is None
    assert "\n  progress" not in cli("job", job, db=db).stdout


def test_rows_go_when_the_job_has_ended(db, jobqd, talker):
    jobqd(db, {"default": {"command": talker, "concurrency": 1}}, lease="1s")
    for _ in range(3):
        db.enqueue("k", says({"done": 1}, end=True))
    db.wait_for_states({"completed": 3})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._progress") == 0, what="the rows to go")


def test_a_word_without_a_note(db, jobqd, talker):
    jobqd(db, {"default": {"command": talker, "concurrency": 1}})
    job = db.enqueue("k", says({"done": 1}))
    assert {k: v for k, v in wait_progress(db, job).items() if k != "at"} == {"done": 1, "note": None}


@pytest.mark.parametrize("note,kept", [
    ("x" * 1000, "x" * 255), ("ö" * 500, "ö" * 127), ("€" * 500, "€" * 85), ("a" + "🐘" * 500, "a" + "🐘" * 63),
    ("nul\0led", "nul�led"), ("", ""),
], ids=["ascii", "two", "three", "four", "nul", "empty"])
def test_a_note_is_cut_at_a_character(db, jobqd, talker, note, kept):
    jobqd(db, {"default": {"command": talker, "concurrency": 1}})
    said = json.dumps(note.replace("\0", "NUL"), ensure_ascii=False)
    job = db.enqueue("k", json.dumps({"say": ['{"t":"progress","id":ID,"done":0.5,"note":%s}' % said]}))
    assert wait_progress(db, job)["note"] == kept


def test_jobs_of_two_nodes(db, jobqd, talker):
    for _ in range(2):
        jobqd(db, {"default": {"command": talker, "concurrency": 2}})
    jobs = [db.enqueue("k", says({"done": n / 10})) for n in range(1, 5)]
    wait_for(lambda: all(progress(db, job) for job in jobs), what="word of all")
    assert [progress(db, job)["done"] for job in jobs] == [0.1, 0.2, 0.3, 0.4]
    assert db.value("SELECT count(DISTINCT attempted_by) FROM jobq.jobs") == 2


def test_the_next_attempt_begins_anew(db, jobqd, talker):
    jobqd(db, {"default": {"command": talker, "concurrency": 1, "backoff": "constant(1ms)", "max_restarts": 1000}})
    job = db.enqueue("k", says({"done": 0.9, "note": "nearly"}), max_attempts=2)
    assert wait_progress(db, job)["done"] == 0.9
    first = db.value("SELECT attempted_by FROM jobq.jobs")
    # Of the first attempt, which is over: not shown, and a late word of it is not taken.
    db.query("UPDATE jobq.jobs SET attempt = 2")
    assert progress(db, job) is None
    db.query("SELECT jobq._note_progress(%s, %s, %s, %s, %s)", [first, [job], [1], [100000], ["late"]])
    assert db.value("SELECT note FROM jobq._progress") == "nearly"
    db.query("SELECT jobq._note_progress(%s, %s, %s, %s, %s)", [first + 1, [job], [2], [100000], ["another node's"]])
    assert db.value("SELECT note FROM jobq._progress") == "nearly"
    db.query("SELECT jobq._note_progress(%s, %s, %s, %s, %s)", [first, [job], [2], [100000], ["again"]])
    assert db.query("SELECT attempt, done, note FROM jobq._progress") == [(2, 0.1, "again")]
    db.query("UPDATE jobq.jobs SET attempt = 1")  # for the worker to be able to end it


def test_a_crash_in_the_middle(db, jobqd, talker):
    node = jobqd(db, {"default": {"command": talker, "concurrency": 1, "max_crashes": 1}}, lease="1s")
    crashed = db.enqueue("k", says({"done": 0.5}, end=True, crash=True))
    fine = db.enqueue("k", says({"done": 0.7}))
    assert wait_progress(db, fine)["done"] == 0.7
    assert db.value("SELECT state = 'discarded' AND progress IS NULL FROM jobq.all_jobs WHERE id = %s", [crashed])
    node.kill()
    jobqd(db, {"default": {"command": talker, "concurrency": 1}}, lease="1s")
    wait_for(lambda: db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", [fine]) == 2, what="the next attempt")
    assert wait_progress(db, fine)["done"] == 0.7


def test_ten_thousand_words_a_second(db, jobqd, talker):
    """Two workers say so much for ever; the writes stay at two a second, whatever they say."""
    jobqd(db, {"default": {"command": talker, "concurrency": 2}})
    jobs = [db.enqueue("k", json.dumps({"flood": 50})) for _ in range(2)]
    for job in jobs:
        wait_progress(db, job)

    def look():
        return db.query("SELECT extract(epoch FROM clock_timestamp())::float, coalesce(sum(n_tup_upd + n_tup_ins), 0)::int "
                        "FROM pg_stat_user_tables WHERE relname = '_progress'")[0]

    def steps():
        return int(progress(db, jobs[0])["note"].split()[1])
    (began, before), first = look(), steps()
    wait_for(lambda: steps() > first + 10000, what="10,000 more words")
    db.query("SELECT pg_sleep(0)")
    wait_for(lambda: look()[1] > before, what="the statistics to come")
    ended, after = look()
    assert after - before <= 2 * (2 * (ended - began) + 4), "a row a job, twice a second"


def test_who_does_not_select_it_does_not_pay(db):
    plan = "\n".join(row[0] for row in db.query("EXPLAIN SELECT id, state FROM jobq.all_jobs WHERE id = 7"))
    assert "progress" not in plan
    plan = "\n".join(row[0] for row in db.query("EXPLAIN SELECT * FROM jobq.all_jobs WHERE id = 7"))
    assert "progress" in plan


def test_jobs_that_say_nothing_write_nothing(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    for _ in range(5):
        db.enqueue("noop")
    db.wait_for_states({"completed": 5})
    assert db.value("SELECT pg_relation_size('jobq._progress')") == 0
