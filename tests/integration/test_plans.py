"""Plans of a database whose statistics say that the tables are nearly empty, as a queue that ran dry leaves them, while a crowd
of jobs waits: no statement looks at the crowd."""

import json
import re

import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.once

CROWD, SOME = 20_000, 50
FAR = "2099-01-01T00:00:00Z"

# What the statistics say of a table and of its indexes: pages, and rows in them. Of a table that is empty by them each plan costs
# the same to the planner, and which it takes is chance.
STATISTICS = {"no rows": "1, 0", "a row": "pg_relation_size(c.oid) / 8192, 1", "few rows": "pg_relation_size(c.oid) / 8192, 50"}


def touched(node):
    """The rows of the plan's busiest node, with those that it threw away, and that node. A table that is read once from end to
    end, to see what a node that died has held, does not count."""
    own = (node["Actual Rows"] + sum(node[key] for key in node if key.startswith("Rows Removed by"))) * node["Actual Loops"]
    if node["Node Type"] == "Seq Scan" and node["Actual Loops"] == 1 and "attempted_by" in node.get("Filter", ""):
        own = 0
    found = [touched(child) for child in node.get("Plans", [])] + [(own, node)]
    return max(found, key=lambda pair: pair[0])


def check_plans(log):
    """That none of the plans in the server's log touched more than a few of the crowd; returns how many there are. Those of the
    test itself do not count: they write jobq.jobs without the quotes."""
    plans = [plan for text in re.findall(r"plan:\n((?:\t.*\n)+)", log) if '"jobq".' in (plan := json.loads(text))["Query Text"]]
    wrong = {}
    for plan in plans:
        rows, node = touched(plan["Plan"])
        if rows > CROWD / 2:
            wrong[plan["Query Text"]] = rows, {key: value for key, value in node.items() if key != "Plans"}
    assert not wrong, "\n".join(f"{rows} rows for {SOME} jobs: {text}\n{node}" for text, (rows, node) in wrong.items())
    return len(plans)


@pytest.fixture(params=STATISTICS.values(), ids=STATISTICS)
def misled(request, db):
    """The database, with its crowd; and as the server is then told of it. Every plan goes to the server's log."""
    for queue, when in (("default", f"'{FAR}'"), ("other", "now()")):
        db.query(f"INSERT INTO jobq.jobs (kind, queue, scheduled_at) SELECT 'far', '{queue}', {when} FROM generate_series(1, {CROWD // 2})")
    for table in ("jobs", "_cancels", "_progress"):
        db.query(f"ALTER TABLE jobq.{table} SET (autovacuum_enabled = off)")
        db.query(f"UPDATE pg_class c SET (relpages, reltuples) = ({request.param}) FROM pg_index i"
                 f" WHERE i.indrelid = 'jobq.{table}'::regclass AND c.oid IN (i.indrelid, i.indexrelid)")
    for name, value in {"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
                        "auto_explain.log_analyze": "on", "auto_explain.log_timing": "off", "auto_explain.log_format": "json",
                        "auto_explain.log_nested_statements": "on"}.items():
        db.query(f'ALTER DATABASE "{db.name}" SET {name} = {value}')
    db.close()
    return db


def test_a_node_looks_at_its_own_jobs_alone(misled, jobqd, programs, postgres):
    db, start = misled, postgres.log_size()
    queue = {"default": {"command": programs("fault_worker"), "concurrency": 8, "mailbox": 1, "backoff": "constant(0s)"}}
    first = jobqd(db, queue, lease="2s")
    held = [db.enqueue("sleep", '{"ms": 3600000}') for _ in range(2)]
    for kind, args in [("ok", {}), ("ok", {"result": 1}), ("fail", {"times": 1, "retry_in_ms": 1}), ("snooze", {"ms": 1, "unless": "/"}),
                       ("discard", {}), ("cancel", {}), ("segfault", {"times": 1}), ("progress", {"steps": 2, "ms": 1}),
                       ("fail", {"retry_in_ms": 10})]:
        for _ in range(SOME // 10):
            db.enqueue(kind, json.dumps(args), max_attempts=2)
    db.query("UPDATE jobq.jobs SET expires_at = now() WHERE id = %s", [db.enqueue("ok", queue="other")])
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE kind <> 'far'") == 2, 120,
             what=lambda: db.query("SELECT id, kind, state, attempt FROM jobq.jobs WHERE kind <> 'far'"))
    db.query("SELECT jobq.cancel(%s)", [held[0]])
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE id = %s", [held[0]]) == 0)
    first.kill()
    jobqd(db, queue, lease="2s")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s AND attempt = 2", [held[1]]) == "executing")
    assert check_plans(postgres.log(start)) > 100


def test_calls_for_some_jobs_look_at_those_alone(misled, postgres):
    db, start = misled, postgres.log_size()
    ids = [db.enqueue("a", "{}", queue="q", scheduled_at=FAR) for _ in range(SOME)]
    some = "jsonb_build_object('ids', %s::jsonb)"
    assert db.value(f"SELECT jobq.retry_many({some})", [json.dumps(ids)]) == SOME
    assert db.value(f"SELECT jobq.cancel_many({some})", [json.dumps(ids)]) == SOME
    assert db.value(f"SELECT jobq.retry_many({some})", [json.dumps(ids)]) == SOME
    assert db.value(f"SELECT jobq.delete_many({some})", [json.dumps(ids[2:])]) == SOME - 2
    assert db.value("SELECT jobq.cancel(%s)", [ids[0]])
    assert db.value("SELECT jobq.retry(%s)", [ids[0]])
    assert db.value("SELECT jobq.delete(%s)", [ids[0]])
    for _ in range(2):
        db.enqueue("a", "{}", unique_key="k")
    db.query("SELECT jobq.enqueue_many(jsonb_agg(jsonb_build_object('kind', 'a', 'unique_key', 'k' || n))) FROM generate_series(1, 50) n")
    assert check_plans(postgres.log(start)) > 20
