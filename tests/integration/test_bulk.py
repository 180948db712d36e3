"""cancel_many, retry_many, delete_many, delete and purge: which jobs they act upon, what they refuse, and their races with
nodes that run these jobs, with each other and with single calls."""

import json
import signal
import threading

import psycopg
import pytest

from harness.waiting import wait_for

INVALID, NOT_FOUND = "22023", "P0002"
STATES = "scheduled, available, executing, retryable, suspended, completed, cancelled, discarded"
LATER = "2099-01-01T00:00:00Z"


def many(db, what, **filter):
    return db.value(f"SELECT jobq.{what}_many(%s::jsonb)", [json.dumps(filter)])


def fails_with(db, sqlstate, message, sql, params=None):
    with pytest.raises(psycopg.Error) as caught:
        db.query(sql, params)
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)


def claim(db, *jobs, node=1):
    """What a claim does to the rows; no node is there to run them."""
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = attempt + 1, attempted_at = now(), attempted_by = %s "
             "WHERE id = ANY (%s)", [node, list(jobs)])


def complete(db, *jobs):
    """Claims and completes them by hand."""
    claim(db, *jobs)
    for job in jobs:
        db.query("SELECT jobq.complete(%s, (SELECT attempt FROM jobq.jobs WHERE id = %s))", [job, job])


def ids(db, condition="true", table="all_jobs"):
    return [row[0] for row in db.query(f"SELECT id FROM jobq.{table} WHERE {condition} ORDER BY id")]


# ---- the filter ----

FAULTS = [
    ("null", "filter must be a JSON object, got null"),
    ("[]", "filter must be a JSON object, got []"),
    ("{}", 'filter must have a condition, or "all": true for every job, got {}'),
    ('{"limit": 5}', 'filter must have a condition, or "all": true for every job, got {"limit": 5}'),
    ('{"all": false}', "filter.all must be true, got false"),
    ('{"all": 1}', "filter.all must be true, got 1"),
    ('{"ids": 7}', "filter.ids must be an array of job ids, got 7"),
    ('{"ids": [1, "2"]}', 'filter.ids must be an array of job ids, got [1, "2"]'),
    ('{"ids": [0]}', "filter.ids must be an array of job ids, got [0]"),
    ('{"ids": [1.5]}', "filter.ids must be an array of job ids, got [1.5]"),
    ('{"ids": [9223372036854775808]}', "filter.ids must be an array of job ids, got [9223372036854775808]"),
    ('{"ids": null}', "filter.ids must be an array of job ids, got null"),
    ('{"state": "done"}', f'filter.state must be a state or an array of states ({STATES}), got "done"'),
    ('{"state": ["completed", "done"]}',
     f'filter.state must be a state or an array of states ({STATES}), got ["completed", "done"]'),
    ('{"state": 1}', f"filter.state must be a state or an array of states ({STATES}), got 1"),
    ('{"queue": 1}', "filter.queue must be a text or an array of texts, got 1"),
    ('{"queue": ["a", null]}', 'filter.queue must be a text or an array of texts, got ["a", null]'),
    ('{"kind": {}}', "filter.kind must be a text or an array of texts, got {}"),
    ('{"tags": "a"}', 'filter.tags must be an array of one or more texts, got "a"'),
    ('{"tags": []}', "filter.tags must be an array of one or more texts, got []"),
    ('{"tags": [1]}', "filter.tags must be an array of one or more texts, got [1]"),
    ('{"key": 5}', "filter.key must be a text, got 5"),
    ('{"key": null}', "filter.key must be a text, got null"),
    ('{"args": {}}', "filter.args must be a JSON object with at least one member, got {}"),
    ('{"args": [1]}', "filter.args must be a JSON object with at least one member, got [1]"),
    ('{"meta": "m"}', 'filter.meta must be a JSON object with at least one member, got "m"'),
    ('{"priority": 10}', "filter.priority must be 0 to 9 or an array of such numbers, got 10"),
    ('{"priority": [1, -1]}', "filter.priority must be 0 to 9 or an array of such numbers, got [1, -1]"),
    ('{"priority": "1"}', 'filter.priority must be 0 to 9 or an array of such numbers, got "1"'),
    ('{"inserted_before": "yesterdayish"}',
     'filter.inserted_before must be a time such as "2026-01-31T12:00:00Z", got "yesterdayish"'),
    ('{"inserted_before": "2026-02-03T00:00:00+99"}',
     'filter.inserted_before must be a time such as "2026-01-31T12:00:00Z", got "2026-02-03T00:00:00+99"'),
    ('{"inserted_after": 5}', 'filter.inserted_after must be a time such as "2026-01-31T12:00:00Z", got 5'),
    ('{"scheduled_before": "infinity"}',
     'filter.scheduled_before must be a time such as "2026-01-31T12:00:00Z", got "infinity"'),
    ('{"scheduled_after": "2026-02-30"}',
     'filter.scheduled_after must be a time such as "2026-01-31T12:00:00Z", got "2026-02-30"'),
    ('{"finished_before": null}', 'filter.finished_before must be a time such as "2026-01-31T12:00:00Z", got null'),
    ('{"finished_after": []}', 'filter.finished_after must be a time such as "2026-01-31T12:00:00Z", got []'),
    ('{"all": true, "limit": 0}', "filter.limit must be 1 to 2147483647, got 0"),
    ('{"all": true, "limit": "5"}', 'filter.limit must be 1 to 2147483647, got "5"'),
    ('{"all": true, "limit": [5]}', "filter.limit must be 1 to 2147483647, got [5]"),
    ('{"que": "mail"}', 'filter has an unknown member "que": allowed are all, ids, state, queue, kind, tags, key, args, meta, '
     "priority, inserted_before, inserted_after, scheduled_before, scheduled_after, finished_before, finished_after and limit"),
    ('{"args": "%s"}' % ("x" * 200), 'filter.args must be a JSON object with at least one member, got "' + "x" * 59 +
     "... (202 bytes)"),
]


@pytest.mark.parametrize("filter,message", FAULTS, ids=[m[:60] for _, m in FAULTS])
def test_a_filter_is_refused(db, filter, message):
    db.enqueue("a")
    for what in ("cancel_many", "retry_many", "delete_many"):
        fails_with(db, INVALID, f"jobq.{what}: {message}", f"SELECT jobq.{what}(%s::jsonb)", [filter])
    assert db.states() == {"available": 1}


def test_null_is_refused(db):
    for what in ("cancel_many", "retry_many", "delete_many"):
        fails_with(db, INVALID, f"jobq.{what}: filter must be a JSON object, got null", f"SELECT jobq.{what}(NULL)")


FILTERS = [
    ({"all": True}, "abcdef"),
    ({"kind": "k1"}, "ac"),
    ({"kind": ["k1", "k2"]}, "abc"),
    ({"kind": []}, ""),
    ({"queue": "q'uote"}, "d"),
    ({"queue": ["q'uote", "other"]}, "de"),
    ({"tags": ["x"]}, "ab"),
    ({"tags": ["x", "y"]}, "b"),
    ({"key": "k\\ey"}, "c"),
    ({"args": {"user": 7}}, "ab"),
    ({"args": {"user": 7, "deep": {"b": 1}}}, "b"),
    ({"args": {"text": "100%s"}}, "c"),
    ({"meta": {"m": [1]}}, "d"),
    ({"priority": 3}, "e"),
    ({"priority": [3, 0]}, "abcde"),
    ({"state": "scheduled"}, "f"),
    ({"state": ["scheduled", "available"]}, "abcdef"),
    ({"state": "completed"}, ""),
    ({"scheduled_after": "2098-01-01T00:00:00Z"}, "f"),
    ({"scheduled_before": "2098-01-01T00:00:00Z"}, "abcde"),
    ({"inserted_before": "2098-01-01T00:00:00Z"}, "abcdef"),
    ({"inserted_after": "2098-01-01T00:00:00Z"}, ""),
    ({"finished_after": "2000-01-01T00:00:00Z"}, ""),
    ({"all": True, "limit": 2}, "ab"),
    ({"kind": "k1", "tags": ["x"]}, "a"),
    ({"ids": []}, ""),
]


def six_jobs(db):
    return {name: db.enqueue(**options) for name, options in {
        "a": {"kind": "k1", "args": '{"user": 7}', "tags": ["x"]},
        "b": {"kind": "k2", "args": '{"user": 7, "deep": {"a": 0, "b": 1}}', "tags": ["y", "z", "x"]},
        "c": {"kind": "k1", "args": '{"text": "100%s"}', "key": "k\\ey"},
        "d": {"kind": "k3", "queue": "q'uote", "meta": '{"m": [1, 2]}'},
        "e": {"kind": "k3", "queue": "other", "priority": 3},
        "f": {"kind": "k3", "priority": 9, "scheduled_at": LATER}}.items()}


@pytest.mark.parametrize("filter,names", FILTERS, ids=[json.dumps(f)[:60] for f, _ in FILTERS])
def test_which_live_jobs_a_filter_names(db, filter, names):
    jobs = six_jobs(db)
    assert many(db, "cancel", **filter) == len(names)
    assert ids(db, "state = 'cancelled'") == [jobs[name] for name in names]


ENDED_FILTERS = [(f, n) for f, n in FILTERS if not {"state", "finished_after"} & set(f)] + [
    ({"state": "completed"}, "ace"),
    ({"state": ["discarded", "cancelled"]}, "bdf"),
    ({"finished_before": "2000-01-02T00:00:00Z"}, "a"),
    ({"finished_after": "2000-01-02T00:00:00Z"}, "bcdef"),
]


@pytest.mark.parametrize("what", ["retry", "delete"])
@pytest.mark.parametrize("filter,names", ENDED_FILTERS, ids=[json.dumps(f)[:60] for f, _ in ENDED_FILTERS])
def test_which_ended_jobs_a_filter_names(db, filter, names, what):
    jobs = six_jobs(db)
    db.query("UPDATE jobq.jobs SET position = jobq._next_position(), state = 'available' WHERE position IS NULL")
    complete(db, jobs["a"], jobs["c"], jobs["e"])
    many(db, "cancel", all=True)
    db.query("UPDATE jobq.finished_jobs SET finished_at = '2000-01-01T12:00:00Z' WHERE id = %s", [jobs["a"]])
    assert sorted(ids(db, table="finished_jobs")) == sorted(jobs.values())
    assert many(db, what, **filter) == len(names)
    assert ids(db, table="finished_jobs") == [jobs[name] for name in "abcdef" if name not in names]
    assert ids(db, table="jobs") == ([jobs[name] for name in names] if what == "retry" else [])


def test_ids_of_live_and_ended_jobs(db):
    jobs = [db.enqueue("a") for _ in range(6)]
    complete(db, *jobs[:3])
    assert many(db, "delete", ids=[jobs[0], jobs[2], jobs[4], 999999]) == 3
    assert ids(db) == [jobs[1], jobs[3], jobs[5]]


@pytest.mark.parametrize("what", ["retry", "delete"])
def test_a_limit_counts_live_and_ended_jobs_by_their_ids(db, what):
    jobs = [db.enqueue("a", scheduled_at=LATER) for _ in range(6)]
    db.query("UPDATE jobq.jobs SET position = jobq._next_position(), state = 'available' WHERE id = ANY (%s)", [jobs[0::2]])
    complete(db, *jobs[0::2])
    assert many(db, what, all=True, limit=3) == 3
    if what == "delete":
        assert ids(db) == jobs[3:]
    else:
        assert ids(db, "state = 'available'") == jobs[:3] and ids(db, "state IN ('completed', 'scheduled')") == jobs[3:]


# ---- what each of them does ----

def states_of_all(db):
    """A job of each state, by its state."""
    jobs = {state: db.enqueue("a") for state in ("available", "executing", "retryable", "suspended", "completed", "discarded",
                                                 "cancelled")}
    jobs["scheduled"] = db.enqueue("a", scheduled_at=LATER)
    claim(db, jobs["executing"])
    db.query("UPDATE jobq.jobs SET state = 'retryable', position = NULL, attempt = 1 WHERE id = %s", [jobs["retryable"]])
    db.query("UPDATE jobq.jobs SET state = 'suspended', position = NULL WHERE id = %s", [jobs["suspended"]])
    complete(db, jobs["completed"])
    many(db, "cancel", ids=[jobs["discarded"], jobs["cancelled"]])
    db.query("UPDATE jobq.finished_jobs SET state = 'discarded' WHERE id = %s", [jobs["discarded"]])
    return jobs


def now_states(db, jobs):
    found = dict(db.query("SELECT id, state::text FROM jobq.all_jobs"))
    return {was: found.get(job) for was, job in jobs.items()}


def test_cancel_many_ends_what_waits_and_asks_what_runs(db):
    jobs = states_of_all(db)
    assert many(db, "cancel", all=True) == 5
    assert now_states(db, jobs) == {
        "available": "cancelled", "retryable": "cancelled", "suspended": "cancelled", "scheduled": "cancelled",
        "executing": "executing", "completed": "completed", "discarded": "discarded", "cancelled": "cancelled"}
    assert db.query("SELECT job_id, attempt, node_id, forget FROM jobq._cancels") == [(jobs["executing"], 1, 1, False)]
    assert many(db, "cancel", all=True) == 1, "who is asked again counts again"
    assert db.value("SELECT count(*) FROM jobq._cancels") == 1


def test_cancel_many_leaves_the_same_record_as_cancel(db):
    one, two = (db.enqueue("k", '{"a": 1}', queue="q", priority=4, key="key", unique_key=f"u{n}", tags=["t"],
                           meta='{"m": 1}', timeout_ms=5) for n in range(2))
    db.query("SELECT jobq.cancel(%s)", [one])
    many(db, "cancel", ids=[two])
    sql = "SELECT to_jsonb(j) - '{id,unique_key,inserted_at,scheduled_at,finished_at}'::text[] FROM jobq.finished_jobs j WHERE id = %s"
    assert db.value(sql, [one]) == db.value(sql, [two])


def test_retry_many_makes_available_what_ended_or_waits_for_its_time(db):
    jobs = states_of_all(db)
    before = db.value("SELECT max(position) FROM jobq.jobs")
    assert many(db, "retry", all=True) == 5
    assert now_states(db, jobs) == {
        "available": "available", "retryable": "available", "suspended": "suspended", "scheduled": "available",
        "executing": "executing", "completed": "available", "discarded": "available", "cancelled": "available"}
    again = ids(db, f"position > {before}", "jobs")
    assert again == sorted(jobs[s] for s in ("retryable", "scheduled", "completed", "discarded", "cancelled"))
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE scheduled_at > now()") == 0


def test_retry_many_leaves_the_same_job_as_retry(db):
    options = dict(queue="q", priority=4, key="key", tags=["t"], meta='{"m": 1}', timeout_ms=5, max_attempts=1)
    one, two = (db.enqueue("k", '{"a": 1}', unique_key=f"u{n}", **options) for n in range(2))
    complete(db, one, two)
    db.query("SELECT jobq.retry(%s)", [one])
    many(db, "retry", ids=[two])
    sql = "SELECT to_jsonb(j) - '{id,unique_key,inserted_at,scheduled_at,attempted_at,position}'::text[] FROM jobq.jobs j WHERE id = %s"
    assert db.value(sql, [one]) == db.value(sql, [two])
    assert db.value("SELECT max_attempts FROM jobq.jobs WHERE id = %s", [two]) == 2
    assert db.value("SELECT retried_attempt FROM jobq.jobs WHERE id = %s", [two]) == 1


def test_retry_many_passes_over_what_retry_refuses(db):
    used_up, held, twin, free = db.enqueue("a"), db.enqueue("a", unique_key="u"), None, db.enqueue("a", unique_key="v")
    complete(db, used_up, held, free)
    twin = db.enqueue("a", unique_key="v")
    complete(db, twin)
    db.query("UPDATE jobq.finished_jobs SET attempt = 1000 WHERE id = %s", [used_up])
    holder = db.enqueue("a", unique_key="u")
    assert many(db, "retry", all=True) == 1, "the first of the two with the key v"
    assert ids(db, table="jobs") == [free, holder]
    assert ids(db, table="finished_jobs") == [used_up, held, twin]


def test_retry_many_forgets_an_expiry_that_has_passed_and_old_requests(db):
    job = db.enqueue("a")
    db.query("UPDATE jobq.jobs SET expires_at = now() - interval '1 hour' WHERE id = %s", [job])
    many(db, "cancel", all=True)
    db.query("INSERT INTO jobq._cancels (job_id, attempt, node_id) VALUES (%s, 1, 1)", [job])
    assert many(db, "retry", all=True) == 1
    assert db.query("SELECT expires_at FROM jobq.jobs") == [(None,)]
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_retry_many_from_a_partition_whose_columns_stand_otherwise(db):
    """As one does that an operator has attached."""
    db.query("DO $$ BEGIN EXECUTE (SELECT format('CREATE TABLE jobq.older (%s)', string_agg(format('%I %s%s', attname, "
             "format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' END), ', ' ORDER BY attnum DESC)) "
             "FROM pg_attribute WHERE attrelid = 'jobq._finished_completed'::regclass AND attnum > 0 AND NOT attisdropped); END $$")
    db.query("ALTER TABLE jobq._finished_completed ATTACH PARTITION jobq.older FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')")
    job = db.enqueue("kind", '{"n": 1}', queue="queue")
    complete(db, job)
    before = db.query("SELECT kind, queue, args, inserted_at, attempted_at FROM jobq.finished_jobs")
    db.query("UPDATE jobq.finished_jobs SET finished_at = '2001-06-01'")
    assert db.value("SELECT count(*) FROM jobq.older") == 1
    assert many(db, "retry", ids=[job]) == 1
    assert db.query("SELECT kind, queue, args, inserted_at, attempted_at FROM jobq.jobs") == before


def test_retry_many_wakes_who_waits(db, jobqd, programs):
    jobs = [db.enqueue("noop") for _ in range(3)]
    many(db, "cancel", all=True)
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle"), what="the node to be idle")
    assert many(db, "retry", state="cancelled") == len(jobs)
    db.wait_for_states({"completed": 3})


def test_delete_many_leaves_no_trace(db):
    jobs = states_of_all(db)
    assert many(db, "delete", all=True) == 8
    assert ids(db) == [jobs["executing"]]
    assert db.query("SELECT job_id, attempt, node_id, forget FROM jobq._cancels") == [(jobs["executing"], 1, 1, True)]


def test_delete_one(db):
    waits, runs, ended = db.enqueue("a"), db.enqueue("a"), db.enqueue("a")
    claim(db, runs)
    complete(db, ended)
    assert db.value("SELECT jobq.delete(%s)", [waits]) is True
    assert db.value("SELECT jobq.delete(%s)", [ended]) is True
    assert db.value("SELECT jobq.delete(%s)", [runs]) is False
    assert ids(db) == [runs]
    fails_with(db, NOT_FOUND, f"jobq.delete: no job has the id {waits}", "SELECT jobq.delete(%s)", [waits])
    fails_with(db, INVALID, "jobq.delete: id must be a job's id, got null", "SELECT jobq.delete(NULL)")


# ---- jobs that run ----

HOUR = '{"ms": 3600000}'


@pytest.mark.parametrize("what,left", [("cancel", "cancelled"), ("delete", None)])
def test_running_and_waiting_jobs_of_a_node(db, jobqd, programs, what, left):
    """Two run, more wait in the node's memory, more yet in the table."""
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 50}})
    jobs = [db.enqueue("sleep", HOUR) for _ in range(300)]
    wait_for(lambda: db.states().get("executing", 0) >= 100, what="jobs to be claimed")
    assert many(db, what, kind="sleep") == 300
    wait_for(lambda: not ids(db, table="jobs"), what=lambda: f"all to end: {db.states()}")
    assert db.states() == ({left: 300} if left else {})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._cancels") == 0, what="the requests to be cleaned up")
    assert db.states() == ({left: 300} if left else {}) and len(jobs) == 300


def test_a_deleted_job_that_completes_first_is_forgotten_all_the_same(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1}}, lease="2s")
    job = db.enqueue("late_ok")
    wait_for(lambda: db.value("SELECT state = 'executing' FROM jobq.jobs WHERE id = %s", [job]), what="it to run")
    assert db.value("SELECT jobq.delete(%s)", [job]) is False
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._cancels") == 0, what="the request to be cleaned up")
    assert db.states() == {}


def test_a_request_that_came_too_late_deletes_what_has_ended(db):
    """The job ends while the transaction that deletes it is still open."""
    job = db.enqueue("a")
    claim(db, job)
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT jobq.delete(%s)", [job]).fetchone() == (False,)
        db.query("SELECT jobq.complete(%s, 1)", [job])
        conn.commit()
    assert ids(db) == [job]
    db.query("SELECT jobq._cancel_again()")
    assert ids(db) == [] and db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_a_request_that_came_too_late_deletes_what_waits_again(db):
    job = db.enqueue("a")
    claim(db, job)
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT jobq.delete_many('{\"all\": true}')").fetchone() == (1,)
        db.query("UPDATE jobq.jobs SET state = 'retryable', position = NULL")
        conn.commit()
    assert db.value("SELECT jobq._cancel_again()") == 1
    assert ids(db) == [] and db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_an_attempt_that_ends_after_it_was_asked_for(db):
    """Housekeeping ends what waits again."""
    jobs = [db.enqueue("a") for _ in range(2)]
    claim(db, *jobs)
    for forget, job in zip((False, True), jobs):
        assert db.value("SELECT jobq._bulk_ask(%s, 'true', %s)", [forget, jobs]) == jobs
    db.query("UPDATE jobq.jobs SET state = 'retryable', position = NULL")
    assert db.value("SELECT jobq._bulk_ask(false, 'true', %s)", [jobs]) == []
    db.query("DELETE FROM jobq._cancels WHERE job_id = %s AND forget", [jobs[0]])
    assert db.value("SELECT jobq._cancel_again()") == 2
    assert ids(db) == ids(db, "state = 'cancelled'") == jobs[:1] and db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_a_delete_that_the_database_refuses_is_none(db, cli):
    job = db.enqueue("a", scheduled_at="2100-01-01")
    db.query(f"CREATE TABLE exports (job_id bigint REFERENCES jobq.jobs (id)); INSERT INTO exports VALUES ({job})")
    said = cli("delete", job, "--yes", db=db, code=65)
    assert said.stdout == ""
    assert f"job {job}: the database refused to delete it now; jobqd will try again, and until then the job may run (it is scheduled)" in said.stderr
    assert "exports" in said.stderr
    assert ids(db) == [job]


def test_a_delete_after_a_cancel_is_heard_too(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 1, "stop_grace": "60s"}}, lease="2s")
    job = db.enqueue("hang")
    wait_for(lambda: db.value("SELECT state = 'executing' FROM jobq.jobs WHERE id = %s", [job]), what="it to run")
    db.query("SELECT jobq.cancel(%s)", [job])
    assert db.value("SELECT jobq.delete(%s)", [job]) is False
    wait_for(lambda: db.query("SELECT forget FROM jobq._cancels") == [(True,)], what="one request that says both")
    node.stop_at_once()
    assert db.states() == {}, "it was given back, and ended"


def test_the_requests_row_is_not_locked_by_a_delete(db):
    """Whoever settles the job takes the row away, and must not wait for the client's transaction."""
    job = db.enqueue("a")
    claim(db, job)
    db.query("SELECT jobq.cancel(%s)", [job])
    with db.connect(autocommit=False) as conn, db.connect() as other:
        conn.execute("SELECT jobq.delete(%s)", [job])
        other.execute("SET lock_timeout = '5s'")
        assert other.execute("DELETE FROM jobq._cancels WHERE job_id = %s RETURNING forget", [job]).fetchall() == [(False,)]
        conn.commit()
    assert db.query("SELECT node_id < 0, forget FROM jobq._cancels") == [(True, True)]
    db.query("SELECT jobq.complete(%s, 1)", [job])
    db.query("SELECT jobq._cancel_again()")
    assert ids(db) == []


def test_no_running_job_is_locked(db):
    """Its ack would wait for the client's transaction."""
    running, waiting = db.enqueue("a"), db.enqueue("a")
    claim(db, running)
    for what in ("cancel", "delete"):
        with db.connect(autocommit=False) as conn, db.connect(autocommit=False) as other:
            conn.execute(f"SELECT jobq.{what}_many('{{\"all\": true}}')")
            assert other.execute("SELECT id FROM jobq.jobs FOR UPDATE SKIP LOCKED").fetchall() == [(running,)]
            conn.rollback()
    assert ids(db, table="jobs") == [running, waiting]


def in_background(conn, sql):
    """The thread, and where it leaves its row or its error's sqlstate and message."""
    came = []

    def run():
        try:
            came.append(conn.execute(sql).fetchone()[0])
        except psycopg.Error as error:
            came.extend((error.sqlstate, error.diag.message_primary))
    thread = threading.Thread(target=run)
    thread.start()
    return thread, came


def wait_until(db, conn, what):
    """PgSleep: it looks again and again; Lock: it waits."""
    column = "wait_event" if what == "PgSleep" else "wait_event_type"
    pid = conn.info.backend_pid
    wait_for(lambda: db.value(f"SELECT {column} = %s FROM pg_stat_activity WHERE pid = %s", [what, pid]), what=what)


def test_a_claim_in_flight_is_waited_for_and_its_job_not_kept_locked(db):
    """The job is then asked about, and free to be acked."""
    first, second = db.enqueue("a"), db.enqueue("a")
    with db.connect(autocommit=False) as claimer, db.connect(autocommit=False) as conn:
        claimer.execute("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1 WHERE id = %s", [second])
        thread, came = in_background(conn, "SELECT jobq.cancel_many('{\"all\": true}')")
        wait_until(db, conn, "PgSleep")
        claimer.commit()
        thread.join()
        assert came == [2]
        with db.connect(autocommit=False) as other:
            assert other.execute("SELECT id FROM jobq.jobs WHERE id = %s FOR UPDATE SKIP LOCKED", [second]).fetchall() == [(second,)]
        conn.commit()
    assert ids(db, "state = 'cancelled'") == [first]
    assert db.value("SELECT jobq._cancel_again()") == 1
    assert db.query("SELECT job_id, attempt, node_id FROM jobq._cancels") == [(second, 1, 1)]


@pytest.mark.parametrize("what", ["cancel", "delete", "retry"])
def test_what_does_not_match_any_more_when_its_lock_is_gone_is_left_alone(db, what):
    first, second = (db.enqueue("a", scheduled_at=LATER) for _ in range(2))
    with db.connect(autocommit=False) as owner, db.connect() as conn:
        owner.execute("SELECT jobq.retry(%s)", [second])
        thread, came = in_background(conn, f"SELECT jobq.{what}_many('{{\"state\": \"scheduled\"}}')")
        wait_until(db, conn, "PgSleep")
        owner.commit()
        thread.join()
    assert came == [1]
    db.query("SELECT jobq._cancel_again()")
    assert ids(db, "state = 'available'") == ([first, second] if what == "retry" else [second])


def test_one_that_is_just_being_retried_is_deleted_all_the_same(db):
    job = db.enqueue("a")
    db.query("SELECT jobq.cancel(%s)", [job])
    with db.connect(autocommit=False) as owner, db.connect() as conn:
        owner.execute("SELECT jobq.retry(%s)", [job])
        thread, came = in_background(conn, "SELECT jobq.delete_many('{\"kind\": \"a\"}')")
        wait_until(db, conn, "PgSleep")
        owner.commit()
        thread.join()
    assert came == [1] and ids(db) == []


CALLS = {"cancel": ("cancel_many('{\"all\": true}')", "available"), "delete": ("delete_many('{\"all\": true}')", "available"),
         "delete one": ("delete(2)", "available"), "purge": ("purge('{\"n\": 1}')", "available"),
         "retry": ("retry_many('{\"all\": true}')", "scheduled"), "delete ended": ("delete_many('{\"all\": true}')", "cancelled"),
         "retry ended": ("retry_many('{\"all\": true}')", "cancelled")}


@pytest.mark.parametrize("call,state", CALLS.values(), ids=CALLS)
def test_what_stays_locked_is_an_error(db, call, state):
    """And nothing was changed."""
    for _ in range(2):
        db.enqueue("a", '{"n": 1}', **({"scheduled_at": LATER} if state == "scheduled" else {}))
    if state == "cancelled":
        db.query("SELECT jobq.cancel(id) FROM jobq.jobs")
    before = db.query("SELECT * FROM jobq.all_jobs ORDER BY id")
    table = "finished_jobs" if state == "cancelled" else "jobs"
    with db.connect(autocommit=False) as owner, db.connect() as conn:
        owner.execute(f"SELECT FROM jobq.{table} WHERE id = 2 FOR UPDATE")
        conn.execute("SET lock_timeout = '300ms'")
        thread, came = in_background(conn, f"SELECT jobq.{call}")
        thread.join()
    one = "a job that has ended" if state == "cancelled" else "job 2"
    assert came == ["55P03", f"jobq: {one} has been locked by another session for more than 0.3 s; nothing was changed"]
    assert db.query("SELECT * FROM jobq.all_jobs ORDER BY id") == before
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


# ---- races ----

def run_threads(*targets):
    errors = []

    def guarded(target):
        def run():
            try:
                target()
            except Exception as error:  # noqa: BLE001
                errors.append(error)
        return run
    threads = [threading.Thread(target=guarded(target)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("what", ["cancel", "delete", "retry"])
def test_no_deadlock_with_enqueue_that_replaces(db, what):
    """Each has a row that the other one needs: the one of many gives up, in time."""
    later = "scheduled_at => now() + interval '1 day'"
    for key in ("b", "a"):
        db.query(f"SELECT jobq.enqueue('k', unique_key => '{key}', {later})")
    again = f"SELECT jobq.try_enqueue('k', unique_key => '%s', on_conflict => 'replace', replace => '[\"args\"]', {later})::text"
    with db.connect(autocommit=False) as owner, db.connect(autocommit=False) as conn:
        owner.execute(again % "a")
        conn.execute("SET lock_timeout = '4s'")  # deadlock_timeout is 1 s
        many_thread, many_came = in_background(conn, f"SELECT jobq.{what}_many('{{\"all\": true}}')")
        wait_until(db, conn, "PgSleep")
        thread, came = in_background(owner, again % "b")
        many_thread.join()
        conn.rollback()
        thread.join()
        owner.commit()
    assert many_came[0] == "55P03" and came == ["(1,replaced)"]


def test_no_deadlock_of_delete_many_and_retry_many(db):
    """Of a job that has ended, and a live one that has its unique key."""
    ended = db.value("SELECT jobq.enqueue('a', unique_key => 'u')")
    db.query("SELECT jobq.cancel(%s)", [ended])
    db.query("SELECT jobq.enqueue('a', unique_key => 'u')")
    last = db.enqueue("a")
    with db.connect(autocommit=False) as owner, db.connect() as deleter, db.connect() as retrier:
        owner.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [last])
        delete_thread, deleted = in_background(deleter, "SELECT jobq.delete_many('{\"kind\": \"a\"}')")
        wait_until(db, deleter, "PgSleep")
        retry_thread, retried = in_background(retrier, "SELECT jobq.retry_many('{\"state\": \"cancelled\"}')")
        wait_until(db, retrier, "PgSleep")
        owner.commit()
        delete_thread.join()
        retry_thread.join()
    assert (deleted, retried) == ([3], [0]) and ids(db) == []


def test_a_request_is_waited_for_with_nothing_in_hand(db):
    """Another session is about to cancel the one that runs."""
    runs, waits = db.enqueue("a"), db.value("SELECT jobq.enqueue('a', unique_key => 'u')")
    claim(db, runs)
    with db.connect(autocommit=False) as owner, db.connect() as conn:
        owner.execute("SELECT jobq.cancel(%s)", [runs])
        thread, came = in_background(conn, "SELECT jobq.cancel_many('{\"all\": true}')")
        wait_until(db, conn, "Lock")
        assert db.query("SELECT id FROM jobq.jobs WHERE id = %s FOR UPDATE NOWAIT", [waits]) == [(waits,)]
        owner.commit()
        thread.join()
    assert came == [2] and ids(db, table="jobs") == [runs]


# ---- housekeeping waits for nobody ----

def test_requests_of_jobs_that_are_locked_stay(db):
    locked, free = db.enqueue("a"), db.enqueue("a")
    for forget, n in ((False, 1), (True, 2)):
        claim(db, locked, free)
        db.value("SELECT jobq._bulk_ask(%s, 'true', %s)", [forget, [locked, free]])
        db.query("UPDATE jobq.jobs SET state = 'available', position = nextval('jobq.jobs_position_seq') WHERE state = 'executing'")
        requests = db.query("SELECT ctid::text, * FROM jobq._cancels WHERE job_id = %s", [locked])
        with db.connect(autocommit=False) as owner:
            owner.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [locked])
            assert db.value("SELECT jobq._cancel_again()") == 1
            assert ids(db, table="jobs") == [locked]
            assert db.value("SELECT jobq._cancel_again()") == 0
            assert db.query("SELECT ctid::text, * FROM jobq._cancels") == requests
        assert db.value("SELECT jobq._cancel_again()") == 1
        assert ids(db, table="jobs") == [] and db.value("SELECT count(*) FROM jobq._cancels") == 0
        assert len(ids(db)) == (0 if forget else 2)
        if not forget:
            many(db, "retry", all=True)


def test_a_job_that_has_ended_and_is_locked_is_forgotten_later(db):
    jobs = [db.enqueue("a") for _ in range(2)]
    claim(db, *jobs)
    many(db, "delete", all=True)
    for job in jobs:
        db.query("SELECT jobq.complete(%s, 1)", [job])
    with db.connect(autocommit=False) as owner:
        owner.execute("SELECT FROM jobq.finished_jobs WHERE id = %s FOR UPDATE", [jobs[0]])
        waits = db.enqueue("a")
        claim(db, waits)
        db.query("SELECT jobq.cancel(%s)", [waits])
        db.query("UPDATE jobq.jobs SET state = 'retryable', position = NULL")
        assert db.value("SELECT jobq._cancel_again()") == 1
        assert ids(db, "state = 'cancelled'") == [waits] and ids(db, "state = 'completed'") == jobs[:1]
        assert db.query("SELECT job_id FROM jobq._cancels") == [(jobs[0],)]
    db.query("SELECT jobq._cancel_again()")
    assert ids(db) == [waits] and db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_a_request_that_is_not_committed_is_not_waited_for(db):
    runs, waits = db.enqueue("a"), db.enqueue("a")
    claim(db, runs, waits)
    many(db, "cancel", all=True)
    db.query("UPDATE jobq.jobs SET attempt = 2 WHERE id = %s", [runs])
    db.query("UPDATE jobq.jobs SET state = 'retryable', position = NULL WHERE id = %s", [waits])
    with db.connect(autocommit=False) as owner:
        owner.execute("SELECT jobq.cancel(%s)", [runs])
        assert db.value("SELECT jobq._cancel_again()") == 1
        assert ids(db, "state = 'cancelled'") == [waits]
        owner.rollback()
    assert db.value("SELECT jobq._cancel_again()") == 1
    assert db.query("SELECT job_id, attempt FROM jobq._cancels") == [(runs, 2)]


def test_many_requests_that_came_too_late(db):
    """Not each one of them with each job of the history."""
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'a' FROM generate_series(1, 30000)")
    many(db, "cancel", all=True)
    db.query("INSERT INTO jobq._cancels (job_id, attempt, node_id, forget, requested_at) "
             "SELECT id, 0, 1, true, now() - interval '1 minute' FROM jobq.finished_jobs WHERE id % 3 > 0")
    with db.connect() as conn:
        conn.execute("SET statement_timeout = '30s'")
        while db.value("SELECT count(*) FROM jobq._cancels"):
            conn.execute("SELECT jobq._cancel_again()")
    assert len(ids(db)) == 10000


def test_retry_many_takes_unique_keys_in_the_order_of_enqueue_many(db):
    """Whatever their jobs' ids are and wherever they lie: else each would wait for a key of the other's."""
    first, second = (db.value("SELECT jobq.enqueue('k', unique_key => %s)", [key]) for key in ("b", "a"))
    complete(db, first)
    db.query("SELECT jobq.cancel(%s)", [second])
    done = []
    with db.connect(autocommit=False) as owner, db.connect() as conn:
        owner.execute("SELECT jobq.enqueue('k', unique_key => 'a')")
        thread = threading.Thread(target=lambda: done.append(
            conn.execute("SELECT jobq.retry_many('{\"all\": true}')").fetchone()[0]))
        thread.start()
        pid = conn.info.backend_pid
        wait_for(lambda: db.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [pid]))
        owner.execute("SET LOCAL lock_timeout = '20 s'")
        owner.execute("SELECT jobq.enqueue('k', unique_key => 'b')")
        owner.commit()
        thread.join()
    assert done == [0] and sorted(ids(db, table="finished_jobs")) == [first, second]


# What DateStyle makes of a time reads as another one, or none at all; IST is +02 for the server, and +05:30 in Kolkata.
STYLES = [("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "Asia/Kolkata"), ("German", "Australia/Sydney"), ("SQL, MDY", "UTC")]


@pytest.mark.parametrize("style,zone", STYLES, ids=[f"{s} {z}" for s, z in STYLES])
def test_times_whatever_the_datestyle(db, cli, style, zone):
    db.query("INSERT INTO jobq.jobs (kind, inserted_at) SELECT 'a', '2026-02-03T10:00:00Z'::timestamptz + n * interval '1 minute' "
             "FROM generate_series(0, 9) n")
    first = ids(db)[0]
    with db.connect() as conn:
        conn.execute(f"SET datestyle = '{style}'; SET timezone = '{zone}'")
        assert conn.execute("SELECT jobq.delete_many('{\"inserted_before\": \"2026-02-03T10:02:00Z\"}')").fetchone() == (2,)
        # As this session prints it, it means another moment elsewhere.
        mine = conn.execute("SELECT '2026-02-03T10:04:00Z'::timestamptz::text").fetchone()[0]
        with pytest.raises(psycopg.Error, match="must be a time"):
            conn.execute("SELECT jobq.delete_many(%s::jsonb)", [json.dumps({"inserted_before": mine})])
        assert ids(db)[0] == first + 2
        conn.execute("SELECT jobq.cancel_many('{\"all\": true}')")
    left = len(ids(db))
    db.query(f"ALTER DATABASE {db.name} SET datestyle = '{style}'")
    db.query(f"ALTER DATABASE {db.name} SET timezone = '{zone}'")
    assert cli("delete", "--older-than", "1h", "--yes", db=db).stdout.startswith(f"{left} jobs: deleted")
    # A request that came too late, and the newest of a queue.
    for n in range(3):
        job = db.enqueue("a")
        claim(db, job)
        db.query("SELECT jobq.delete(%s)", [job])
        db.query("DELETE FROM jobq._cancels WHERE job_id = %s AND %s <> 1", [job, n])
        db.query("SELECT jobq.complete(%s, 1)", [job])
    with db.connect() as conn:
        conn.execute("SELECT jobq._cancel_again()")
    kept = ids(db)
    assert len(kept) == 2
    with db.connect() as conn:
        assert conn.execute("SELECT id FROM jobq._newest_end('default', 2)").fetchone()[0] == kept[0]


@pytest.mark.parametrize("what", ["cancel", "delete"])
def test_against_a_node_that_runs_the_jobs(db, jobqd, programs, tmp_path, what):
    """3,000 jobs that note their start, while four connections cancel or delete them: each has run, or was ended, and
    none is left over."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 4}}, lease="2s")
    file = tmp_path / "started"
    node.signal(signal.SIGTSTP)
    node.wait_log("claims no more jobs")
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'ok', jsonb_build_object('file', %s::text, 'n', n) "
             "FROM generate_series(1, 3000) n", [str(file)])
    jobs = ids(db)
    acted = []

    def operator(number):
        def run():
            with db.connect() as conn:
                for low in range(number * 10, 3000, 40):
                    some = jobs[low:low + 30]
                    acted.append(conn.execute(f"SELECT jobq.{what}_many(%s::jsonb)",
                                              [json.dumps({"ids": some})]).fetchone()[0])
        return run

    def go():
        wait_for(lambda: len(acted) >= 4, what="the operators to begin")
        node.signal(signal.SIGCONT)
    run_threads(go, *(operator(number) for number in range(4)))
    wait_for(lambda: not ids(db, table="jobs") and db.value("SELECT count(*) FROM jobq._cancels") == 0,
             what=lambda: f"all to end: {db.states()}")
    started = {int(line.split()[1]) for line in file.read_text().splitlines()} if file.exists() else set()
    assert "deadlock" not in node.log() and "refused claims or answers" not in node.log()
    assert db.value("SELECT count(*) = count(DISTINCT id) FROM jobq.finished_jobs")
    if what == "cancel":
        assert sorted(ids(db)) == jobs
        assert set(ids(db, "state = 'completed'")) <= started
        assert set(ids(db, "state = 'cancelled' AND attempt = 0")).isdisjoint(started)
    else:
        wait_for(lambda: set(ids(db)) <= started, what="what was deleted to be gone")
    assert sum(acted) > 0


def test_against_a_node_that_crashes(db, jobqd, programs):
    """Workers die all the time, and the daemon once, while everything is deleted piece by piece: nothing is left."""
    queues = {"default": {"command": programs("fault_worker"), "concurrency": 4, "max_crashes": 0, "max_restarts": 1000,
                          "backoff": "constant(1ms)"}}
    first = jobqd(db, queues, lease="2s")
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT CASE WHEN n % 3 = 0 THEN 'segfault' ELSE 'ok' END, "
             "jsonb_build_object('n', n, 'times', 1) FROM generate_series(1, 600) n")
    jobs = ids(db)
    wait_for(lambda: db.states().get("completed", 0) > 20, what="some to be completed")
    for low in range(0, 300, 50):
        many(db, "delete", ids=jobs[low:low + 50])
    first.kill()
    for low in range(300, 600, 50):
        many(db, "delete", ids=jobs[low:low + 50])
    jobqd(db, queues, lease="2s")
    wait_for(lambda: db.states() == {}, what=lambda: f"nothing to be left: {db.states()}")
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


def test_bulk_operators_and_claims_do_not_deadlock(db):
    """Each with its own idea of the order; a claimer and single calls in between. What is left is told by the counts."""
    db.query("INSERT INTO jobq.jobs (kind, scheduled_at) SELECT 'a', CASE WHEN n % 2 = 0 THEN now() ELSE now() + interval '1 h' "
             "END FROM generate_series(1, 2000) n")
    stop = threading.Event()

    def operator(what, order):
        def run():
            with db.connect() as conn:
                for turn in range(12):
                    filter = {"ids": ids_of(conn, order)} if turn % 2 else {"kind": "a", "limit": 500}
                    conn.execute(f"SELECT jobq.{what}_many(%s::jsonb)", [json.dumps(filter)])
            stop.set()
        return run

    def ids_of(conn, order):
        return [row[0] for row in conn.execute(f"SELECT id FROM jobq.all_jobs ORDER BY id {order} LIMIT 700")]

    def claimer():
        with db.connect() as conn:
            while not stop.is_set():
                conn.execute("UPDATE jobq.jobs SET state = 'executing', attempt = attempt + 1, attempted_by = 1 WHERE id IN ("
                             "SELECT id FROM jobq.jobs WHERE state = 'available' ORDER BY position DESC LIMIT 20 "
                             "FOR UPDATE SKIP LOCKED)")
                conn.execute("UPDATE jobq.jobs SET state = 'retryable', position = NULL WHERE state = 'executing' AND id IN ("
                             "SELECT id FROM jobq.jobs WHERE state = 'executing' ORDER BY id DESC LIMIT 10 FOR UPDATE SKIP LOCKED)")
    run_threads(operator("cancel", "ASC"), operator("retry", "DESC"), operator("cancel", "DESC"), operator("retry", "ASC"),
                claimer)
    assert db.value("SELECT count(*) FROM jobq.all_jobs") == 2000
    assert db.value("SELECT count(DISTINCT id) FROM jobq.all_jobs") == 2000


def test_a_hundred_thousand_jobs_take_seconds(db):
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'a', jsonb_build_object('n', n) FROM generate_series(1, 100000) n")
    with db.connect() as conn:
        conn.execute("SET statement_timeout = '60s'")
        assert conn.execute("SELECT jobq.cancel_many('{\"kind\": \"a\"}')").fetchone() == (100000,)
        assert conn.execute("SELECT jobq.retry_many('{\"state\": \"cancelled\"}')").fetchone() == (100000,)
        assert conn.execute("SELECT jobq.delete_many('{\"all\": true, \"limit\": 50000}')").fetchone() == (50000,)
        every = json.dumps({"ids": [row[0] for row in conn.execute("SELECT id FROM jobq.jobs")]})
        assert conn.execute("SELECT jobq.delete_many(%s::jsonb)", [every]).fetchone() == (50000,)
    assert db.states() == {}


# ---- purge ----

PURGE_FAULTS = [("'{}'", "{}"), ("NULL", "null"), ("'[1]'", "[1]"), ("'7'", "7")]


@pytest.mark.parametrize("args,got", PURGE_FAULTS, ids=[g for _, g in PURGE_FAULTS])
def test_purge_refuses(db, args, got):
    fails_with(db, INVALID, f"jobq.purge: args must be a JSON object with at least one member, got {got}",
               f"SELECT jobq.purge({args})")


def test_purge_deletes_a_users_data_everywhere(db):
    of_user, of_other = '{"user": 7, "more": 1}', '{"user": 77}'
    live, other = db.enqueue("a", of_user), db.enqueue("a", of_other)
    ended, other_ended = db.enqueue("b", of_user), db.enqueue("b", of_other)
    runs = db.enqueue("a", of_user, queue="mail")
    complete(db, ended, other_ended)
    claim(db, runs)
    db.query("INSERT INTO jobq._progress VALUES (%s, 1, 0.5, 'user 7', now()), (%s, 1, 0.5, 'left over', now())", [runs, live])
    assert db.value("SELECT jobq.purge('{\"user\": 7}', kind => 'none')") == 0
    assert db.value("SELECT jobq.purge('{\"user\": 7}', queue => 'none')") == 0
    assert db.value("SELECT jobq.purge('{\"user\": 7}')") == 3
    assert ids(db) == sorted([other, other_ended, runs])
    assert db.query("SELECT job_id, forget FROM jobq._cancels") == [(runs, True)]
    db.query("SELECT jobq.complete(%s, 1), jobq._cancel_again(), jobq._sweep_progress()", [runs])
    db.query("SELECT jobq._cancel_again(), jobq._sweep_progress()")
    assert ids(db) == [other, other_ended]
    assert db.value("SELECT count(*) FROM jobq._progress") == 0


def test_purge_by_kind_and_queue(db):
    jobs = [db.enqueue(kind, '{"u": 1}', queue=queue) for kind in "ab" for queue in ("default", "mail")]
    assert db.value("SELECT jobq.purge('{\"u\": 1}', 'a', 'mail')") == 1
    assert ids(db) == [jobs[0], jobs[2], jobs[3]]
    assert db.value("SELECT jobq.purge('{\"u\": 1}', queue => 'mail')") == 1
    assert db.value("SELECT jobq.purge('{\"u\": 1}', 'b')") == 1


# ---- who may ----

def test_only_an_operator_may(db):
    with db.connect() as conn:
        for role, may in (("jobq_enqueuer", False), ("jobq_viewer", False), ("jobq_operator", True)):
            for call in ("cancel_many('{\"ids\": []}')", "retry_many('{\"ids\": []}')", "delete_many('{\"ids\": []}')",
                         "purge('{\"a\": 1}')"):
                conn.execute(f"SET ROLE {role}")
                try:
                    assert conn.execute(f"SELECT jobq.{call}").fetchone() == (0,) and may
                except psycopg.errors.InsufficientPrivilege:
                    assert not may
                conn.execute("RESET ROLE")
        for helper in ("_bulk_delete('x', '{\"all\": true}')", "_bulk_ended('delete', 'true', NULL, false)"):
            conn.execute("SET ROLE jobq_operator")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT jobq.{helper}")
            conn.execute("RESET ROLE")


# ---- the command line ----

def test_commands_by_what_jobs_are_like(cli, db):
    jobs = six_jobs(db)
    assert cli("cancel", "--kind", "k1", "--tags", "x", db=db).stdout == \
        "1 job: cancelled, or asked to stop if running\n"
    assert json.loads(cli("cancel", "--args", '{"user": 7}', "--json", db=db).stdout) == {"count": 1}
    assert cli("retry", "--kind", "k1", "--state", "completed", db=db).stdout == "0 jobs: available\n"
    assert cli("retry", "--all", db=db).stdout == "2 jobs: available\n"
    assert ids(db, "state = 'available'") == [jobs[name] for name in "abcde"]
    assert cli("delete", "--state", "scheduled,available", "--limit", "2", "--yes", db=db).stdout == \
        "2 jobs: deleted, or asked to stop if running and then deleted\n"
    assert ids(db) == [jobs[name] for name in "cdef"]
    assert json.loads(cli("delete", "--key", "k\\ey", "--older-than", "0s", "--yes", "--json", db=db).stdout) == {"count": 1}
    assert cli("delete", "--before", "2000-01-01T00:00:00Z", "--yes", db=db).stdout.startswith("0 jobs")
    assert cli("delete", "--queue", "q'uote", "--before", "2098-01-01T00:00:00Z", "--yes", db=db).stdout.startswith("1 job:")
    assert ids(db) == [jobs["e"], jobs["f"]]


def test_retry_by_options_leaves_completed_jobs_alone(cli, db):
    done, gone = db.enqueue("a"), db.enqueue("a")
    complete(db, done)
    many(db, "cancel", all=True)
    assert cli("retry", "--kind", "a", db=db).stdout == "1 job: available\n"
    assert ids(db, table="jobs") == [gone]
    assert cli("retry", "--kind", "a", "--state", "completed", db=db).stdout == "1 job: available\n"


def test_delete_by_ids(cli, db):
    first, second, runs = (db.enqueue("a") for _ in range(3))
    claim(db, runs)
    assert cli("delete", first, runs, db=db).stdout == (
        f"job {first}: deleted\njob {runs}: running; its node was asked to stop it, then it is deleted\n")
    assert json.loads(cli("delete", second, runs, "--json", db=db).stdout) == {"deleted": [second], "stopping": [runs]}
    assert cli("delete", first, db=db, code=66).stderr == f"jobqd delete: no job has the id {first}\n"


def test_purge_by_command(cli, db):
    keep, gone, ended = db.enqueue("a", '{"u": 8}'), db.enqueue("a", '{"u": 7}'), db.enqueue("b", '{"u": 7, "v": 1}')
    complete(db, ended)
    assert cli("purge", "--args", '{"u": 7}', "--kind", "b", "--yes", db=db).stdout.startswith("1 job:")
    assert json.loads(cli("purge", "--args", '{"u": 7}', "--yes", "--json", db=db).stdout) == {"count": 1}
    assert ids(db) == [keep] and gone


def test_jobs_takes_the_same_options(cli, db):
    jobs = six_jobs(db)

    def found(*options):
        return [job["id"] for job in json.loads(cli("jobs", *options, "--json", db=db).stdout)]
    assert found("--tags", "x,y") == [jobs["b"]]
    assert found("--args", '{"user": 7}') == [jobs["b"], jobs["a"]]
    assert found("--key", "k\\ey") == [jobs["c"]]
    assert found("--state", "scheduled,executing") == [jobs["f"]]
    assert found("--before", "2000-01-01T00:00:00Z") == []
    assert len(found("--older-than", "0s", "--limit", "4")) == 4


COMMAND_FAULTS = [
    (["cancel"], 64, "which jobs? Give ids, or options such as --queue, or --all for every job"),
    (["cancel", "--limit", "5"], 64, "which jobs? Give ids, or options such as --queue, or --all for every job"),
    (["cancel", "1", "--queue", "mail"], 64, "give either ids or options that select jobs, not both"),
    (["retry", "1", "--all"], 64, "give either ids or options that select jobs, not both"),
    (["delete", "--all"], 64, "deleting jobs that options select needs --yes; `jobqd jobs` lists them"),
    (["delete", "--queue", "mail"], 64, "deleting jobs that options select needs --yes; `jobqd jobs` lists them"),
    (["delete", "one"], 64, '"one" is not a job id: it must be a number, 1 or more'),
    (["cancel", "--state", "done,completed"], 65, f'--state: "done,completed" is not allowed: {STATES}'),
    (["cancel", "--args", "[1]"], 64, "--args must be a JSON object, got [1]"),
    (["cancel", "--args", "{ }"], 64, "--args: needs at least one member, got { }"),
    (["jobs", "--args", "{}"], 64, "--args: needs at least one member, got {}"),
    (["retry", "--tags", ""], 64, "--tags: needs at least one tag"),
    (["jobs", "--before", "soonish"], 65, '--before: "soonish" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["cancel", "--older-than", "5"], 64, None),
    (["cancel", "--older-than", "5m", "--before", "2026-01-01"], 64,
     "--before and --older-than exclude each other: give only one"),
    (["cancel", "--before", "soonish"], 65, '--before: "soonish" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["cancel", "--all", "--limit", "0"], 64, None),
    (["purge", "--yes"], 64, "--args is required: an object that the jobs' args contain"),
    (["purge", "--args", '{"u": 1}'], 64, "deleting jobs needs --yes; `jobqd jobs --args` lists them"),
    (["purge", "--args", "{}", "--yes"], 65, "args must be a JSON object with at least one member, got {}"),
]


def test_ids_in_json_are_numbers(cli, db):
    assert cli("delete", f"000{db.enqueue('a')}", "--json", db=db).stdout == '{"deleted":[1]}\n'


@pytest.mark.parametrize("words,code,message", COMMAND_FAULTS, ids=[" ".join(w)[:50] for w, _, _ in COMMAND_FAULTS])
def test_a_command_refuses(cli, db, words, code, message):
    db.enqueue("a")
    said = cli(*words, db=db, code=code).stderr
    assert said.startswith(f"jobqd {words[0]}: ") and (message is None or said == f"jobqd {words[0]}: {message}\n")
    assert db.states() == {"available": 1}
