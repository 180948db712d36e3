"""Answers that are large, or come faster than the database takes them, do not fill jobqd's memory, and none is lost."""

import pytest

from harness.raw import raw_worker
from harness.waiting import wait_for

@pytest.fixture
def heavy(tmp_path):
    return raw_worker(tmp_path, r"""
text = "x" * args["bytes"]
sock.sendall(b'{"t":"ok","id":%d,"result":"%s"}\n' % (id, text.encode()))
""")


@pytest.mark.limit(600)
@pytest.mark.parametrize("jobs, size, settings", [
    (600, 1024 * 1024, {}),
    (100, 4 * 1024 * 1024 - 200, {"mailbox": 64}),
])
def test_large_results_do_not_fill_the_memory(db, jobqd, heavy, jobs, size, settings):
    # So that they are many at once: all are claimed before the first answer is read.
    db.query("SELECT jobq.enqueue('heavy', jsonb_build_object('bytes', %s::int)) FROM generate_series(1, %s)", [size, jobs])
    node = jobqd(db, {"default": {"command": heavy, "concurrency": 4, **settings}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") == jobs, timeout=500)
    print("highest resident memory:", node.peak_kb() // 1024, "MB")
    assert db.value("SELECT max(attempt) FROM jobq.finished_jobs") == 1
    assert db.value("SELECT min(length(result #>> '{}')) FROM jobq.finished_jobs") == size
    assert node.peak_kb() < 100 * 1024


@pytest.fixture
def saying(tmp_path):
    return raw_worker(tmp_path, r"""
if told["kind"] == "error":
    size = args["bytes"]
    sock.sendall(json.dumps({"t": "error", "id": id, "error": "e" * size, "retry_in_ms": 0,
                             "detail": "first " + "d" * size + " last"}).encode() + b"\n")
else:
    sock.sendall(b'{"t":"ok","id":%d,"result":%s}\n' % (id, args["says"].encode()))
""")


def test_error_texts_are_cut_whatever_the_worker_sends(db, jobqd, saying):
    node = jobqd(db, {"default": {"command": saying, "concurrency": 1}}, max_frame="64MiB")
    job = db.value("SELECT jobq.enqueue('error', '{\"bytes\": 12000000}', max_attempts => 4)")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", [job]) == "discarded", timeout=200)
    errors = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s", [job])
    assert len(errors) == 4
    for entry in errors:
        assert len(entry["error"]) == 4096
        assert len(entry["detail"]) <= 65536 and "bytes are left out" in entry["detail"]
        assert entry["detail"].startswith("first d") and entry["detail"].endswith("d last")
    print("highest resident memory:", node.peak_kb() // 1024, "MB")
    assert node.peak_kb() < 100 * 1024


def test_error_texts_of_the_greatest_default_line(db, jobqd, saying):
    """Of four workers at once, again and again."""
    jobs = [db.value("SELECT jobq.enqueue('error', '{\"bytes\": 2000000}', max_attempts => 6)") for _ in range(40)]
    node = jobqd(db, {"default": {"command": saying, "concurrency": 4}})
    db.wait_for_states({"discarded": len(jobs)}, timeout=200)
    assert db.value("SELECT max(octet_length(errors::text)) FROM jobq.finished_jobs") < 6 * 80000
    print("highest resident memory:", node.peak_kb() // 1024, "MB")
    assert node.peak_kb() < 100 * 1024


@pytest.mark.parametrize("result", ["1e131071", "[1, 2E+99999]", '{"a": "1e9999999", "b": -7.5e5000}', "[%s]" % ("7" * 5000),
                                    "123456e3999", "0.%s" % ("1" * 4001), "1e-4001"],
                         ids=["1e131071", "array", "object", "5000-digits", "123456e3999", "behind-the-point", "1e-4001"])
def test_a_result_with_a_long_number_is_left_out_and_the_job_is_done(db, jobqd, saying, result):
    jobqd(db, {"default": {"command": saying, "concurrency": 1}})
    job = db.value("SELECT jobq.enqueue('ok', jsonb_build_object('says', %s::text))", [result])
    fine = db.value("SELECT jobq.enqueue('ok', jsonb_build_object('says', %s::text))", ['{"e": "1e9999999", "true": 1e3}'])
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") == 2)
    errors = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s AND result IS NULL", [job])
    assert "result was left out" in errors[0]["error"]
    assert db.value("SELECT result ->> 'e' FROM jobq.finished_jobs WHERE id = %s", [fine]) == "1e9999999"


def test_args_that_fit_into_no_frame_are_not_fetched(db, jobqd, programs):
    """They may be there from before, or by an UPDATE of an operator's."""
    jobs = [db.enqueue("noop") for _ in range(3)]
    db.query("UPDATE jobq.jobs SET args = jsonb_build_object('x', repeat('x', 200000000)) WHERE id = ANY (%s)", [jobs])
    evil = [db.enqueue("noop") for _ in range(3)]
    db.query("UPDATE jobq.jobs SET args = (SELECT jsonb_build_object('a', jsonb_agg(1e131071)) FROM generate_series(1, 4000)) "
             "WHERE id = ANY (%s)", [evil])
    fine = [db.enqueue("noop") for _ in range(20)]
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") == len(fine), timeout=100)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'discarded'") == 6, timeout=100)
    print("highest resident memory:", node.peak_kb() // 1024, "MB")
    assert node.peak_kb() < 100 * 1024
    error = db.value("SELECT errors -> -1 ->> 'error' FROM jobq.finished_jobs WHERE id = %s", [jobs[0]])
    assert "too many for a message to a worker (max_frame = 4194304 bytes)" in error
    assert all(e for e, in db.query("SELECT errors -> -1 ->> 'error' FROM jobq.finished_jobs WHERE id = ANY (%s)", [evil]))


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
def test_a_long_text_of_a_trigger_is_cut(db, jobqd, programs, event):
    """At a claim and at an ack; of a hundred jobs at once."""
    db.query(f"""
        CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF OLD.kind = 'bad' THEN RAISE EXCEPTION 'no: %', repeat('y', 10000000); END IF;
            RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
        CREATE TRIGGER talk BEFORE {event} ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION talk()""")
    db.query("SELECT jobq.enqueue('bad') FROM generate_series(1, 100)")
    db.query("SELECT jobq.enqueue('noop') FROM generate_series(1, 20)")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE kind = 'noop'") == 20, timeout=100)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.refusals") > 0, timeout=100)
    assert db.value("SELECT max(length(message)) FROM jobq.refusals") <= 1000
    print("highest resident memory:", node.peak_kb() // 1024, "MB")
    assert node.peak_kb() < 100 * 1024
