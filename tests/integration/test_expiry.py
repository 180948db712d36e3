"""expires_at: a job that has not begun by then never does, and ends as cancelled, which says why."""

import json
import threading

import psycopg
import pytest

from harness.waiting import wait_for


def job(db, job_id):
    return db.query("SELECT to_jsonb(j) FROM jobq.all_jobs j WHERE id = %s", [job_id])[0][0]


def expect_expired(db, job_id):
    row = job(db, job_id)
    assert (row["state"], row["attempt"], row["attempted_at"]) == ("cancelled", 0, None)
    assert len(row["errors"]) == 1
    error = row["errors"][0]
    assert (error["attempt"], error["kind"]) == (0, "expired")
    assert error["error"] == "not started by " + db.value(
        "SELECT to_char(%s::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", [row["expires_at"]])


FAULTS = [
    ({"expires_at": "infinity"}, '"infinity"'),
    ({"expires_at": "-infinity"}, '"-infinity"'),
    ({"scheduled_at": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"}, '"2099-01-01T00:00:00+00:00"'),
    ({"scheduled_at": "2099-01-01T00:00:00Z", "expires_at": "2001-01-01T00:00:00Z"}, '"2001-01-01T00:00:00+00:00"'),
]
FAULT = "expires_at must be null or a finite time, after scheduled_at if that is in the future, got "


@pytest.mark.parametrize("options,got", FAULTS, ids=[str(o) for o, _ in FAULTS])
def test_wrong_times(db, options, got):
    db.query("SET timezone = 'UTC'")
    named = "".join(f", {name} => %({name})s::timestamptz" for name in options)
    columns = ", ".join(options)
    for caller, sql, params in (
            ("enqueue: ", f"SELECT jobq.enqueue('a'{named})", options),
            ("enqueue_many: jobs[0].", "SELECT jobq.enqueue_many(%(jobs)s::jsonb)", {"jobs": json.dumps([{"kind": "a", **options}])}),
            ("jobs: ", f"INSERT INTO jobq.jobs (kind, {columns}) VALUES ('a', " + ", ".join(f"%({n})s" for n in options) + ")",
             options)):
        with pytest.raises(psycopg.Error) as caught:
            db.query(sql, params)
        assert (caught.value.sqlstate, caught.value.diag.message_primary) == ("22023", f"jobq.{caller}{FAULT}{got}")
    assert db.states() == {}


@pytest.mark.parametrize("value,got", [("soon", '"soon"'), (5, "5"), ("2026-02-30", '"2026-02-30"'),
                                       ("2026-02-03T00:00:00+99", '"2026-02-03T00:00:00+99"')])
def test_what_is_no_time_in_enqueue_many(db, value, got):
    jobs = json.dumps([{"kind": "a"}, {"kind": "a", "scheduled_at": "2026-01-01T00:00:00Z", "expires_at": value}])
    with pytest.raises(psycopg.Error) as caught:
        db.query("SELECT jobq.enqueue_many(%s::jsonb)", [jobs])
    assert caught.value.diag.message_primary == f"jobq.enqueue_many: jobs[1].{FAULT}{got}"


def test_one_that_has_passed_already_is_no_fault(db):
    ids = [db.value("SELECT jobq.enqueue('a', expires_at => now() - interval '1 second')"),
           db.value("SELECT jobq.enqueue_many('[{\"kind\": \"a\", \"expires_at\": \"2001-01-01T00:00:00Z\"}]')"),
           db.value("INSERT INTO jobq.jobs (kind, expires_at) VALUES ('a', now() - interval '1 second') RETURNING id")]
    assert db.value("SELECT jobq._expire_jobs()") == 3
    for job_id in ids:
        expect_expired(db, job_id)


def test_only_those_that_wait_for_their_first_attempt(db):
    late = "now() - interval '1 second'"
    rows = {name: db.value(f"SELECT jobq.enqueue('{name}', unique_key => '{name}', expires_at => now() + interval '1 hour')")
            for name in ("available", "scheduled", "suspended", "executing", "retryable", "again", "later")}
    for name, change in (("available", ""), ("scheduled", ", state = 'scheduled', position = NULL"),
                         ("suspended", ", state = 'suspended', position = NULL"),
                         ("executing", ", state = 'executing', attempt = 1, attempted_by = 1"),
                         ("retryable", ", state = 'retryable', position = NULL, attempt = 1"),
                         ("again", ", attempt = 2")):
        db.query(f"UPDATE jobq.jobs SET expires_at = {late} {change} WHERE id = %s", [rows[name]])
    assert db.value("SELECT jobq._expire_jobs()") == 3
    for name in ("available", "scheduled", "suspended"):
        expect_expired(db, rows[name])
    assert {job(db, rows[n])["state"] for n in ("executing", "retryable", "again", "later")} == {
        "executing", "retryable", "available"}
    db.enqueue("free again", unique_key="available")


def test_a_retry_by_hand_forgets_it(db):
    job_id = db.value("SELECT jobq.enqueue('a', expires_at => now() - interval '1 second')")
    db.query("SELECT jobq._expire_jobs()")
    assert db.value("SELECT jobq.retry(%s)", [job_id])
    assert db.value("SELECT jobq._expire_jobs()") == 0
    assert (job(db, job_id)["state"], job(db, job_id)["expires_at"]) == ("available", None)


def test_an_expired_job_never_starts(db, jobqd, programs):
    """It expired while no node was there: neither the claim nor the sweep lets it run, whichever comes first."""
    gone = [db.value("SELECT jobq.enqueue('noop', expires_at => now() - interval '1 ms')") for _ in range(20)]
    fine = [db.value("SELECT jobq.enqueue('noop', expires_at => now() + interval '1 hour')") for _ in range(20)]
    jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    db.wait_for_states({"completed": 20, "cancelled": 20})
    for job_id in gone:
        expect_expired(db, job_id)
    assert {job(db, job_id)["state"] for job_id in fine} == {"completed"}


def test_a_running_node_sweeps_within_a_moment(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    job_id = db.value("SELECT jobq.enqueue('noop', queue => 'nobodys', expires_at => now() + interval '300 ms')")
    db.wait_for_states({"cancelled": 1})
    expect_expired(db, job_id)
    assert db.value("SELECT finished_at - expires_at BETWEEN interval '0' AND interval '5 s' FROM jobq.finished_jobs")


def test_more_than_a_batch(db, jobqd, programs):
    db.query("INSERT INTO jobq.jobs (kind, queue, expires_at) SELECT 'a', 'nobodys', now() FROM generate_series(1, 3500)")
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    db.wait_for_states({"cancelled": 3500})


def test_what_has_begun_is_not_read_each_time(db):
    """It is past its expiry for good."""
    db.query("INSERT INTO jobq.jobs (kind, expires_at) SELECT 'a', now() - interval '1 hour' FROM generate_series(1, 5000)")
    db.query("UPDATE jobq.jobs SET attempt = 1, state = 'retryable', position = NULL")
    old = db.value("SELECT jobq.enqueue('b', expires_at => now() - interval '11 s')")
    new = db.value("SELECT jobq.enqueue('b', expires_at => now() - interval '9 s')")
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT jobq._expire_jobs(now() - interval '10 s')").fetchone() == (1,)
        assert conn.execute("SELECT pg_stat_get_xact_tuples_returned('jobq.jobs_expires'::regclass) < 100").fetchone() == (True,)
        conn.commit()
    expect_expired(db, new)
    assert job(db, old)["state"] == "available"
    assert db.value("SELECT jobq._expire_jobs()") == 1
    expect_expired(db, old)


def test_several_sweep_at_the_same_time(db):
    """Two that both believe that they lead: each job expires once."""
    db.query("INSERT INTO jobq.jobs (kind, expires_at) SELECT 'a', now() FROM generate_series(1, 20000)")
    counts = []

    def sweep():
        with db.connect() as conn:
            while conn.execute("SELECT count(*) FROM jobq.jobs").fetchone()[0]:
                counts.append(conn.execute("SELECT jobq._expire_jobs()").fetchone()[0])
    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 20000 and max(counts) <= 1000
    assert db.query("SELECT count(*), count(DISTINCT id) FROM jobq.finished_jobs WHERE errors -> 0 ->> 'kind' = 'expired'"
                    ) == [(20000, 20000)]


def test_the_sweep_does_not_wait_for_a_lock(db):
    ids = [db.value("SELECT jobq.enqueue('a', expires_at => now() - interval '1 s')") for _ in range(2)]
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [ids[0]])
        assert db.value("SELECT jobq._expire_jobs()") == 1
    wait_for(lambda: db.value("SELECT jobq._expire_jobs()") == 1)
    for job_id in ids:
        expect_expired(db, job_id)


def test_the_sweep_uses_its_index(db):
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO jobq.jobs (kind, expires_at) SELECT 'a', CASE WHEN i % 100 = 0 THEN now() END "
                     "FROM generate_series(1, 20000) i")
        conn.commit()
        conn.execute("ANALYZE jobq.jobs")
        conn.execute("SET LOCAL enable_seqscan = off")
        before = db.value("SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'jobq' AND relname = 'jobs'")
        assert conn.execute("SELECT jobq._expire_jobs()").fetchone()[0] == 200
        conn.commit()
    assert db.value("SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'jobq' AND relname = 'jobs'") == before


# ---- unique jobs ----

UNIQUE = {"unique_key": "unique_key => 'u'", "unique_by": "unique_by => '{}'"}


@pytest.mark.parametrize("how", ["unique_key", "unique_by"])
@pytest.mark.parametrize("on_conflict", ["ignore", "raise", "replace"])
def test_one_that_has_expired_is_in_nobodys_way(db, how, on_conflict):
    """Whether or not the leader has swept it up: it will never run, so the new one would be lost."""
    old = db.value(f"SELECT jobq.enqueue('a', {UNIQUE[how]}, expires_at => now() - interval '1 s')")
    fields = ", replace => '[\"priority\"]'" if on_conflict == "replace" else ""
    new = db.query(f"SELECT * FROM jobq.try_enqueue('a', {UNIQUE[how]}, on_conflict => '{on_conflict}'{fields})")
    assert new == [(new[0][0], None)] and new[0][0] != old
    expect_expired(db, old)
    assert job(db, new[0][0])["state"] == "available"
    assert db.query(f"SELECT * FROM jobq.try_enqueue('a', {UNIQUE[how]})") == [(new[0][0], "ignored")]


@pytest.mark.parametrize("how", ["unique_key", "unique_by"])
def test_nor_in_that_of_many(db, how):
    unique = {"unique_key": {"unique_key": "u"}, "unique_by": {"unique_by": {"keys": ["n"]}}}[how]
    old = db.value("SELECT jobq.enqueue_many(%s::jsonb)",
                   [json.dumps([{"kind": "a", "expires_at": "2026-01-01T00:00:00Z", **unique}])])
    jobs = [{"kind": "b"}, {"kind": "a", **unique}, {"kind": "a", **unique}, {"kind": "c", "unique_key": "other"}]
    rows = db.query("SELECT * FROM jobq.try_enqueue_many(%s::jsonb)", [json.dumps(jobs)])
    assert [row[1] for row in rows] == [None, None, "ignored", None]
    assert rows[1][0] == rows[2][0] != old and len({row[0] for row in rows}) == 3
    expect_expired(db, old)
    assert job(db, rows[1][0])["state"] == "available"


def test_one_that_began_in_time_is_in_the_way_and_so_is_its_end_where_that_counts(db):
    old = db.value("SELECT jobq.enqueue('a', unique_key => 'u', expires_at => now() - interval '1 s')")
    db.query("UPDATE jobq.jobs SET attempt = 1, state = 'retryable', position = NULL WHERE id = %s", [old])
    assert db.query("SELECT * FROM jobq.try_enqueue('a', unique_key => 'u')") == [(old, "ignored")]
    by = "unique_by => '{\"states\": [\"available\", \"cancelled\"]}'"
    old = db.value(f"SELECT jobq.enqueue('b', {by}, expires_at => now() - interval '1 s')")
    assert db.query(f"SELECT * FROM jobq.try_enqueue('b', {by})") == [(old, "ignored")]
    expect_expired(db, old)


@pytest.mark.parametrize("how", ["unique_key", "unique_by"])
def test_many_at_once_find_one_that_has_expired(db, how):
    old = db.value(f"SELECT jobq.enqueue('a', {UNIQUE[how]}, expires_at => now() - interval '1 s')")
    answers = []

    def add():
        with db.connect() as conn:
            answers.append(conn.execute(f"SELECT * FROM jobq.try_enqueue('a', {UNIQUE[how]})").fetchone())
    threads = [threading.Thread(target=add) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    new = db.value("SELECT id FROM jobq.jobs")
    assert sorted(answers, key=str) == sorted([(new, None)] + [(new, "ignored")] * 15, key=str)
    expect_expired(db, old)
