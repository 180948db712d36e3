"""The SQL surface: enqueue, enqueue_many, plain INSERT, cancel, retry, complete, and who may call them."""

import json
import threading

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, UniqueViolation

from harness import schema
from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

BIG = '{"n": 123456789012345678, "f": 0.1}'
INVALID, NOT_FOUND, WRONG_STATE = "22023", "P0002", "55000"


def job(db, job_id):
    """The job's row in all_jobs as a dict."""
    with db.connect() as conn:
        row = conn.execute("SELECT to_jsonb(j) FROM jobq.all_jobs j WHERE id = %s", [job_id]).fetchone()
        return row[0] if row else None


def enqueue_many(db, jobs):
    text = jobs if isinstance(jobs, str) else json.dumps(jobs)
    return [row[0] for row in db.query("SELECT * FROM jobq.enqueue_many(%s::jsonb)", [text])]


def claim(db, job_id, attempt=1):
    """What a claim does to the row."""
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = %s, attempted_at = now(), attempted_by = 1 WHERE id = %s",
             [attempt, job_id])


def fails_with(db, sqlstate, message, sql, params=None):
    with pytest.raises(psycopg.Error) as caught:
        db.query(sql, params)
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)


# ---- enqueue ----

def test_enqueue_with_nothing_but_a_kind(db):
    row = job(db, db.value("SELECT jobq.enqueue('resize')"))
    assert (row["state"], row["queue"], row["args"], row["meta"], row["tags"]) == ("available", "default", {}, {}, [])
    assert (row["priority"], row["attempt"], row["max_attempts"], row["errors"]) == (0, 0, 20, [])
    assert row["position"] is not None and row["scheduled_at"] == row["inserted_at"]
    assert row["key"] is row["unique_key"] is row["timeout_ms"] is row["attempted_at"] is None


def test_enqueue_with_every_argument_by_name(db):
    job_id = db.enqueue("resize", '{"a": 1}', queue="mail", priority=9, max_attempts=3, key="k", unique_key="u",
                        tags=["x", "y"], meta='{"m": true}', timeout_ms=1500, scheduled_at="2099-01-02T03:04:05Z")
    row = job(db, job_id)
    assert (row["state"], row["position"]) == ("scheduled", None)
    assert {k: row[k] for k in ("kind", "args", "queue", "priority", "max_attempts", "key", "unique_key", "tags", "meta",
                                "timeout_ms")} == {
        "kind": "resize", "args": {"a": 1}, "queue": "mail", "priority": 9, "max_attempts": 3, "key": "k",
        "unique_key": "u", "tags": ["x", "y"], "meta": {"m": True}, "timeout_ms": 1500}
    assert db.value("SELECT scheduled_at = '2099-01-02T03:04:05Z' FROM jobq.jobs")


def test_the_arguments_come_in_the_promised_order(db):
    assert db.value("SELECT pg_get_function_arguments('jobq.enqueue'::regproc)") == (
        "kind text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT 'default'::text, priority integer DEFAULT 0, "
        "scheduled_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer, "
        "key text DEFAULT NULL::text, unique_key text DEFAULT NULL::text, tags text[] DEFAULT '{}'::text[], "
        "meta jsonb DEFAULT '{}'::jsonb, timeout_ms integer DEFAULT NULL::integer, unique_by jsonb DEFAULT NULL::jsonb, "
        "on_conflict text DEFAULT 'ignore'::text, replace jsonb DEFAULT NULL::jsonb, "
        "expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone")


def test_a_time_in_the_past_is_now(db):
    row = job(db, db.enqueue("a", scheduled_at="2001-01-01T00:00:00Z"))
    assert row["state"] == "available" and row["position"] is not None


def test_args_keep_their_bytes(db):
    job_id = db.enqueue("a", BIG)
    assert enqueue_many(db, '[{"kind": "a", "args": %s}]' % BIG) == [job_id + 1]
    db.query("INSERT INTO jobq.jobs (kind, args) VALUES ('a', %s::jsonb)", [BIG])
    texts = {row[0] for row in db.query("SELECT args::text FROM jobq.jobs")}
    assert texts == {'{"f": 0.1, "n": 123456789012345678}'}


def test_a_rolled_back_job_was_never_there(db):
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT jobq.enqueue('a')")
        conn.execute("SELECT * FROM jobq.enqueue_many('[{\"kind\": \"b\"}, {\"kind\": \"c\", \"unique_key\": \"u\"}]')")
        assert conn.execute("SELECT count(*) FROM jobq.jobs").fetchone()[0] == 3
        conn.rollback()
    assert db.states() == {}


X200 = "x" * 200
TEXT_200 = '"' + "x" * 59 + "... (200 bytes)"
ENQUEUE_FAULTS = [
    ("NULL", "kind must be text of 1 to 128 bytes, got null"),
    ("''", 'kind must be text of 1 to 128 bytes, got ""'),
    (f"'{X200}'", f"kind must be text of 1 to 128 bytes, got {TEXT_200}"),
    ("'a', NULL", "args must be a JSON object, got null"),
    ("'a', '[1]'", "args must be a JSON object, got [1]"),
    ("'a', '7'", "args must be a JSON object, got 7"),
    ("'a', 'null'", "args must be a JSON object, got null"),
    ("'a', queue => ''", 'queue must be text of 1 to 128 bytes, got ""'),
    ("'a', queue => NULL", "queue must be text of 1 to 128 bytes, got null"),
    (f"'a', queue => '{X200}'", f"queue must be text of 1 to 128 bytes, got {TEXT_200}"),
    ("'a', priority => 12", "priority must be 0 to 9, got 12"),
    ("'a', priority => -1", "priority must be 0 to 9, got -1"),
    ("'a', priority => NULL", "priority must be 0 to 9, got null"),
    ("'a', scheduled_at => 'infinity'", 'scheduled_at must be null or a finite time, got "infinity"'),
    ("'a', scheduled_at => '-infinity'", 'scheduled_at must be null or a finite time, got "-infinity"'),
    ("'a', max_attempts => 0", "max_attempts must be 1 to 1000, got 0"),
    ("'a', max_attempts => 1001", "max_attempts must be 1 to 1000, got 1001"),
    ("'a', key => ''", 'key must be null or text of 1 to 512 bytes, got ""'),
    ("'a', unique_key => ''", 'unique_key must be null or text of 1 to 512 bytes, got ""'),
    ("'a', unique_key => repeat('x', 513)",
     'unique_key must be null or text of 1 to 512 bytes, got "' + "x" * 59 + "... (513 bytes)"),
    ("'a', tags => NULL", "tags must be an array of texts without nulls, got null"),
    ("'a', tags => '{a,NULL}'", 'tags must be an array of texts without nulls, got ["a", null]'),
    ("'a', tags => '{{a},{b}}'", 'tags must be an array of texts without nulls, got [["a"], ["b"]]'),
    ("'a', meta => '\"m\"'", 'meta must be a JSON object, got "m"'),
    ("'a', meta => NULL", "meta must be a JSON object, got null"),
    ("'a', timeout_ms => 0", "timeout_ms must be null or 1 to 2147483647, got 0"),
    ("'a', timeout_ms => -5", "timeout_ms must be null or 1 to 2147483647, got -5"),
]


@pytest.mark.parametrize("arguments,message", ENQUEUE_FAULTS, ids=[m[:50] for _, m in ENQUEUE_FAULTS])
def test_enqueue_refuses(db, arguments, message):
    fails_with(db, INVALID, f"jobq.enqueue: {message}", f"SELECT jobq.enqueue({arguments})")
    assert db.states() == {}


# ---- enqueue_many ----

def test_enqueue_many_returns_ids_in_the_arrays_order(db):
    ids = enqueue_many(db, [{"kind": f"k{i}", "priority": i % 10} for i in range(1000)])
    assert len(ids) == 1000
    kinds = dict(db.query("SELECT id, kind FROM jobq.jobs"))
    assert [kinds[i] for i in ids] == [f"k{i}" for i in range(1000)]
    assert db.query("SELECT id FROM jobq.jobs ORDER BY position") == [(i,) for i in ids]


def test_enqueue_many_takes_every_argument(db):
    given = {"kind": "resize", "args": {"a": 1}, "queue": "mail", "priority": 9, "max_attempts": 3, "key": "k",
             "unique_key": "u", "tags": ["x", "y"], "meta": {"m": True}, "timeout_ms": 1500}
    row = job(db, enqueue_many(db, [{**given, "scheduled_at": "2099-01-02T03:04:05+00:00"}])[0])
    assert {k: row[k] for k in given} == given
    assert (row["state"], row["position"]) == ("scheduled", None)


def test_enqueue_many_takes_null_where_null_is_the_default(db):
    ids = enqueue_many(db, [{"kind": "a", "key": None, "unique_key": None, "timeout_ms": None, "scheduled_at": None}])
    assert job(db, ids[0])["state"] == "available"


def test_enqueue_many_of_nothing(db):
    assert enqueue_many(db, []) == []


def test_enqueue_many_takes_whole_numbers_however_written(db):
    row = job(db, enqueue_many(db, '[{"kind": "a", "priority": 3.0, "timeout_ms": 1.5e3}]')[0])
    assert (row["priority"], row["timeout_ms"]) == (3, 1500)


MANY_FAULTS = [
    ("null", "jobs must be a JSON array of objects, got null"),
    ('{"kind": "a"}', 'jobs must be a JSON array of objects, got {"kind": "a"}'),
    ("[5]", "jobs[0] must be a JSON object, got 5"),
    ('[{"kind": "a"}, [], {}]', "jobs[1] must be a JSON object, got []"),
    ('[{"kind": "a"}, {}]', "jobs[1].kind is missing"),
    ('[{"kind": null}]', "jobs[0].kind must be text of 1 to 128 bytes, got null"),
    ('[{"kind": 5}]', "jobs[0].kind must be text of 1 to 128 bytes, got 5"),
    (f'[{{"kind": "{X200}"}}]', f"jobs[0].kind must be text of 1 to 128 bytes, got {TEXT_200}"),
    ('[{"kind": "a", "prio": 1}]', 'jobs[0] has an unknown key "prio": allowed are kind, args, queue, priority, '
     "scheduled_at, max_attempts, key, unique_key, tags, meta, timeout_ms, unique_by, on_conflict, replace and expires_at"),
    ('[{"kind": "a", "args": [1]}]', "jobs[0].args must be a JSON object, got [1]"),
    ('[{"kind": "a", "args": null}]', "jobs[0].args must be a JSON object, got null"),
    ('[{"kind": "a", "queue": ""}]', 'jobs[0].queue must be text of 1 to 128 bytes, got ""'),
    ('[{"kind": "a", "queue": null}]', "jobs[0].queue must be text of 1 to 128 bytes, got null"),
    ('[{"kind": "a"}, {"kind": "a"}, {"kind": "a"}, {"kind": "a", "priority": 12}]',
     "jobs[3].priority must be 0 to 9, got 12"),
    ('[{"kind": "a", "priority": "3"}]', 'jobs[0].priority must be 0 to 9, got "3"'),
    ('[{"kind": "a", "priority": 1.5}]', "jobs[0].priority must be 0 to 9, got 1.5"),
    ('[{"kind": "a", "priority": 1e30}]', "jobs[0].priority must be 0 to 9, got 1" + "0" * 30),
    ('[{"kind": "a", "priority": null}]', "jobs[0].priority must be 0 to 9, got null"),
    ('[{"kind": "a", "max_attempts": 1001}]', "jobs[0].max_attempts must be 1 to 1000, got 1001"),
    ('[{"kind": "a", "scheduled_at": "2026-02-30"}]',
     'jobs[0].scheduled_at must be null or a finite time, got "2026-02-30"'),
    ('[{"kind": "a", "scheduled_at": "at noon, perhaps"}]',
     'jobs[0].scheduled_at must be null or a finite time, got "at noon, perhaps"'),
    ('[{"kind": "a", "scheduled_at": "infinity"}]',
     'jobs[0].scheduled_at must be null or a finite time, got "infinity"'),
    ('[{"kind": "a", "scheduled_at": 1700000000}]',
     "jobs[0].scheduled_at must be null or a finite time, got 1700000000"),
    ('[{"kind": "a", "unique_key": 7}]', "jobs[0].unique_key must be null or text of 1 to 512 bytes, got 7"),
    ('[{"kind": "a", "key": ""}]', 'jobs[0].key must be null or text of 1 to 512 bytes, got ""'),
    ('[{"kind": "a", "tags": "t"}]', 'jobs[0].tags must be an array of texts without nulls, got "t"'),
    ('[{"kind": "a", "tags": ["t", null]}]', 'jobs[0].tags must be an array of texts without nulls, got ["t", null]'),
    ('[{"kind": "a", "tags": [1]}]', "jobs[0].tags must be an array of texts without nulls, got [1]"),
    ('[{"kind": "a", "meta": 1}]', "jobs[0].meta must be a JSON object, got 1"),
    ('[{"kind": "a", "timeout_ms": 0}]', "jobs[0].timeout_ms must be null or 1 to 2147483647, got 0"),
    ('[{"kind": "a", "timeout_ms": 3000000000}]',
     "jobs[0].timeout_ms must be null or 1 to 2147483647, got 3000000000"),
]


@pytest.mark.parametrize("jobs,message", MANY_FAULTS, ids=[m[:50] for _, m in MANY_FAULTS])
def test_enqueue_many_refuses(db, jobs, message):
    fails_with(db, INVALID, f"jobq.enqueue_many: {message}", "SELECT * FROM jobq.enqueue_many(%s::jsonb)", [jobs])
    assert db.states() == {}


def test_enqueue_many_refuses_null(db):
    fails_with(db, INVALID, "jobq.enqueue_many: jobs must be a JSON array of objects, got null",
               "SELECT * FROM jobq.enqueue_many(NULL)")


# ---- unique keys ----

def test_a_unique_key_returns_the_live_job(db):
    first = db.enqueue("a", unique_key="u")
    assert db.enqueue("b", '{"other": 1}', unique_key="u") == first
    assert db.enqueue("b", unique_key="v") != first
    assert db.value("SELECT count(*) FROM jobq.jobs") == 2


def test_a_unique_key_is_free_again_when_its_job_has_ended(db):
    first = db.enqueue("a", unique_key="u")
    assert db.value("SELECT jobq.cancel(%s)", [first])
    assert db.enqueue("a", unique_key="u") != first


def test_unique_keys_in_enqueue_many(db):
    live = db.enqueue("a", unique_key="live")
    ids = enqueue_many(db, [{"kind": "z", "unique_key": "z"}, {"kind": "plain"}, {"kind": "b", "unique_key": "live"},
                            {"kind": "y", "unique_key": "a"}, {"kind": "z2", "unique_key": "z"}, {"kind": "plain"}])
    assert ids[2] == live and ids[4] == ids[0] and len(set(ids)) == 5
    kinds = dict(db.query("SELECT id, kind FROM jobq.jobs"))
    assert [kinds[i] for i in ids] == ["z", "plain", "a", "y", "z", "plain"]
    in_line = [row[0] for row in db.query("SELECT kind FROM jobq.jobs ORDER BY position")]
    assert in_line == ["a", "z", "plain", "y", "plain"]


def test_unique_keys_in_enqueue_many_with_a_schedule(db):
    ids = enqueue_many(db, [{"kind": "a", "unique_key": "u", "scheduled_at": "2099-01-01T00:00:00Z"}])
    assert (job(db, ids[0])["state"], job(db, ids[0])["position"]) == ("scheduled", None)


@pytest.mark.parametrize("many", [False, True], ids=["enqueue", "enqueue_many"])
def test_unique_keys_under_8_connections(db, many):
    """8 connections enqueue the same 50 keys, some with a job of that key ending under them: each answer names a job
    that has that key, and no key is live twice (the index would say so)."""
    keys = [f"k{i}" for i in range(50)]
    answers, errors = [], []
    barrier = threading.Barrier(9)

    def enqueuer(number):
        try:
            with db.connect() as conn:
                barrier.wait()
                order = keys[number:] + keys[:number]
                if many:
                    jobs = json.dumps([{"kind": "a", "unique_key": key} for key in order])
                    got = [row[0] for row in conn.execute("SELECT * FROM jobq.enqueue_many(%s::jsonb)", [jobs])]
                else:
                    got = [conn.execute("SELECT jobq.enqueue('a', unique_key => %s)", [key]).fetchone()[0] for key in order]
                answers.extend(zip(order, got))
        except Exception as error:
            errors.append(error)

    def ender():
        with db.connect() as conn:
            barrier.wait()
            for _ in range(30):
                conn.execute("SELECT jobq.cancel(id) FROM jobq.jobs WHERE unique_key IN ('k1', 'k2', 'k3')")

    threads = [threading.Thread(target=enqueuer, args=(n,)) for n in range(8)] + [threading.Thread(target=ender)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(answers) == 400
    key_of = dict(db.query("SELECT id, unique_key FROM jobq.all_jobs"))
    assert all(key_of[job_id] == key for key, job_id in answers)
    assert db.value("SELECT count(*) FROM jobq.jobs") <= 50
    for key in keys[4:]:
        assert len({job_id for k, job_id in answers if k == key}) == 1


def test_a_key_that_an_open_transaction_holds_is_waited_for(db):
    with db.connect(autocommit=False) as holder, db.connect() as waiter:
        held = holder.execute("SELECT jobq.enqueue('a', unique_key => 'u')").fetchone()[0]
        answer = []
        thread = threading.Thread(target=lambda: answer.append(
            waiter.execute("SELECT jobq.enqueue('b', unique_key => 'u')").fetchone()[0]))
        thread.start()
        wait_for(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s",
                                  [waiter.info.backend_pid]), what="the second enqueue to wait")
        holder.rollback()
        thread.join()
    assert answer[0] != held
    assert job(db, answer[0])["kind"] == "b"


# ---- plain INSERT ----

def test_a_plain_insert(db):
    db.query("INSERT INTO jobq.jobs (kind, args) VALUES ('a', '{\"n\": 1}'), ('b', '{}')")
    rows = db.query("SELECT kind, state::text, position IS NOT NULL, queue FROM jobq.jobs ORDER BY position")
    assert rows == [("a", "available", True, "default"), ("b", "available", True, "default")]


def test_a_plain_insert_for_later(db):
    db.query("INSERT INTO jobq.jobs (kind, scheduled_at) VALUES ('a', now() + interval '1 hour')")
    assert db.query("SELECT state::text, position FROM jobq.jobs") == [("scheduled", None)]


INSERT_FAULTS = [
    ("(kind, args) VALUES ('a', '[]')", INVALID, "jobq.jobs: args must be a JSON object, got []"),
    ("(kind, meta) VALUES ('a', '5')", INVALID, "jobq.jobs: meta must be a JSON object, got 5"),
    ("(kind, tags) VALUES ('a', '{x,NULL}')", INVALID,
     'jobq.jobs: tags must be an array of texts without nulls, got ["x", null]'),
    ("(kind, tags) VALUES ('a', '{{x},{y}}')", INVALID,
     'jobq.jobs: tags must be an array of texts without nulls, got [["x"], ["y"]]'),
    ("(kind, key) VALUES ('a', '')", INVALID, 'jobq.jobs: key must be null or text of 1 to 512 bytes, got ""'),
    ("(kind, unique_key) VALUES ('a', repeat('x', 9000))", INVALID,
     'jobq.jobs: unique_key must be null or text of 1 to 512 bytes, got "' + "x" * 59 + "... (9000 bytes)"),
    ("(kind, scheduled_at) VALUES ('a', 'infinity')", INVALID,
     'jobq.jobs: scheduled_at must be null or a finite time, got "infinity"'),
    ("(kind, state) VALUES ('a', 'executing')", INVALID,
     "jobq.jobs: state of a new job must be available, scheduled or suspended, got executing"),
    ("(args) VALUES ('{}')", "23502", 'null value in column "kind" of relation "jobs" violates not-null constraint'),
    ("(kind) VALUES ('')", "23514", 'new row for relation "jobs" violates check constraint "jobs_kind_is_1_to_128_bytes"'),
    ("(kind, priority) VALUES ('a', 10)", "23514",
     'new row for relation "jobs" violates check constraint "jobs_priority_is_0_to_9"'),
    ("(kind, max_attempts) VALUES ('a', 0)", "23514",
     'new row for relation "jobs" violates check constraint "jobs_max_attempts_is_1_to_1000"'),
    ("(kind, timeout_ms) VALUES ('a', 0)", "23514",
     'new row for relation "jobs" violates check constraint "jobs_timeout_ms_is_positive"'),
]


@pytest.mark.parametrize("rest,sqlstate,message", INSERT_FAULTS, ids=[m[:60] for _, _, m in INSERT_FAULTS])
def test_a_plain_insert_refuses(db, rest, sqlstate, message):
    fails_with(db, sqlstate, message, f"INSERT INTO jobq.jobs {rest}")


def test_a_plain_insert_of_a_live_unique_key_is_refused(db):
    db.enqueue("a", unique_key="u")
    with pytest.raises(UniqueViolation):
        db.query("INSERT INTO jobq.jobs (kind, unique_key) VALUES ('b', 'u')")


# ---- wake-ups ----

def heard(db, *statements, idle=()):
    """The payloads that the statements notify, each statement in a transaction of its own."""
    with db.connect() as listener, db.connect() as speaker:
        for queue in idle:
            speaker.execute("INSERT INTO jobq._idle (queue, node_id) VALUES (%s, 1), (%s, 2)", [queue, queue])
        listener.execute("LISTEN jobq")
        for statement in statements:
            speaker.execute(statement)
        # Behind everything that they notified.
        speaker.execute("NOTIFY jobq, 'end'")
        payloads = []
        for notification in listener.notifies():
            if notification.payload == "end":
                return payloads
            payloads.append(notification.payload)


INSERTS = ["SELECT jobq.enqueue('a')", "SELECT jobq.enqueue('a', queue => 'mail')",
           "SELECT * FROM jobq.enqueue_many('[{\"kind\": \"a\"}, {\"kind\": \"a\"}, {\"kind\": \"a\", \"queue\": \"mail\"}]')",
           "INSERT INTO jobq.jobs (kind) VALUES ('a')"]


def test_nobody_is_notified_while_nobody_waits(db):
    assert heard(db, *INSERTS) == []


def test_only_queues_where_a_node_waits_are_notified(db):
    assert heard(db, *INSERTS, idle=["mail"]) == ["queue mail", "queue mail"]
    assert heard(db, *INSERTS, idle=["default"]) == [
        "queue default", "queue mail", "queue default", "queue mail", "queue default"]


def test_scheduled_jobs_wake_no_queue_and_near_ones_the_stager(db):
    assert heard(db, "SELECT jobq.enqueue('a', scheduled_at => now() + interval '1 hour')",
                 "SELECT jobq.enqueue('a', scheduled_at => now() + interval '1 second')", idle=["default"]) == ["stage"]


def test_cancel_wakes_nobody_and_retry_wakes_the_queue(db):
    ended, later = db.enqueue("a"), db.enqueue("a", scheduled_at="2099-01-01T00:00:00Z")
    assert heard(db, f"SELECT jobq.cancel({ended})", f"SELECT jobq.retry({ended})", f"SELECT jobq.retry({later})",
                 idle=["default"]) == ["queue default", "queue default"]


# ---- cancel ----

@pytest.mark.parametrize("state", ["available", "scheduled", "retryable", "suspended"])
def test_cancel_ends_a_job_that_waits(db, state):
    job_id = db.enqueue("a", BIG, unique_key="u", tags=["t"])
    db.query("UPDATE jobq.jobs SET state = %s, position = CASE WHEN %s = 'available' THEN position END WHERE id = %s",
             [state, state, job_id])
    assert db.value("SELECT jobq.cancel(%s)", [job_id]) is True
    row = job(db, job_id)
    assert (row["state"], row["args"]["n"], row["unique_key"], row["tags"]) == ("cancelled", 123456789012345678, "u", ["t"])
    assert row["finished_at"] is not None
    assert db.value("SELECT count(*) FROM jobq.jobs") == 0
    assert db.value("SELECT jobq.cancel(%s)", [job_id]) is False


def test_cancel_asks_the_node_of_an_executing_job(db):
    """The job itself is left alone: a request stands in a table, once, and whoever listens hears of it."""
    job_id = db.enqueue("a")
    claim(db, job_id)
    assert heard(db, *[f"SELECT jobq.cancel({job_id})"] * 2) == ["cancel", "cancel"]
    assert db.value("SELECT jobq.cancel(%s)", [job_id]) is False
    assert db.states() == {"executing": 1}
    assert db.query("SELECT job_id, attempt FROM jobq._cancels") == [(job_id, 1)]


def test_cancel_and_a_claim_at_once(db):
    """The claim wins: the cancel waits for it and then leaves the job alone."""
    job_id = db.enqueue("a")
    with db.connect(autocommit=False) as claimer, db.connect() as canceller:
        claimer.execute("UPDATE jobq.jobs SET state = 'executing', attempt = 1 WHERE id = %s", [job_id])
        answer = []
        thread = threading.Thread(target=lambda: answer.append(
            canceller.execute("SELECT jobq.cancel(%s)", [job_id]).fetchone()[0]))
        thread.start()
        wait_for(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s",
                                  [canceller.info.backend_pid]), what="the cancel to wait")
        claimer.commit()
        thread.join()
    assert answer == [False]
    assert db.states() == {"executing": 1}


# ---- retry ----

@pytest.mark.parametrize("state", ["completed", "cancelled", "discarded"])
def test_retry_of_an_ended_job(db, state):
    job_id = db.enqueue("a", BIG, max_attempts=3)
    claim(db, job_id, 3)
    db.query("UPDATE jobq.jobs SET errors = '[{\"attempt\": 1}]'")
    db.query("""WITH gone AS (DELETE FROM jobq.jobs RETURNING *)
                INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts,
                       priority, queue, kind, args, meta, tags, errors, result)
                SELECT id, inserted_at, scheduled_at, now(), %s::jobq.job_state, attempt, max_attempts, priority, queue,
                       kind, args, meta, tags, errors, '1' FROM gone""", [state])
    last = db.value("SELECT last_value FROM jobq.jobs_position_seq")
    assert db.value("SELECT jobq.retry(%s)", [job_id]) is True
    row = job(db, job_id)
    assert (row["state"], row["attempt"], row["max_attempts"], row["errors"]) == ("available", 3, 4, [{"attempt": 1}])
    assert row["position"] > last and row["args"]["n"] == 123456789012345678 and row["result"] is None
    assert db.value("SELECT count(*) FROM jobq.finished_jobs") == 0
    assert db.value("SELECT jobq.retry(%s)", [job_id]) is False


def test_retry_leaves_max_attempts_where_some_are_left(db):
    job_id = db.enqueue("a", max_attempts=5)
    db.query("SELECT jobq.cancel(%s)", [job_id])
    assert db.value("SELECT jobq.retry(%s)", [job_id]) is True
    assert job(db, job_id)["max_attempts"] == 5


@pytest.mark.parametrize("state", ["scheduled", "retryable"])
def test_retry_of_a_job_that_waits_for_its_time(db, state):
    job_id = db.enqueue("a", scheduled_at="2099-01-01T00:00:00Z")
    db.query("UPDATE jobq.jobs SET state = %s", [state])
    assert db.value("SELECT jobq.retry(%s)", [job_id]) is True
    assert job(db, job_id)["state"] == "available" and job(db, job_id)["position"] is not None
    assert db.value("SELECT scheduled_at <= now() FROM jobq.jobs")


@pytest.mark.parametrize("state", ["available", "executing", "suspended"])
def test_retry_leaves_what_needs_none(db, state):
    job_id = db.enqueue("a")
    db.query("UPDATE jobq.jobs SET state = %s, position = CASE WHEN %s <> 'suspended' THEN position END", [state, state])
    before = job(db, job_id)
    assert db.value("SELECT jobq.retry(%s)", [job_id]) is False
    assert job(db, job_id) == before


def test_retry_of_a_job_whose_unique_key_is_taken(db):
    first = db.enqueue("a", unique_key="u")
    db.query("SELECT jobq.cancel(%s)", [first])
    db.enqueue("a", unique_key="u")
    fails_with(db, WRONG_STATE, f'jobq.retry: job {first} has the unique key "u", which another live job holds',
               "SELECT jobq.retry(%s)", [first])
    assert job(db, first)["state"] == "cancelled"


def test_retry_beyond_the_last_attempt_there_is(db):
    job_id = db.enqueue("a", max_attempts=1000)
    db.query("UPDATE jobq.jobs SET attempt = 1000")
    db.query("SELECT jobq.cancel(%s)", [job_id])
    fails_with(db, WRONG_STATE, f"jobq.retry: job {job_id} has used all 1000 attempts; enqueue it as a new job",
               "SELECT jobq.retry(%s)", [job_id])
    assert job(db, job_id)["state"] == "cancelled"


def test_two_retries_at_once_give_one_job(db):
    job_id = db.enqueue("a")
    db.query("SELECT jobq.cancel(%s)", [job_id])
    with db.connect(autocommit=False) as first, db.connect() as second:
        assert first.execute("SELECT jobq.retry(%s)", [job_id]).fetchone()[0] is True
        answer = []
        thread = threading.Thread(target=lambda: answer.append(
            second.execute("SELECT jobq.retry(%s)", [job_id]).fetchone()[0]))
        thread.start()
        wait_for(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s",
                                  [second.info.backend_pid]), what="the second retry to wait")
        first.commit()
        thread.join()
    assert answer == [False]
    assert db.states() == {"available": 1}


# ---- complete ----

def test_complete_in_the_handlers_transaction(db):
    job_id = db.enqueue("a", BIG)
    claim(db, job_id)
    db.query("CREATE TABLE effects (n int)")
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO effects VALUES (1)")
        conn.execute("SELECT jobq.complete(%s, 1, '{\"sum\": 123456789012345678}')", [job_id])
        conn.rollback()
        assert db.states() == {"executing": 1} and db.query("SELECT * FROM effects") == []
        conn.execute("INSERT INTO effects VALUES (1)")
        conn.execute("SELECT jobq.complete(%s, 1, '{\"sum\": 123456789012345678}')", [job_id])
        conn.commit()
    row = job(db, job_id)
    assert (row["state"], row["attempt"], row["result"]) == ("completed", 1, {"sum": 123456789012345678})
    assert row["run_us"] >= 0 and row["finished_at"] is not None and row["attempted_by"] == 1
    assert db.query("SELECT * FROM effects") == [(1,)]


def test_complete_is_fenced(db):
    job_id = db.enqueue("a")
    sql = "SELECT jobq.complete(%s, %s)"
    fails_with(db, WRONG_STATE, f"jobq.complete: job {job_id} is not executing attempt 1: it is available", sql, [job_id, 1])
    claim(db, job_id, 2)
    fails_with(db, WRONG_STATE, f"jobq.complete: job {job_id} is not executing attempt 1: it is executing attempt 2", sql,
               [job_id, 1])
    db.query(sql, [job_id, 2])
    fails_with(db, WRONG_STATE, f"jobq.complete: job {job_id} is not executing attempt 2: it is completed", sql, [job_id, 2])
    assert db.states() == {"completed": 1}


BY_ID_FAULTS = [
    ("SELECT jobq.cancel(77)", NOT_FOUND, "jobq.cancel: no job has the id 77"),
    ("SELECT jobq.retry(77)", NOT_FOUND, "jobq.retry: no job has the id 77"),
    ("SELECT jobq.complete(77, 1)", NOT_FOUND, "jobq.complete: no job has the id 77"),
    ("SELECT jobq.cancel(NULL)", INVALID, "jobq.cancel: id must be a job's id, got null"),
    ("SELECT jobq.retry(NULL)", INVALID, "jobq.retry: id must be a job's id, got null"),
    ("SELECT jobq.complete(NULL, 1)", INVALID, "jobq.complete: id must be a job's id, got null"),
    ("SELECT jobq.complete(1, NULL)", INVALID, "jobq.complete: attempt must be 1 or more, got null"),
    ("SELECT jobq.complete(1, 0)", INVALID, "jobq.complete: attempt must be 1 or more, got 0"),
]


@pytest.mark.parametrize("sql,sqlstate,message", BY_ID_FAULTS, ids=[m for _, _, m in BY_ID_FAULTS])
def test_by_id_refuses(db, sql, sqlstate, message):
    fails_with(db, sqlstate, message, sql)


def test_jobs_are_found_by_index_whatever_the_plan_was_made_on(db):
    """A plan that was made while the tables were empty must not read a large table row by row."""
    with db.connect() as conn:
        conn.execute("SET plan_cache_mode = force_generic_plan")
        warm = conn.execute("SELECT jobq.enqueue('a', unique_key => 'warm')").fetchone()[0]
        conn.execute("SELECT jobq.cancel(%s)", [warm])
        conn.execute("ALTER TABLE jobq.jobs SET (autovacuum_enabled = off)")
        conn.execute("INSERT INTO jobq.jobs (kind, unique_key) SELECT 'a', 'k' || i FROM generate_series(1, 20000) i")
        conn.execute("SELECT pg_stat_force_next_flush()" if conn.info.server_version >= 150000 else "SELECT 1")
        before = conn.execute("SELECT pg_stat_get_numscans('jobq.jobs'::regclass)").fetchone()[0]
        for n in range(20):
            last = conn.execute("SELECT max(id) FROM jobq.jobs").fetchone()[0] - n
            conn.execute("SELECT jobq.enqueue('a', unique_key => %s)", [f"k{n + 1}"])
            conn.execute("SELECT jobq.cancel(%s)", [last])
            conn.execute("SELECT jobq.retry(%s)", [last])
    wait_for(lambda: db.value("SELECT pg_stat_get_numscans('jobq.jobs_pkey'::regclass)") >= 40)
    assert db.value("SELECT pg_stat_get_numscans('jobq.jobs'::regclass)") == before


# ---- roles ----

def as_role(db, role, sql, params=None):
    with db.connect(autocommit=False) as conn:
        conn.execute(f"SET ROLE {role}")
        cursor = conn.execute(sql, params)
        rows = cursor.fetchall() if cursor.description else None
        conn.commit()
        return rows


def refused(db, role, sql, params=None):
    with pytest.raises(InsufficientPrivilege):
        as_role(db, role, sql, params)


def test_the_enqueuer_adds_jobs_and_nothing_else(db):
    role = "jobq_enqueuer"
    first = as_role(db, role, "SELECT jobq.enqueue('a', unique_key => 'u')")[0][0]
    assert as_role(db, role, "SELECT jobq.enqueue('a', unique_key => 'u')") == [(first,)]
    assert len(as_role(db, role, "SELECT jobq.enqueue_many('[{\"kind\": \"a\"}, {\"kind\": \"b\", \"unique_key\": \"v\"}]')")) == 2
    as_role(db, role, "INSERT INTO jobq.jobs (kind, args) VALUES ('a', '{}')")
    assert as_role(db, role, "INSERT INTO jobq.jobs (kind, scheduled_at) VALUES ('a', now() + interval '1 day') RETURNING id")
    assert db.states() == {"available": 4, "scheduled": 1}
    claim(db, first)
    for sql in (f"SELECT jobq.complete({first}, 1)","SELECT * FROM jobq.jobs", "SELECT * FROM jobq.all_jobs", "SELECT args FROM jobq.finished_jobs",
                "SELECT jobq.cancel(1)", "SELECT jobq.retry(1)", "DELETE FROM jobq.jobs", "UPDATE jobq.jobs SET kind = 'b'",
                "INSERT INTO jobq.jobs (kind, state) VALUES ('a', 'suspended')",
                "INSERT INTO jobq.jobs (kind, position) VALUES ('a', 1)",
                "INSERT INTO jobq.jobs (kind, attempt) VALUES ('a', 1)",
                "INSERT INTO jobq._idle VALUES ('a', 1)", "SELECT jobq._wake('{a}')",
                "SELECT jobq._create_partitions('2026-01-01', 1)", "SELECT jobq._drop_partitions('1d', '1d')"):
        refused(db, role, sql)


def test_the_worker_completes_its_job_and_does_nothing_else(db):
    role = "jobq_worker"
    job_id = db.enqueue("a")
    claim(db, job_id)
    for sql in ("SELECT jobq.enqueue('a')", "SELECT * FROM jobq.jobs", "SELECT jobq.cancel(1)", "INSERT INTO jobq.jobs (kind) VALUES ('a')"):
        refused(db, role, sql)
    as_role(db, role, "SELECT jobq.complete(%s, 1, '{\"n\": 1}')", [job_id])
    assert db.query("SELECT state::text, result FROM jobq.all_jobs") == [("completed", {"n": 1})]


def test_only_the_worker_may_complete(db):
    job_id = db.enqueue("a")
    claim(db, job_id)
    for role in ("jobq_enqueuer", "jobq_viewer", "jobq_operator", "jobq_daemon"):
        refused(db, role, "SELECT jobq.complete(%s, 1)", [job_id])


def test_the_enqueuers_inserts_wake_nodes(db):
    statement = "SET ROLE jobq_enqueuer; INSERT INTO jobq.jobs (kind) VALUES ('a'); RESET ROLE"
    assert heard(db, statement, idle=["default"]) == ["queue default"]


def test_the_viewer_reads_everything_and_changes_nothing(db):
    role = "jobq_viewer"
    db.enqueue("a")
    for table in ("jobs", "finished_jobs", "all_jobs", "nodes", "queues", "crons", "_leader", "_idle"):
        as_role(db, role, f"SELECT * FROM jobq.{table}")
    for sql in ("SELECT jobq.enqueue('a')", "SELECT jobq.enqueue_many('[]')", "SELECT jobq.cancel(1)",
                "SELECT jobq.retry(1)", "SELECT jobq.complete(1, 1)", "INSERT INTO jobq.jobs (kind) VALUES ('a')",
                "DELETE FROM jobq.jobs", "DELETE FROM jobq.finished_jobs"):
        refused(db, role, sql)


def test_the_operator_reads_adds_cancels_and_retries(db):
    role = "jobq_operator"
    job_id = as_role(db, role, "SELECT jobq.enqueue('a')")[0][0]
    as_role(db, role, "INSERT INTO jobq.jobs (kind) VALUES ('a')")
    assert as_role(db, role, "SELECT jobq.cancel(%s)", [job_id]) == [(True,)]
    assert as_role(db, role, "SELECT jobq.retry(%s)", [job_id]) == [(True,)]
    assert len(as_role(db, role, "SELECT * FROM jobq.all_jobs")) == 2
    for sql in ("DELETE FROM jobq.jobs", "UPDATE jobq.jobs SET priority = 1", "INSERT INTO jobq.nodes (name) VALUES ('a')",
                "SELECT jobq._drop_partitions('1d', '1d')"):
        refused(db, role, sql)


def test_nobody_else_calls_anything(db):
    public = db.query("""SELECT p.proname FROM pg_proc p
                          CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                          WHERE p.pronamespace = 'jobq'::regnamespace AND a.grantee = 0""")
    assert public == []


def test_functions_that_run_as_their_owner_set_their_search_path(db):
    loose = db.query("""SELECT proname FROM pg_proc
                         WHERE pronamespace = 'jobq'::regnamespace AND prosecdef
                           AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)""")
    assert loose == []


def test_a_callers_search_path_cannot_lead_the_functions_astray(db):
    with db.connect() as conn:
        conn.execute("CREATE SCHEMA evil")
        conn.execute("CREATE FUNCTION evil.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT 5000'")
        conn.execute("CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '2001-01-01'::timestamptz$$")
        conn.execute("SET search_path = evil, pg_catalog")
        job_id = conn.execute("SELECT jobq.enqueue('a')").fetchone()[0]
        conn.execute("SELECT jobq.enqueue_many('[{\"kind\": \"a\"}]')")
        conn.execute("INSERT INTO jobq.jobs (kind) VALUES ('a')")
        assert conn.execute("SELECT inserted_at > '2020-01-01' FROM jobq.jobs WHERE id = %s", [job_id]).fetchone()[0]


def test_a_migrating_user_who_may_not_create_roles(postgres, template, empty_db):
    """Where the roles are missing and cannot be made, the schema works for its owner."""
    owner = f"owner_{empty_db.name}"
    roles = [f"jobq_{name}" for name in ("enqueuer", "worker", "viewer", "operator", "daemon")]
    with postgres.connect("postgres") as conn:
        for role in roles:
            conn.execute(f"ALTER ROLE {role} RENAME TO {role}_away")
        conn.execute(f"CREATE ROLE {owner} LOGIN")
        conn.execute(f'GRANT CREATE ON DATABASE "{empty_db.name}" TO {owner}')
    try:
        schema.migrate(empty_db, user=owner)
        with empty_db.connect(user=owner) as conn:
            assert conn.execute("SELECT jobq.enqueue('a')").fetchone() == (1,)
    finally:
        with postgres.connect("postgres") as conn:
            for role in roles:
                conn.execute(f"ALTER ROLE {role}_away RENAME TO {role}")
            conn.execute(f'DROP DATABASE "{empty_db.name}" WITH (FORCE)')
            conn.execute(f"DROP ROLE {owner}")


# ---- another schema ----

def test_another_schema_beside_it(db):
    schema.migrate(db, schema="work_q")
    assert db.value("SELECT work_q.enqueue('a')") == 1
    assert db.value("SELECT work_q.cancel(1)") is True
    assert db.value("SELECT work_q.retry(1)") is True
    db.query("INSERT INTO work_q.jobs (kind) VALUES ('b')")
    assert db.value("SELECT count(*) FROM work_q.all_jobs") == 2
    assert db.value("SELECT count(*) FROM jobq.all_jobs") == 0
    with db.connect() as listener, db.connect() as speaker:
        listener.execute("LISTEN work_q")
        speaker.execute("INSERT INTO work_q._idle VALUES ('default', 1)")
        speaker.execute("SELECT work_q.enqueue('a')")
        assert next(listener.notifies()).payload == "queue default"
