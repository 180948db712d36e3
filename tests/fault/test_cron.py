"""Each slot of a cron becomes one job, whatever befalls the nodes: their clocks an hour apart, killed and restarted at random."""

import os
import random
import time

import pytest

from harness.clock import Clock, clean_up
from harness.waiting import wait_for

CRONS, SLOTS = 4, 200
SEED = int(os.environ.get("JOBQ_TEST_SEED", "20261123"))


@pytest.fixture(scope="module", autouse=True)
def no_shared_memory_is_left():
    yield
    clean_up()


@pytest.mark.limit(900)
def test_each_slot_once_while_nodes_with_wrong_clocks_are_killed(db, tmp_path, jobqd):
    rng = random.Random(SEED)
    nodes = []
    for hours in (-1, 0, 1):
        clock = Clock(tmp_path / f"clock{hours}")
        clock.set(f"{hours * 3600:+d}")
        nodes.append(jobqd(db, {"default": {"exec": "/bin/true", "concurrency": 1}}, env=clock.env, lease="1s"))
    db.query("SELECT jobq.cron_set('tick' || n, '@every 1s', 'k', missed => 'all') FROM generate_series(1, %s) n", (CRONS,))
    since = db.value("SELECT min(next_at) FROM jobq.crons")
    leads = "SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id"
    kills, led = 0, set()
    while db.value("SELECT coalesce(sum(extract(epoch FROM last_at - %s) + 1), 0) FROM jobq.crons", (since,)) < SLOTS:
        led.add(db.value(leads))
        # At a moment that the seed decides; mostly the leader.
        moment = time.monotonic() + rng.uniform(0, 0.7)
        wait_for(lambda: time.monotonic() >= moment)
        leader = [node for node in nodes if node.folder.name == db.value(leads)]
        node = leader[0] if leader and rng.random() < 0.7 else rng.choice(nodes)
        if node.running:
            if rng.random() < 0.8:
                node.kill()
            else:
                node.expected_exit = node.stop()
            kills += 1
        for other in nodes:
            if not other.running and rng.random() < 0.6:
                other.expected_exit = 0
                other.start(ready=False)
    for node in nodes:
        if not node.running:
            node.expected_exit = 0
            node.start(ready=False)
    for node in nodes:
        node.wait_ready()
    db.query("SELECT jobq.cron_pause(name) FROM jobq.crons")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, what=db.states)
    total = 0
    for name, jobs, slots, span, early in db.query("""
            SELECT meta ->> 'cron', count(*), count(DISTINCT at), extract(epoch FROM max(at) - %s)::int + 1,
                   count(*) FILTER (WHERE at > inserted_at + interval '1 s')
              FROM (SELECT *, (meta ->> 'cron_at')::timestamptz AS at FROM jobq.all_jobs) j GROUP BY 1""", (since,)):
        assert jobs == slots, f"{name}: a slot came twice"
        assert slots == span, f"{name}: a slot is missing"
        assert early == 0, f"{name}: a slot came before its time (inserted_at is when the transaction began)"
        total += slots
    assert total >= SLOTS and kills >= 20 and len(led - {None}) > 1, (total, kills, led)
    print(f"{total} slots, each once; {kills} ends of nodes, {len(led - {None})} of them led")
