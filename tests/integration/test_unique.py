"""Unique jobs: unique_by's fields, keys, period and states; what a conflict does; under fire from many connections."""

import json
import random
import threading

import psycopg
import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

INVALID, NOT_UNIQUE = "22023", "23505"
LIVE = ["scheduled", "available", "executing", "retryable", "suspended"]
ENDED = ["completed", "cancelled", "discarded"]


def try_enqueue(db, kind, args="{}", **options):
    """(id, conflict) of jobq.try_enqueue; dicts and lists of unique_by and replace are made into JSON."""
    given = {name: json.dumps(v) if name in ("unique_by", "replace", "meta") and not isinstance(v, str) else v
             for name, v in options.items()}
    types = {"unique_by": "jsonb", "replace": "jsonb", "meta": "jsonb", "scheduled_at": "timestamptz", "expires_at": "timestamptz"}
    named = "".join(f', "{name}" => %({name})s' + (f"::{types[name]}" if name in types else "") for name in given)
    return tuple(db.query(f"SELECT * FROM jobq.try_enqueue(%(kind)s, %(args)s::jsonb{named})",
                          {"kind": kind, "args": args if isinstance(args, str) else json.dumps(args), **given})[0])


def try_many(db, jobs):
    return [tuple(r) for r in db.query("SELECT * FROM jobq.try_enqueue_many(%s::jsonb)", [json.dumps(jobs)])]


def job(db, job_id):
    return db.query("SELECT to_jsonb(j) FROM jobq.all_jobs j WHERE id = %s", [job_id])[0][0]


def put_into(db, job_id, state):
    """As a node would have: the job in that state."""
    if state in ENDED:
        db.query("WITH gone AS (DELETE FROM jobq.jobs WHERE id = %s RETURNING *) INSERT INTO jobq.finished_jobs "
                 "(id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority, queue, kind, args, meta, "
                 "tags, errors) SELECT id, inserted_at, scheduled_at, now(), %s::jobq.job_state, 1, max_attempts, priority, queue, "
                 "kind, args, meta, tags, errors FROM gone", [job_id, state])
    else:
        db.query("UPDATE jobq.jobs SET state = %(s)s::jobq.job_state, attempt = CASE WHEN %(s)s IN ('executing', 'retryable') "
                 "THEN 1 ELSE 0 END, position = CASE WHEN %(s)s IN ('available', 'executing') THEN jobq._next_position() END, "
                 "scheduled_at = CASE WHEN %(s)s IN ('scheduled', 'retryable') THEN now() + interval '1 hour' ELSE scheduled_at "
                 "END WHERE id = %(id)s", {"s": state, "id": job_id})


# ---- what is the same ----

SAME = [
    # unique_by, a job, one that conflicts with it, one that does not
    ({}, ("k", {"a": 1, "b": 2}, {}), ("k", {"b": 2, "a": 1}, {}), ("k", {"a": 1}, {})),
    ({}, ("k", {}, {}), ("k", {}, {"priority": 5, "meta": {"x": 1}}), ("l", {}, {})),
    ({}, ("k", {}, {}), ("k", {}, {"unique_by": {"fields": ["args", "queue", "kind", "args"]}}), ("k", {}, {"queue": "q"})),
    ({"fields": ["kind"]}, ("k", {"a": 1}, {}), ("k", {"a": 2}, {"queue": "q"}), ("l", {"a": 1}, {})),
    ({"fields": ["kind", "queue"]}, ("k", {"a": 1}, {}), ("k", {"a": 2}, {}), ("k", {"a": 1}, {"queue": "q"})),
    ({"fields": ["args"]}, ("k", {"a": 1}, {}), ("l", {"a": 1}, {"queue": "q"}), ("k", {"a": 2}, {})),
    ({"fields": ["meta"]}, ("k", {}, {"meta": {"m": 1}}), ("l", {"a": 1}, {"meta": {"m": 1}}), ("k", {}, {"meta": {"m": 2}})),
    ({"keys": ["a", "b"]}, ("k", {"a": 1, "c": 1}, {}), ("k", {"a": 1, "c": 2}, {}), ("k", {"a": 1, "b": None}, {})),
    ({"keys": ["b", "a"]}, ("k", {"a": 1, "b": 2}, {}), ("k", {"a": 1, "b": 2, "c": 3}, {"unique_by": {"keys": ["a", "b"]}}),
     ("k", {"a": 1, "b": 2}, {"unique_by": {"keys": ["a"]}})),
    ({"fields": ["args", "meta"], "keys": ["t"]}, ("k", {"t": 1, "x": 1}, {"meta": {"t": 1, "y": 1}}),
     ("l", {"t": 1}, {"meta": {"t": 1, "y": 2}}), ("k", {"t": 1}, {"meta": {"t": 2}})),
    ({}, ("k", {"big": 123456789012345678}, {}), ("k", {"big": 123456789012345678}, {}), ("k", {"big": 123456789012345679}, {})),
]


@pytest.mark.parametrize("unique_by,first,same,other", SAME, ids=range(len(SAME)))
def test_what_is_the_same_and_what_is_not(db, unique_by, first, same, other):
    def add(job):
        kind, args, options = job
        return try_enqueue(db, kind, args, **{"unique_by": unique_by, **options})
    first_id, conflict = add(first)
    assert conflict is None
    assert add(same) == (first_id, "ignored")
    other_id, conflict = add(other)
    assert other_id != first_id and conflict is None
    assert db.value("SELECT count(*) FROM jobq.jobs") == db.value("SELECT count(*) FROM jobq._uniques") == 2


def test_the_plain_job_costs_nothing(db):
    db.enqueue("a")
    db.query("SELECT * FROM jobq.enqueue_many('[{\"kind\": \"a\"}, {\"kind\": \"a\"}]')")
    assert try_enqueue(db, "a")[1] is None
    assert [c for _, c in try_many(db, [{"kind": "a"}, {"kind": "a"}])] == [None, None]
    assert db.states() == {"available": 6} and db.value("SELECT count(*) FROM jobq._uniques") == 0


def test_only_those_that_ask_are_held_to_it(db):
    first = db.enqueue("a")
    second, conflict = try_enqueue(db, "a", unique_by={})
    assert second != first and conflict is None
    assert db.enqueue("a") not in (first, second)


@pytest.mark.parametrize("state", LIVE + ENDED)
@pytest.mark.parametrize("wanted", [True, False], ids=["in", "out"])
def test_each_state_in_and_out_of_states(db, state, wanted):
    states = [state] if wanted else [s for s in LIVE + ENDED if s != state]
    first, _ = try_enqueue(db, "a", unique_by={})
    put_into(db, first, state)
    got, conflict = try_enqueue(db, "a", unique_by={"states": states})
    if wanted:
        assert (got, conflict) == (first, "ignored")
    else:
        assert got != first and conflict is None
        # The key is the new one's now.
        assert try_enqueue(db, "a", unique_by={"states": ["available"]}) == (got, "ignored")


@pytest.mark.parametrize("state,conflicts", [*((s, True) for s in LIVE), ("completed", True), ("cancelled", False),
                                             ("discarded", False)])
def test_the_states_that_count_by_default(db, state, conflicts):
    first, _ = try_enqueue(db, "a", unique_by={})
    put_into(db, first, state)
    assert (try_enqueue(db, "a", unique_by={})[0] == first) == conflicts


def test_a_job_that_left_no_history_is_in_nobodys_way(db):
    first, _ = try_enqueue(db, "a", unique_by={"states": LIVE + ENDED})
    db.query("DELETE FROM jobq.jobs")
    second, conflict = try_enqueue(db, "a", unique_by={"states": LIVE + ENDED})
    assert second != first and conflict is None


def test_the_period(db):
    """In one transaction now() stands still, so the boundary can be hit exactly."""
    with db.connect(autocommit=False) as conn:
        first = conn.execute("SELECT jobq.enqueue('a', unique_by => '{}')").fetchone()[0]
        for age, period, same in ((59.999999, 60, True), (60, 60, False), (60, 61, True), (1e9, "infinity", True)):
            conn.execute("SAVEPOINT s")
            conn.execute("UPDATE jobq._uniques SET held_at = now() - %s * interval '1 second'", [age])
            got = conn.execute("SELECT jobq.enqueue('a', unique_by => %s::jsonb)", [json.dumps({"period": period})]).fetchone()[0]
            assert (got == first) == same, (age, period)
            conn.execute("ROLLBACK TO s")
    assert db.value("SELECT bool_and(u.held_at = j.inserted_at) FROM jobq._uniques u JOIN jobq.jobs j ON j.id = u.job_id") is True


# ---- wrong arguments ----

FIELDS = "an array of one or more of args, meta, tags, priority, queue, kind, max_attempts, timeout_ms, scheduled_at and expires_at"
STATES = ("an array of one or more of scheduled, available, executing, retryable, suspended, completed, cancelled and discarded")
FAULTS = [
    ({"unique_by": 5}, "unique_by must be null or a JSON object, got 5"),
    ({"unique_by": ["kind"]}, 'unique_by must be null or a JSON object, got ["kind"]'),
    ({"unique_by": {"field": []}}, 'unique_by has an unknown member "field": allowed are fields, keys, period and states'),
    ({"unique_by": {"fields": "kind"}}, 'unique_by.fields must be an array of one or more of kind, queue, args and meta, got "kind"'),
    ({"unique_by": {"fields": []}}, "unique_by.fields must be an array of one or more of kind, queue, args and meta, got []"),
    ({"unique_by": {"fields": None}}, "unique_by.fields must be an array of one or more of kind, queue, args and meta, got null"),
    ({"unique_by": {"fields": ["kind", "worker"]}},
     'unique_by.fields must be an array of one or more of kind, queue, args and meta, got ["kind", "worker"]'),
    ({"unique_by": {"fields": ["kind", ["args"]]}},
     'unique_by.fields must be an array of one or more of kind, queue, args and meta, got ["kind", ["args"]]'),
    ({"unique_by": {"keys": []}}, "unique_by.keys must be an array of one or more texts, got []"),
    ({"unique_by": {"keys": [1]}}, "unique_by.keys must be an array of one or more texts, got [1]"),
    ({"unique_by": {"keys": "a"}}, 'unique_by.keys must be an array of one or more texts, got "a"'),
    ({"unique_by": {"keys": ["a"], "fields": ["kind"]}},
     'unique_by.keys needs args or meta among unique_by.fields, got ["kind"]'),
    ({"unique_by": {"period": 0}}, 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got 0'),
    ({"unique_by": {"period": -60}}, 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got -60'),
    ({"unique_by": {"period": 1.5}}, 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got 1.5'),
    ({"unique_by": {"period": "1h"}}, 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got "1h"'),
    ({"unique_by": {"period": None}}, 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got null'),
    ({"unique_by": {"period": 3000000000}},
     'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got 3000000000'),
    ({"unique_by": {"states": []}}, f"unique_by.states must be {STATES}, got []"),
    ({"unique_by": {"states": ["done"]}}, f'unique_by.states must be {STATES}, got ["done"]'),
    ({"unique_by": {"states": {"available": 1}}}, f'unique_by.states must be {STATES}, got {{"available": 1}}'),
    ({"unique_by": {}, "unique_key": "u"}, "unique_by and unique_key cannot both be set"),
    ({"on_conflict": "update"}, 'on_conflict must be "ignore", "replace" or "raise", got "update"'),
    ({"on_conflict": None}, 'on_conflict must be "ignore", "replace" or "raise", got null'),
    ({"on_conflict": "replace"}, 'replace must say what on_conflict "replace" replaces, got null'),
    ({"replace": ["args"]}, 'replace is allowed only with on_conflict "replace", got it with "ignore"'),
    ({"on_conflict": "raise", "replace": ["args"]}, 'replace is allowed only with on_conflict "replace", got it with "raise"'),
    ({"on_conflict": "replace", "replace": 5}, f"replace must be {FIELDS}, or an object of such arrays by state, got 5"),
    ({"on_conflict": "replace", "replace": []}, f"replace must be {FIELDS}, or an object of such arrays by state, got []"),
    ({"on_conflict": "replace", "replace": ["id"]},
     f'replace must be {FIELDS}, or an object of such arrays by state, got ["id"]'),
    ({"on_conflict": "replace", "replace": {}}, f"replace must be {FIELDS}, or an object of such arrays by state, got {{}}"),
    ({"on_conflict": "replace", "replace": {"waiting": ["args"]}},
     'replace has an unknown state "waiting": allowed are scheduled, available, executing, retryable and suspended'),
    ({"on_conflict": "replace", "replace": {"completed": ["args"]}},
     'replace has the state "completed", in which a job has ended: allowed are scheduled, available, executing, retryable '
     "and suspended"),
    ({"on_conflict": "replace", "replace": {"available": ["state"]}}, f'replace.available must be {FIELDS}, got ["state"]'),
    ({"on_conflict": "replace", "replace": {"available": "args"}}, f'replace.available must be {FIELDS}, got "args"'),
    ({"on_conflict": "replace", "replace": {"executing": ["args", "queue"]}},
     "replace.executing must be an array of one or more of args, meta, tags, max_attempts and timeout_ms, got "
     '["args", "queue"]'),
]


@pytest.mark.parametrize("options,message", FAULTS, ids=[m[:60] for _, m in FAULTS])
def test_wrong_arguments(db, options, message):
    given = {name: json.dumps(v) if name in ("unique_by", "replace") else v for name, v in options.items()}
    named = "".join(f', "{name}" => %({name})s' + ("::jsonb" if name in ("unique_by", "replace") else "") for name in given)
    many = json.dumps([{"kind": "a"}, {"kind": "a", **options}])
    for caller, sql, params in (
            ("enqueue: ", f"SELECT jobq.enqueue('a'{named})", given),
            ("try_enqueue: ", f"SELECT jobq.try_enqueue('a'{named})", given),
            ("enqueue_many: jobs[1].", "SELECT jobq.enqueue_many(%(jobs)s::jsonb)", {"jobs": many}),
            ("try_enqueue_many: jobs[1].", "SELECT jobq.try_enqueue_many(%(jobs)s::jsonb)", {"jobs": many})):
        with pytest.raises(psycopg.Error) as caught:
            db.query(sql, params)
        assert (caught.value.sqlstate, caught.value.diag.message_primary) == (INVALID, f"jobq.{caller}{message}")
    assert db.states() == {} and db.value("SELECT count(*) FROM jobq._uniques") == 0


# ---- raise ----

@pytest.mark.parametrize("unique,told", [
    ({"unique_key": 'u"1'}, 'unique key, "u\\"1"'),
    ({"unique_by": {}}, "kind, queue and args"),
    ({"unique_by": {"fields": ["kind"]}}, "kind"),
    ({"unique_by": {"fields": ["meta", "args"], "keys": ["a", "b"]}}, 'args and meta (of the keys "a", "b")'),
])
def test_raise_names_the_job_that_is_there(db, unique, told):
    first, _ = try_enqueue(db, "a", on_conflict="raise", **unique)
    for subject, call in (("try_enqueue: the job", lambda: try_enqueue(db, "a", on_conflict="raise", **unique)),
                          ("try_enqueue_many: jobs[1]",
                           lambda: try_many(db, [{"kind": "b"}, {"kind": "a", "on_conflict": "raise", **unique}]))):
        with pytest.raises(psycopg.Error) as caught:
            call()
        assert caught.value.sqlstate == NOT_UNIQUE
        assert caught.value.diag.message_primary == f"jobq.{subject} is not unique: job {first}, available, has the same {told}"
    assert db.states() == {"available": 1}


# ---- replace ----

NEW = {"args": {"n": 2}, "meta": {"m": 2}, "tags": ["new"], "priority": 7, "queue": "other", "kind": "z", "max_attempts": 9,
       "timeout_ms": 900, "scheduled_at": "2099-02-03T04:05:06+00:00", "expires_at": "2099-03-04T05:06:07+00:00"}


@pytest.mark.parametrize("many", [False, True], ids=["enqueue", "enqueue_many"])
@pytest.mark.parametrize("field", NEW)
@pytest.mark.parametrize("state", LIVE)
def test_each_field_is_replaced_by_state(db, state, field, many):
    if state == "executing" and field not in ("args", "meta", "tags", "max_attempts", "timeout_ms"):
        check_refused_for_executing(db, field)
        return
    first, _ = try_enqueue(db, "a", {"n": 1}, unique_key="u")
    put_into(db, first, state)
    before = job(db, first)
    fields = {state: [field], **({"executing": ["args"]} if state != "executing" else {})}
    new = {"kind": "z", **NEW, "unique_key": "u", "on_conflict": "replace", "replace": fields}
    if many:
        assert try_many(db, [new])[0] == (first, "replaced")
    else:
        kind, args = new.pop("kind"), new.pop("args")
        assert try_enqueue(db, kind, args, **new) == (first, "replaced")
    after = job(db, first)
    assert after[field] == NEW[field]
    changed = {name for name in before if before[name] != after[name]}
    expected = {field}
    if state == "available" and field in ("queue", "priority"):
        expected.add("position")
        assert after["position"] > before["position"]
    if state == "available" and field == "scheduled_at":
        expected |= {"position", "state"}
        assert (after["state"], after["position"]) == ("scheduled", None)
    assert changed == expected


def check_refused_for_executing(db, field):
    with pytest.raises(psycopg.Error, match="replace.executing must be an array of one or more of args, meta, tags, "):
        try_enqueue(db, "a", unique_key="u", on_conflict="replace", replace={"executing": [field]})
    assert db.states() == {}


def test_a_list_is_for_the_states_that_wait(db):
    for state in LIVE + ["completed"]:
        first, _ = try_enqueue(db, "a", {"s": state}, unique_by={})
        put_into(db, first, state)
        waits = state not in ("executing", "completed")
        assert try_enqueue(db, "a", {"s": state}, priority=5, unique_by={}, on_conflict="replace", replace=["priority"]) == (
            first, "replaced" if waits else "ignored")
        assert job(db, first)["priority"] == (5 if waits else 0)


def test_a_state_that_is_not_named_is_left_alone(db):
    first, _ = try_enqueue(db, "a", unique_by={})
    assert try_enqueue(db, "a", priority=5, unique_by={}, on_conflict="replace", replace={"scheduled": ["priority"]}) == (
        first, "ignored")
    assert job(db, first)["priority"] == 0


@pytest.mark.parametrize("state", ["scheduled", "retryable"])
def test_a_time_that_has_come_makes_it_available(db, state):
    first, _ = try_enqueue(db, "a", unique_by={})
    put_into(db, first, state)
    assert try_enqueue(db, "a", unique_by={}, on_conflict="replace", replace=["scheduled_at"]) == (first, "replaced")
    row = job(db, first)
    assert row["state"] == "available" and row["position"] is not None


def test_at_least_one_attempt_is_left(db):
    for state, attempt, expected in (("retryable", 4, 5), ("executing", 4, 4), ("retryable", 0, 2)):
        db.query("DELETE FROM jobq.jobs")
        first, _ = try_enqueue(db, "a", unique_by={})
        put_into(db, first, state)
        db.query("UPDATE jobq.jobs SET attempt = %s", [attempt])
        try_enqueue(db, "a", max_attempts=2, unique_by={}, on_conflict="replace", replace={state: ["max_attempts"]})
        assert job(db, first)["max_attempts"] == expected


def test_what_is_replaced_does_not_move_the_key(db):
    first, _ = try_enqueue(db, "a", {"n": 1}, unique_by={"fields": ["kind"]})
    try_enqueue(db, "a", {"n": 2}, unique_by={"fields": ["kind"]}, on_conflict="replace", replace=["args"])
    assert try_enqueue(db, "a", {"n": 3}, unique_by={"fields": ["kind"]}) == (first, "ignored")


def test_a_replaced_job_wakes_its_new_queue(db):
    db.query("INSERT INTO jobq._idle (queue, node_id) VALUES ('other', 1)")
    try_enqueue(db, "a", unique_by={"fields": ["kind"]})
    with db.connect() as listener:
        listener.execute("LISTEN jobq")
        try_enqueue(db, "a", queue="other", unique_by={"fields": ["kind"]}, on_conflict="replace", replace=["queue"])
        assert next(listener.notifies()).payload == "queue other"


# ---- who may ----

def test_an_enqueuer_may_and_sees_nothing(db):
    with db.connect() as conn:
        conn.execute("SET ROLE jobq_enqueuer")
        first = conn.execute("SELECT jobq.enqueue('a', unique_by => '{}')").fetchone()[0]
        assert conn.execute("SELECT * FROM jobq.try_enqueue('a', priority => 3, unique_by => '{}', on_conflict => 'replace', "
                            "replace => '[\"priority\"]')").fetchone() == (first, "replaced")
        assert conn.execute("SELECT * FROM jobq.try_enqueue_many('[{\"kind\": \"a\", \"unique_by\": {}}]')").fetchone() == (
            first, "ignored")
        conn.execute("INSERT INTO jobq.jobs (kind, expires_at) VALUES ('a', now() + interval '1 day')")
        assert conn.execute("SELECT jobq._unique_hash('a', 'default', '{\"n\": 1}', '{}', '{\"keys\": [\"n\"]}')"
                            ).fetchone()[0] == db.value("SELECT jobq._unique_hash('a', 'default', '{\"n\": 1, \"m\": 2}', "
                                                        "'{\"o\": 3}', '{\"keys\": [\"n\"]}')")
        for sql in ("SELECT * FROM jobq._uniques", "SELECT jobq._expire_jobs()", "SELECT jobq._prune_uniques()",
                    "SELECT jobq._check_jobs('x', '[]')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(sql)


# ---- under fire ----

CONNECTIONS, INSERTS, KEYS = 16, 500, 100


def unique_job(how, n, **more):
    return {"kind": "fire", "args": {"n": n}, **more,
            **({"unique_key": f"k{n}"} if how == "unique_key" else {"unique_by": {"keys": ["n"], **more.get("unique_by", {})}})}


def in_threads(count, work):
    failures = []

    def guarded(i):
        try:
            work(i)
        except BaseException as failure:  # told by the test itself
            failures.append(failure)
    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.limit(600)
@pytest.mark.once
@pytest.mark.parametrize("half_roll_back", [False, True], ids=["commit", "half_roll_back"])
@pytest.mark.parametrize("batch", [1, 50], ids=["enqueue", "enqueue_many"])
@pytest.mark.parametrize("how", ["unique_key", "unique_by"])
def test_sixteen_connections_and_a_hundred_keys(db, how, batch, half_roll_back):
    """16 x 500 inserts over 100 keys: 100 jobs live, and each conflict is answered with the right one's id."""
    answers = []

    def fire(i):
        chance = random.Random(i)
        with db.connect(autocommit=False) as conn:
            for _ in range(INSERTS // batch):
                keys = chance.sample(range(KEYS), batch)  # each batch in an order of its own
                got = conn.execute("SELECT * FROM jobq.try_enqueue_many(%s::jsonb)",
                                   [json.dumps([unique_job(how, n) for n in keys])]).fetchall() if batch > 1 else [
                    conn.execute("SELECT * FROM jobq.try_enqueue('fire', %s::jsonb, " + (
                        "unique_key => %s" if how == "unique_key" else "unique_by => %s::jsonb") + ")",
                        [json.dumps({"n": keys[0]}), f"k{keys[0]}" if how == "unique_key" else '{"keys": ["n"]}']).fetchone()]
                if half_roll_back and chance.random() < 0.5:
                    conn.rollback()
                else:
                    conn.commit()
                    answers.extend((n, *one) for n, one in zip(keys, got, strict=True))

    in_threads(CONNECTIONS, fire)
    assert db.states() == {"available": KEYS}
    holder = dict(db.query("SELECT (args -> 'n')::int, id FROM jobq.jobs"))
    assert len(holder) == KEYS
    assert all(holder[n] == job_id for n, job_id, _ in answers)
    assert len(answers) == CONNECTIONS * INSERTS if not half_roll_back else len(answers) > CONNECTIONS * INSERTS / 4
    assert sorted(n for n, _, conflict in answers if conflict is None) == list(range(KEYS))
    assert "deadlock detected" not in db.cluster.log()


@pytest.mark.once
@pytest.mark.limit(600)
def test_batches_that_mix_both_do_not_deadlock(db):
    def fire(i):
        chance = random.Random(i)
        with db.connect() as conn:
            for _ in range(25):
                jobs = [unique_job(how, n, on_conflict=chance.choice(["ignore", "replace"])) for n in range(20)
                        for how in ("unique_key", "unique_by")]
                for one in jobs:
                    if one["on_conflict"] == "replace":
                        one.update({"replace": ["meta", "priority"], "priority": chance.randrange(10)})
                jobs.append({"kind": "plain"})
                chance.shuffle(jobs)
                conn.execute("SELECT * FROM jobq.enqueue_many(%s::jsonb)", [json.dumps(jobs)]).fetchall()
                if chance.random() < 0.3:
                    conn.execute("SELECT jobq.cancel(id) FROM jobq.jobs WHERE kind = 'fire' ORDER BY random() LIMIT 1")

    start = db.cluster.log_size()
    in_threads(8, fire)
    assert "deadlock detected" not in db.cluster.log(start)
    assert db.value("SELECT count(*) FROM (SELECT FROM jobq.jobs WHERE kind = 'fire' GROUP BY args, unique_key "
                    "HAVING count(*) > 1) twice") == 0
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE kind = 'plain'") == 8 * 25


def test_one_that_is_not_committed_is_waited_for(db):
    for commits in (True, False):
        answer = []
        with db.connect(autocommit=False) as holder, db.connect() as waiter:
            held = holder.execute("SELECT jobq.enqueue('w', unique_by => '{}')").fetchone()[0]
            pid = waiter.info.backend_pid
            thread = threading.Thread(target=lambda: answer.append(
                waiter.execute("SELECT * FROM jobq.try_enqueue('w', unique_by => '{}')").fetchone()))
            thread.start()
            wait_for(lambda: db.value("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", [pid]) == "Lock")
            (holder.commit if commits else holder.rollback)()
            thread.join()
        assert answer[0] == (held, "ignored") if commits else answer[0][0] != held and answer[0][1] is None
        db.query("DELETE FROM jobq.jobs")


def test_a_stricter_isolation_level_is_told_to_try_again(db):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT 1")
        try_enqueue(db, "a", unique_by={})
        with pytest.raises(psycopg.errors.SerializationFailure):
            conn.execute("SELECT jobq.enqueue('a', unique_by => '{}')")


# ---- with a node ----

LEDGER = """
CREATE TABLE public.live (args jsonb PRIMARY KEY, id bigint NOT NULL);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.live VALUES (NEW.args, NEW.id);  -- the primary key: never two live at once
    ELSE
        DELETE FROM public.live WHERE id = OLD.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR DELETE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION public.note();
"""


@pytest.mark.parametrize("how", ["unique_key", "unique_by"])
def test_never_two_live_while_a_node_completes_them(db, jobqd, programs, how):
    with db.connect() as conn:
        conn.execute(LEDGER)
    jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})

    def fire(i):
        chance = random.Random(i)
        with db.connect() as conn:
            for _ in range(40):
                jobs = [{"kind": "noop", "args": {"n": n}, **({"unique_key": f"k{n}"} if how == "unique_key" else
                         {"unique_by": {"states": LIVE}})} for n in chance.sample(range(20), 10)]
                conn.execute("SELECT * FROM jobq.enqueue_many(%s::jsonb)", [json.dumps(jobs)]).fetchall()

    start = db.cluster.log_size()
    in_threads(8, fire)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
    assert "deadlock detected" not in db.cluster.log(start)
    assert db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") > 20
    assert db.value("SELECT count(*) FROM jobq.finished_jobs WHERE attempt <> 1 OR state <> 'completed'") == 0


def test_replacing_while_a_node_claims_loses_nothing(db, jobqd, programs):
    """Each answer `replaced` or `ignored` names a job that was there; every job runs once, with its first args or later ones."""
    jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2},
               "other": {"command": programs("noop_worker"), "concurrency": 2}})
    added, said = set(), []

    def fire(i):
        chance = random.Random(i)
        with db.connect() as conn:
            for turn in range(300):
                n = chance.randrange(10)
                got = conn.execute(
                    "SELECT * FROM jobq.try_enqueue('noop', %s::jsonb, %s, %s, now() + %s * interval '1 ms', unique_key => %s, "
                    "on_conflict => 'replace', replace => %s::jsonb)",
                    [json.dumps({"turn": turn}), chance.choice(["default", "other"]), chance.randrange(10),
                     chance.choice([0, 0, 5]), f"k{n}", json.dumps({
                         "available": ["args", "queue", "priority", "scheduled_at"], "scheduled": ["args", "scheduled_at", "queue"],
                         "retryable": ["args"], "executing": ["args", "tags"]})]).fetchone()
                if got[1] is None:
                    added.add(got[0])
                said.append(got)

    start = db.cluster.log_size()
    in_threads(6, fire)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
    ended = dict(db.query("SELECT id, attempt FROM jobq.finished_jobs WHERE state = 'completed'"))
    assert set(ended) == added and set(ended.values()) == {1}
    assert {job_id for job_id, _ in said} == added
    assert "replaced" in {conflict for _, conflict in said}
    assert "deadlock detected" not in db.cluster.log(start)


# ---- housekeeping ----

def prune(db):
    after, pruned, calls = 0, 0, 0
    while after is not None:
        after, n = db.query("SELECT after, pruned FROM jobq._prune_uniques(%s)", [after])[0]
        pruned, calls = pruned + n, calls + 1
    return pruned, calls


def test_keys_that_protect_nothing_are_taken_away(db):
    for n in range(6):
        try_enqueue(db, "a", {"n": n}, unique_by={})
    ids = [r[0] for r in db.query("SELECT id FROM jobq.jobs ORDER BY id")]
    put_into(db, ids[1], "completed")
    put_into(db, ids[2], "discarded")
    db.query("DELETE FROM jobq.jobs WHERE id = ANY(%s)", [ids[3:5]])
    assert prune(db)[0] == 2
    assert [r[0] for r in db.query("SELECT job_id FROM jobq._uniques ORDER BY 1")] == [ids[0], ids[1], ids[2], ids[5]]
    db.query("DELETE FROM jobq.finished_jobs")
    assert prune(db)[0] == 2
    assert prune(db)[0] == 0


def test_a_large_table_is_looked_through_in_batches(db):
    db.query("INSERT INTO jobq._uniques (key, job_id) SELECT int8send(i), i * 50 FROM generate_series(1, 5000) i")
    pruned, calls = prune(db)
    assert pruned == 5000 and calls >= 6


def test_a_key_that_is_being_taken_over_is_left_alone(db):
    try_enqueue(db, "a", unique_by={})
    db.query("DELETE FROM jobq.jobs")
    with db.connect(autocommit=False) as conn:
        new = conn.execute("SELECT jobq.enqueue('a', unique_by => '{}')").fetchone()[0]
        assert prune(db)[0] == 0
        conn.commit()
    assert prune(db)[0] == 0
    assert try_enqueue(db, "a", unique_by={}) == (new, "ignored")


def test_the_leader_prunes_them(db, jobqd, programs):
    db.query("INSERT INTO jobq._uniques (key, job_id) SELECT int8send(i), i FROM generate_series(1, 2500) i")
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._uniques") == 0)


# ---- the command line ----

def test_enqueue_on_the_command_line(cli, db):
    first = cli("enqueue", "a", '{"n": 1}', "--unique-by", "{}", "--expires-in", "1h", db=db).stdout.strip()
    assert cli("enqueue", "a", '{"n": 1}', "--unique-by", "{}", db=db).stdout == f"{first} existing\n"
    done = cli("enqueue", "a", '{"n": 1}', "--unique-by", "{}", "--on-conflict", "replace", "--replace", '["priority","expires_at"]',
               "--priority", 4, "--expires-at", "2099-01-01T00:00:00Z", "--json", db=db).stdout
    assert json.loads(done) == {"id": int(first), "conflict": "replaced"}
    assert (job(db, int(first))["priority"], job(db, int(first))["expires_at"]) == (4, "2099-01-01T00:00:00+00:00")
    assert "expires     2099-01-01T00:00:00Z (in " in cli("job", first, db=db).stdout
    failed = cli("enqueue", "a", '{"n": 1}', "--unique-by", "{}", "--on-conflict", "raise", db=db, code=65)
    assert failed.stderr == f"jobqd enqueue: the job is not unique: job {first}, available, has the same kind, queue and args\n"


def test_lines_on_standard_input(cli, db):
    lines = '{"kind":"a","unique_by":{}}\n{"kind":"a","unique_by":{}}\n{"kind":"b"}\n'
    done = cli("enqueue", "-", input=lines, db=db).stdout.splitlines()
    assert done[1] == f"{done[0]} existing" and done[2].isdigit()
    again = json.loads(cli("enqueue", "-", "--json", input=lines, db=db).stdout)
    assert again["ids"][:2] == [int(done[0])] * 2 and again["conflicts"] == ["existing", "existing", None]
    failed = cli("enqueue", "-", input='{"kind":"b"}\n{"kind":"a","unique_by":{},"on_conflict":"raise"}\n', db=db, code=65)
    assert failed.stderr == (f"jobqd enqueue: line 2: is not unique: job {done[0]}, available, has the same kind, queue and args; "
                             "nothing was enqueued\n")


WRONG_WORDS = [
    (["--unique-by", "[]"], 64, "--unique-by must be a JSON object, got []"),
    (["--unique-by", '{"x": 1}'], 65, 'unique_by has an unknown member "x": allowed are fields, keys, period and states'),
    (["--replace", "[args]"], 64, "--replace: expected a value at byte 2, found 'a'"),
    (["--on-conflict", "update"], 65, 'on_conflict must be "ignore", "replace" or "raise", got "update"'),
    (["--expires-at", "x", "--expires-in", "1s"], 64, "--expires-at and --expires-in exclude each other: give only one"),
    (["--expires-at", "soon"], 65, '--expires-at: "soon" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["--expires-at", "2099-01-01", "--at", "later"], 65, '--at: "later" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["--expires-in", "0s"], 64, '--expires-in: "0s" is not allowed: 1ms to 36500d'),
]


@pytest.mark.parametrize("words,code,message", WRONG_WORDS)
def test_wrong_words(cli, db, words, code, message):
    assert cli("enqueue", "a", *words, db=db, code=code).stderr == f"jobqd enqueue: {message}\n"
    assert db.states() == {}
