"""Housekeeping belongs to one node, the leader. It passes to another within one lease, and does no harm when two nodes
believe that they lead: each piece of it is one statement that the database itself keeps apart from the others."""

import random
import re
import time
from collections import Counter

import pytest

from faultproxy import FaultProxy
from harness.crowd import wait_all_finished, watch_nodes
from harness.overlap import Trouble
from harness.pg import SUPERUSER
from harness.waiting import wait_for

LEADER = "SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id WHERE l.expires_at > clock_timestamp()"
JOBS = 3000
FAULTS = 12


def watch_staging(db):
    """From now on the table public.staged has a row for each time that a job was made available by its time."""
    with db.connect() as conn:
        conn.execute("CREATE TABLE public.staged (id bigint, attempt int)")
        conn.execute("""CREATE FUNCTION public.see_staged() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO public.staged VALUES (NEW.id, NEW.attempt); RETURN NULL; END $$""")
        conn.execute("CREATE TRIGGER see_staged AFTER UPDATE ON jobq.jobs FOR EACH ROW WHEN (OLD.state = 'scheduled'"
                     " AND NEW.state = 'available') EXECUTE FUNCTION public.see_staged()")


def enqueue_due(db, n, over_s):
    """n jobs that become due in the course of so many seconds, the first at once."""
    return [row[0] for row in db.query(
        "SELECT jobq.enqueue('work', queue => 'default', max_attempts => 1000,"
        " scheduled_at => clock_timestamp() + random() * %s * interval '1 second') FROM generate_series(1, %s)", (over_s, n))]


def enqueue_late(db, n, over_s):
    """n jobs that nobody works, which expire in the course of so many seconds."""
    return [row[0] for row in db.query(
        "SELECT jobq.enqueue('late', queue => 'nobody',"
        " expires_at => clock_timestamp() + random() * %s * interval '1 second') FROM generate_series(1, %s)", (over_s, n))]


def cancel_some(db, ids, chance):
    """Jobs that wait, run, or have ended by now; returns those of which jobq says that they are, or may be, cancelled."""
    chosen = chance.sample(ids, 3)
    for job in chosen:
        db.value("SELECT jobq.cancel(%s)", (job,))
    return chosen


def check_each_once(db, ledger, ids, cancelled):
    """No job is lost or there twice; it is completed, or cancelled and somebody wanted that. None was staged twice."""
    rows = db.query("SELECT id, state::text, attempt, errors FROM jobq.finished_jobs WHERE queue = 'default'")
    assert sorted(row[0] for row in rows) == sorted(ids), "a job is missing, or is there twice"
    runs = ledger.read().check_never_twice_at_once().by_job()
    for job, state, attempt, errors in rows:
        run_of = runs.get(job, [])  # none: it was cancelled before it began, or between its claim and its start
        told = f"job {job}: {state}, attempt {attempt}, errors {errors}, runs {run_of}"
        assert state == "completed" or (state == "cancelled" and job in cancelled), told
        assert sum(1 for run in run_of if run.end_ns is not None) <= 1 + sum(
            1 for error in errors if error["kind"] == "orphaned"), f"run again without a reason: {told}"
        last = [error["attempt"] for error in errors if error["kind"] != "cancelled"]
        assert last == sorted(set(last)), f"an attempt was charged twice: {told}"
        if state == "completed":
            assert run_of and run_of[-1].end_ns is not None and run_of[-1].attempt == attempt, told
            assert last == list(range(1, attempt)), told
    again = db.query("SELECT id, count(*) FROM public.staged GROUP BY id HAVING count(*) > 1")
    assert again == [], f"staged more than once: {again}"
    return Counter(state for _, state, _, _ in rows)


def check_expired_once(db, ids):
    rows = db.query("SELECT id, state::text, attempt, jsonb_path_query_array(errors, '$[*].kind')"
                    "  FROM jobq.finished_jobs WHERE queue = 'nobody'")
    assert sorted(rows) == [(job, "cancelled", 0, ["expired"]) for job in sorted(ids)]


def check_each_slot_once(db):
    """Every second from the first one on, for each cron; returns how many."""
    slots = db.query("""SELECT meta ->> 'cron', count(*), count(DISTINCT at), extract(epoch FROM max(at) - min(at))::int + 1
                          FROM (SELECT meta, (meta ->> 'cron_at')::timestamptz AS at FROM jobq.jobs WHERE kind = 'tick') j GROUP BY 1""")
    assert len(slots) == 2
    for name, jobs, distinct, span in slots:
        assert jobs == distinct == span, f"{name}: {jobs} jobs of {distinct} slots in {span} s"
    return sum(jobs for _, jobs, _, _ in slots)


@pytest.mark.limit(400)
def test_two_nodes_that_both_believe_to_lead_do_no_harm(db, postgres, jobqd, programs, ledger):
    """Both stage, rescue, prune, clean up, end what expires and enqueue for the crons, under load, while each is killed,
    frozen and cut off in turn."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    watch_nodes(db)
    watch_staging(db)
    # A day that is long over: both drop it.
    db.query("SELECT jobq._create_partitions(date '2020-01-01', 1)")
    proxies = [FaultProxy(f"{postgres.dir}/.s.PGSQL.5432") for _ in range(2)]
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 8000), "concurrency": 4,
                         "max_restarts": 1000}}
    nodes, troubles, ids, late, cancelled = [], [], [], [], set()
    try:
        for proxy in proxies:
            uri = f"postgresql://{SUPERUSER}@127.0.0.1:{proxy.port}/{db.name}"
            nodes.append(jobqd(uri, queue, lease="1s", env={"JOBQ_TEST_LEADS": "1"}))
        for node in nodes:
            node.wait_log("leader: this node is now the leader")
        for cron in "ab":
            db.value("SELECT jobq.cron_set(%s, '@every 1s', 'tick', queue => 'nobody', missed => 'all')", (cron,))
        troubles = [Trouble(node, proxy, 1, random.Random(chance.random())) for node, proxy in zip(nodes, proxies)]

        def enough():
            if len(ids) < JOBS or db.value("SELECT count(*) FROM jobq.jobs") < 200:
                ids.extend(enqueue_due(db, 100, 3))
                late.extend(enqueue_late(db, 30, 3))
            cancelled.update(cancel_some(db, ids, chance))
            ledger.read().check_never_twice_at_once()
            done = sum((trouble.done for trouble in troubles), Counter())
            return len(ids) >= JOBS and sum(done.values()) >= FAULTS and done["kills of jobqd"] > 0
        wait_for(enough, 120, what=lambda: f"{FAULTS} faults: {[trouble.done for trouble in troubles]}, {len(ids)} jobs")
    finally:
        for trouble in troubles:
            trouble.stop()
        for proxy in proxies:
            proxy.resume()
    try:
        db.query("SELECT jobq.cron_pause(name) FROM jobq.crons")
        slots = check_each_slot_once(db)
        db.query("DELETE FROM jobq.jobs WHERE kind = 'tick'")
        wait_all_finished(db, len(ids) + len(late))
        check_expired_once(db, late)
        states = check_each_once(db, ledger, ids, cancelled)
        assert states["cancelled"] > 0
        wait_for(lambda: db.value("SELECT count(*) FROM jobq._cancels") == 0, what="the requests to be cleaned up")
        wait_for(lambda: db.value("SELECT count(*) FROM pg_class WHERE relname LIKE '_finished_%%20200101'") == 0)
        print(f"{len(ids)} jobs: {dict(states)}; {len(ledger.runs)} runs; {len(late)} expired; {slots} slots; "
              f"{db.value('SELECT count(*) FROM public.staged')} staged; {sum((t.done for t in troubles), Counter())}")
    finally:
        for node in nodes:
            node.finish()
        for proxy in proxies:
            proxy.close()


# ---- how the lead passes ----

def two_nodes(start, uris, programs, **settings):
    """The first one leads."""
    queue = {"default": {"command": programs("noop_worker"), "concurrency": 1}}
    return [start(uri, queue, **settings) for uri in uris]


def leads(db, name):
    wait_for(lambda: db.value(LEADER) == name, what=lambda: f"{name} to lead, {db.value(LEADER)} does")


@pytest.mark.alone
@pytest.mark.parametrize("attempt", range(3))
def test_the_lead_of_a_killed_node_passes_within_one_lease(db, jobqd, programs, attempt):
    first, _ = two_nodes(jobqd, [db, db], programs, lease="3s")
    leads(db, "node1")
    took = seconds_until(db, "node2", first.kill)
    print(f"kill -9: {took:.2f} s of a lease of 3 s")
    assert took < 3


def seconds_until(db, name, act):
    act()
    began = time.monotonic()
    leads(db, name)
    return time.monotonic() - began


@pytest.mark.alone
@pytest.mark.parametrize("notify,most_s", [("on", 3), ("off", 12)])
def test_the_lead_passes_at_once_when_the_leader_stops(db, jobqd, programs, notify, most_s):
    """Without notifications with the next try, a quarter of a lease later."""
    first, _ = two_nodes(jobqd, [db, db], programs, lease="30s", notify=notify)
    leads(db, "node1")
    took = seconds_until(db, "node2", first.stop)
    print(f"stop, notify {notify}: {took:.2f} s of a lease of 30 s")
    assert took < most_s


def test_a_leader_that_stops_asks_nothing_more(db, postgres, jobqd, programs):
    """Its housekeeping ends with its first step: a rescue that it began then might be committed, and reported nowhere."""
    db.query(f'ALTER DATABASE "{db.name}" SET log_statement = \'all\'')
    start = postgres.log_size()
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, lease="10m")
    leads(db, "node1")
    housekeeping = ("watch", "strays", "cancel_again")

    def asked():
        log = postgres.log(start)
        return {name: len(re.findall(rf"execute {name}\b", log)) for name in housekeeping}
    # The first look, and one more when it leads; the next is 100 s off.
    before = wait_for(lambda: asked() if all(asked().values()) and asked()["watch"] > 1 else None)
    node.stop()
    assert asked() == before


@pytest.mark.parametrize("notify,most_s", [("on", 5), ("off", 20)])
def test_the_lead_of_a_node_that_is_known_to_be_dead_passes_at_once(db, jobqd, programs, notify, most_s):
    """It comes back under its name before its lease is over, but a job of it is locked, so its old row stays for that. Who leads
    then gives the job back as soon as it can."""
    queue = {"default": {"command": programs("fault_worker"), "concurrency": 1}}
    first = jobqd(db, queue, lease="60s", notify=notify)
    leads(db, "node1")
    job = db.enqueue("hang")
    wait_for(lambda: db.states() == {"executing": 1})
    first.kill()
    first.expected_exit = 0
    with db.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [job])
        began = time.monotonic()
        first.start()
        leads(db, "node1")
        took = time.monotonic() - began
        print(f"notify {notify}: {took:.2f} s of a lease of 60 s")
        assert took < most_s
        assert db.value("SELECT count(*) FROM jobq.nodes WHERE name LIKE 'removed-%%'") == 1
    began = time.monotonic()
    wait_for(lambda: db.value("SELECT attempt FROM jobq.jobs WHERE id = %s AND state = 'executing'", [job]) == 2)
    took = time.monotonic() - began
    print(f"notify {notify}: {took:.2f} s from the lock's release to the next attempt")
    assert took < 8
    db.query("SELECT jobq.cancel(%s)", [job])
    wait_for(lambda: db.states() == {"cancelled": 1})


@pytest.fixture
def role(cluster):
    """A role that jobqd connects as, of which the number of connections can be limited."""
    name = "app"
    cluster.db.query(f"CREATE ROLE {name} LOGIN IN ROLE {SUPERUSER}")
    return name


@pytest.mark.alone
def test_the_lead_passes_within_one_lease_when_the_leader_has_no_house_connection(cluster, role, jobqd, programs):
    """What a leader does goes over that one. The node itself lives on, and is asked again once it is back."""
    db = cluster.db
    first, second = two_nodes(jobqd, [db.uri.replace(f"//{SUPERUSER}@", f"//{role}@"), db], programs, lease="3s")
    leads(db, "node1")

    def cut():
        db.query(f"ALTER ROLE {role} CONNECTION LIMIT 3")
        db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND application_name = 'jobqd maintenance'",
                 (role,))
    took = seconds_until(db, "node2", cut)
    print(f"maintenance connection cut: {took:.2f} s of a lease of 3 s")
    assert took < 3
    first.wait_log("leader: this node is no longer the leader")
    assert first.running
    db.query(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    first.wait_log("database: the maintenance connection is back")
    second.stop()
    leads(db, "node1")
