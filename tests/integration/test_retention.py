"""What goes from the history before its day is dropped: by state, by queue, by count; nothing too early, and nothing live."""

import json
import threading

import psycopg
import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


def insert(db, queue, state, ages, first=1):
    """Ended jobs, so many seconds ago; their ids from `first` on. Their days' partitions are made."""
    db.query("SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date - 12, 16)")
    db.query("INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority, "
             "queue, kind, args, meta, tags, errors) SELECT %s - 1 + nth, now(), now(), now() - age * interval '1 s', "
             "%s::jobq.job_state, 1, 20, 0, %s, 'k', '{}', '{}', '{}', '[]' "
             "FROM unnest(%s::float8[]) WITH ORDINALITY a (age, nth)", [first, state, queue, [float(age) for age in ages]])


def prune(db, policy, pages=500):
    """A whole round; how many calls it took."""
    calls = 1
    while db.value("SELECT jobq._prune_history(%s::jsonb, %s)", [json.dumps(policy), pages]):
        calls += 1
    return calls


def ids(db):
    return [row[0] for row in db.query("SELECT id FROM jobq.finished_jobs ORDER BY id")]


# ---- the rules ----

def test_without_rules_nothing_goes(db):
    insert(db, "q", "completed", [1, 10 * 86400])
    assert prune(db, {}) == 1 and prune(db, {"queues": {}}) == 1
    assert ids(db) == [1, 2]


def test_by_state(db):
    insert(db, "q", "cancelled", [1, 3500, 3700, 86400, 5 * 86400])
    insert(db, "q", "discarded", [1, 3700, 5 * 86400], first=11)
    insert(db, "q", "completed", [5 * 86400], first=21)
    prune(db, {"cancelled_ms": HOUR_MS})
    assert ids(db) == [1, 2, 11, 12, 13, 21]
    prune(db, {"cancelled_ms": HOUR_MS, "discarded_ms": DAY_MS})
    assert ids(db) == [1, 2, 11, 12, 21]


def test_by_queue(db):
    for first, queue in ((1, "short"), (11, "long")):
        insert(db, queue, "completed", [5, 20, 86400], first=first)
        insert(db, queue, "discarded", [5, 20, 5 * 86400], first=first + 4)
    prune(db, {"queues": {"short": {"completed_ms": 10000, "failed_ms": DAY_MS}}})
    assert ids(db) == [1, 5, 6, 11, 12, 13, 15, 16, 17]


@pytest.mark.parametrize("keep", [1, 3, 4, 6, 100])
def test_by_count_over_days_and_states(db, keep):
    insert(db, "q", "completed", [1, 86400, 2 * 86400, 5 * 86400])
    insert(db, "q", "cancelled", [2, 86401, 6 * 86400], first=11)
    insert(db, "other", "completed", [86400 * n for n in range(10)], first=21)
    by_age = [1, 11, 2, 12, 3, 4, 13]
    prune(db, {"queues": {"q": {"count": keep}}})
    assert ids(db) == sorted(by_age[:keep]) + list(range(21, 31))


def test_by_count_among_jobs_that_ended_together(db):
    """A batch of acks has one time: the ids tell which are newer."""
    insert(db, "q", "completed", [100] * 50)
    prune(db, {"queues": {"q": {"count": 7}}})
    assert ids(db) == list(range(44, 51))


def test_what_no_days_partition_holds(db):
    insert(db, "q", "completed", [1, 100 * 86400, 200 * 86400])
    assert db.value("SELECT count(*) FROM jobq._finished_completed_default") == 2
    prune(db, {"queues": {"q": {"count": 2}}})
    assert ids(db) == [1, 2]
    prune(db, {"queues": {"q": {"completed_ms": DAY_MS}}})
    assert ids(db) == [1]


def test_live_jobs_are_not_touched(db):
    for _ in range(5):
        db.enqueue("a", queue="q")
    db.query("UPDATE jobq.jobs SET inserted_at = now() - interval '1 year', scheduled_at = now() - interval '1 year'")
    prune(db, {"cancelled_ms": 1, "discarded_ms": 1, "queues": {"q": {"completed_ms": 1, "failed_ms": 1, "count": 1}}})
    assert db.states() == {"available": 5}


# ---- in pieces, and once ----

def test_in_bounded_pieces(db):
    insert(db, "q", "completed", [3 * 86400] * 20000)
    insert(db, "other", "completed", [3 * 86400] * 20000, first=100001)
    pages = db.value("SELECT max(pg_relation_size(('jobq.' || name)::regclass)) / 8192 FROM jobq._history_parts()")
    policy = {"queues": {"q": {"completed_ms": DAY_MS}}}
    assert db.value("SELECT jobq._prune_history(%s::jsonb, 50)", [json.dumps(policy)]) == 1
    left = db.value("SELECT count(*) FROM jobq.finished_jobs WHERE queue = 'q'")
    assert 0 < 20000 - left < 20000 * 50 / pages * 4
    prune(db, policy, pages=50)
    assert db.query("SELECT queue, count(*) FROM jobq.finished_jobs GROUP BY 1") == [("other", 20000)]


def test_a_past_day_is_read_once(db):
    insert(db, "q", "completed", [3 * 86400, 86400 * 1.5])
    policy = {"queues": {"q": {"completed_ms": DAY_MS * 2}}}
    prune(db, policy)
    done = db.query("SELECT partition, rule FROM jobq._pruned ORDER BY 1")
    assert done and all(rule == "completed q" for _, rule in done)
    assert db.value("SELECT bool_and(high <= now() - interval '2 days') FROM jobq._history_parts() p JOIN jobq._pruned d ON p.name = d.partition")
    db.query("SELECT jobq._prune_history(%s::jsonb, 1)", [json.dumps(policy)])
    todo = set(db.value("SELECT todo FROM jobq._pruning"))
    assert not todo & {name for name, _ in done}
    assert ids(db) == [2]
    db.query("DROP TABLE jobq." + done[0][0])
    prune(db, {})
    prune(db, policy)
    assert done[0] not in db.query("SELECT partition, rule FROM jobq._pruned")


def test_two_leaders_at_once(db):
    insert(db, "q", "completed", [3 * 86400] * 5000)
    insert(db, "q", "cancelled", [3 * 86400] * 5000, first=100001)
    insert(db, "q", "completed", [10], first=200001)
    policy = json.dumps({"queues": {"q": {"completed_ms": DAY_MS, "failed_ms": DAY_MS}}})
    errors = []

    def leader():
        try:
            with db.connect() as conn:
                for _ in range(200):
                    conn.execute("SELECT jobq._prune_history(%s::jsonb, 5)", [policy])
        except Exception as error:  # noqa: BLE001
            errors.append(error)
    threads = [threading.Thread(target=leader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    prune(db, json.loads(policy))
    assert ids(db) == [200001]


def test_who_holds_the_round_holds_nobody_up(db):
    insert(db, "q", "completed", [3 * 86400] * 10)
    policy = json.dumps({"queues": {"q": {"completed_ms": DAY_MS}}})
    prune(db, json.loads(policy))
    insert(db, "q", "completed", [3600], first=101)
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT jobq._prune_history(%s::jsonb, 5)", [policy])
        assert db.value("SELECT jobq._prune_history(%s::jsonb, 5)", [policy]) == 0
        conn.rollback()


def test_a_row_in_use_is_passed_over(db):
    insert(db, "q", "cancelled", [20, 20])
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT jobq.retry(1)")
        prune(db, {"cancelled_ms": 1000})
        conn.commit()
    assert ids(db) == [] and db.states() == {"available": 1}


def refuse(db, condition):
    db.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
             " CREATE TRIGGER refuse BEFORE DELETE ON jobq.finished_jobs FOR EACH ROW"
             f" WHEN ({condition}) EXECUTE FUNCTION public.refuse()")


@pytest.mark.parametrize("how", ["refused", "locked", "many"])
def test_what_was_left_of_a_past_day_goes_in_a_later_round(db, how):
    """A day out of which a rule has taken all is not read again: not one of which something was refused, or locked."""
    insert(db, "q", "completed", [3 * 86400] * 2000)
    policy = {"queues": {"q": {"completed_ms": DAY_MS}}}
    with db.connect(autocommit=False) as conn:
        if how == "locked":
            conn.execute("SELECT FROM jobq.finished_jobs WHERE id = 7 FOR UPDATE")
        else:
            refuse(db, "OLD.id = 7" if how == "refused" else "OLD.id % 20 = 0")
        kept = [7] if how != "many" else list(range(20, 2001, 20))
        prune(db, policy, pages=5)
        assert ids(db) == kept
        prune(db, policy, pages=5)
        assert ids(db) == kept
        assert db.query("SELECT FROM jobq._pruned d JOIN jobq._history_parts() p ON p.name = d.partition"
                        " WHERE now() - interval '3 days' BETWEEN p.low AND p.high AND p.completed") == []
    db.query("DROP FUNCTION IF EXISTS public.refuse() CASCADE")
    prune(db, policy)
    assert ids(db) == []
    prune(db, policy)
    assert db.value("SELECT count(*) FROM jobq._pruned d JOIN jobq._history_parts() p ON p.name = d.partition"
                    " WHERE now() - interval '3 days' BETWEEN p.low AND p.high AND p.completed") == 1


def test_a_day_that_is_locked_keeps_no_other(db):
    insert(db, "q", "completed", [5 * 86400, 4 * 86400, 3 * 86400])
    policy = {"queues": {"q": {"completed_ms": DAY_MS}}}
    name = db.value("SELECT tableoid::regclass::text FROM jobq.finished_jobs WHERE id = 1")
    with db.connect(autocommit=False) as conn:
        conn.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        prune(db, policy)
        conn.rollback()
    assert ids(db) == [1]
    prune(db, policy)
    assert ids(db) == []


FAULTS = [("NULL, 1", "policy must be a JSON object, got null"), ("'[]', 1", "policy must be a JSON object, got []"),
          ("'{}', 0", "pages must be 1 or more, got 0"), ("'{}', NULL", "pages must be 1 or more, got null")]


@pytest.mark.parametrize("arguments,message", FAULTS, ids=[a for a, _ in FAULTS])
def test_prune_history_refuses(db, arguments, message):
    with pytest.raises(psycopg.Error) as caught:
        db.query(f"SELECT jobq._prune_history({arguments})")
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == ("22023", f"jobq._prune_history: {message}")


# ---- what the nodes say ----

def test_the_longest_of_the_nodes_counts(db):
    def node(name, alive, **queues):
        db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues) VALUES (%s, 'h', 1, 1, '0', "
                 "now() + %s * interval '1 hour', %s::jsonb)", [name, 1 if alive else -1,
                                                              json.dumps({q: {"wanted": 1, **({"keep": k} if k else {})}
                                                                          for q, k in queues.items()})])
    node("a", True, q={"completed_ms": 5, "count": 10}, r={"failed_ms": 7}, s={"count": 3})
    node("b", True, q={"completed_ms": 9}, r={"failed_ms": 1}, t=None)
    node("c", False, q={"completed_ms": 99}, s=None, u={"count": 1})
    assert db.value("SELECT jobq._queues_retention()") == {"q": {"completed_ms": 9}, "r": {"failed_ms": 7}, "s": {"count": 3}}


def test_the_leader_carries_out_what_all_nodes_say(db, jobqd, programs):
    """Two nodes with a queue each; whichever leads. Jobs are run meanwhile."""
    env = {"JOBQ_TEST_PRUNE_MS": "100"}
    for queue, keep in (("a", {"keep_completed": "1d"}), ("b", {"keep_count": 4})):
        jobqd(db, {queue: {"command": programs("noop_worker"), **keep}, "c": {"command": programs("noop_worker")}}, env=env,
              lease="1s", keep_cancelled="1h")
    for first, queue in ((1001, "a"), (2001, "b"), (3001, "c")):
        insert(db, queue, "completed", [2 * 86400] * 300, first=first)
    insert(db, "c", "cancelled", [7200, 60], first=4001)
    db.query("INSERT INTO jobq.jobs (kind, queue) SELECT 'noop', (ARRAY['a', 'b', 'c'])[1 + n % 3] FROM generate_series(1, 3000) n")

    def counts():
        return dict(db.query("SELECT queue, count(*) FROM jobq.finished_jobs WHERE id > 1000 GROUP BY 1"))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, what="the jobs to be run")
    wait_for(lambda: db.query("SELECT queue, count(*) FROM jobq.finished_jobs WHERE state = 'completed' GROUP BY 1 ORDER BY 1")
             == [("a", 1000), ("b", 4), ("c", 1300)], what=lambda: f"the history to be pruned: {counts()}")
    wait_for(lambda: ids(db)[-1] == 4002 and 4001 not in ids(db), what="the cancelled one to go")


def test_configuration(cli, tmp_path):
    conf = tmp_path / "t.conf"

    def check(text, code=0):
        conf.write_text(text)
        return cli("config", "check", "-c", conf, code=code).stderr.strip()
    head = "[jobqd]\nkeep_completed = 2d\nkeep_failed = 3d\nkeep_discarded = 90m\n"
    queue = "[queue q]\nexec = /bin/true\n"
    check(head + queue + "keep_completed = 1s\nkeep_failed = 3d\nkeep_count = 1000\n")
    for line, option, text in ((7, "keep_completed", "49h"), (7, "keep_failed", "73h")):
        said = check(head + queue + f"{option} = {text}\n", code=78)
        days = 2 if option == "keep_completed" else 3
        assert said.endswith(f"t.conf:{line}: [queue q] {option}: longer than the {days}d after which [jobqd] drops the history")
    assert 'keep_cancelled: "0s" is not allowed: 1s to 3650d' in check("[jobqd]\nkeep_cancelled = 0s\n", code=78)
    assert 'keep_count: "-1" is not allowed: 0 to 1000000000' in check(queue + "keep_count = -1\n", code=78)
    conf.write_text(head + queue + "keep_count = 5\n")
    shown = cli("config", "print", "-c", conf).stdout
    assert "keep_discarded = 1h30m" in shown and "keep_count = 5" in shown and "keep_cancelled" not in shown


# ---- how it is found ----

def test_a_window_is_found_by_the_page(db):
    """A window of pages is a range of ctids, not a look through the table."""
    insert(db, "q", "completed", [3 * 86400] * 1000)
    name = db.value("SELECT relname FROM pg_class WHERE oid = (SELECT tableoid FROM jobq.finished_jobs LIMIT 1)")
    plan = "\n".join(row[0] for row in db.query(f"EXPLAIN SELECT ctid FROM jobq.{name} WHERE ctid >= '(1,0)' AND ctid < '(5,0)'"))
    assert "Tid Range Scan" in plan
