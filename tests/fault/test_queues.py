"""Queues that are paused and scaled while nodes die."""

import random

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.waiting import wait_for

JOBS = 12_000
ROUNDS = 6


def watch_claims(db):
    """From now on the table public.claims has the time of each claim's statement."""
    with db.connect() as conn:
        conn.execute("CREATE TABLE public.claims (at timestamptz)")
        conn.execute("""CREATE FUNCTION public.see_claim() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO public.claims VALUES (NEW.attempted_at); RETURN NULL; END $$""")
        conn.execute("CREATE TRIGGER see_claim AFTER UPDATE ON jobq.jobs FOR EACH ROW WHEN (NEW.state = 'executing'"
                     " AND OLD.state = 'available') EXECUTE FUNCTION public.see_claim()")


def test_a_pause_holds_while_nodes_are_killed(db, jobqd, programs, ledger):
    """Killed before, during and after: no job of a paused queue is claimed, and in the end each has run to its end once."""
    watch_nodes(db)
    watch_claims(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 2000), "concurrency": 4}}
    nodes = [jobqd(db, queue, lease="1s") for _ in range(2)]
    ids = enqueue_crowd(db, JOBS)
    windows = []
    for round in range(1, ROUNDS + 1):
        wait_ended(ledger, round * JOBS // (ROUNDS + 2))
        db.value("SELECT jobq.pause('default')")
        began = db.value("SELECT clock_timestamp() + interval '1 second'")
        for node in random.sample(nodes, random.choice((1, 2))):
            node.kill()
            node.start()
            node.expected_exit = 0
        db.value("SELECT jobq.scale('default', %s)", (random.choice((None, 0, 1, 6)),))
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 0, what=db.states)
        wait_for(lambda: db.value("SELECT clock_timestamp() > %s + interval '1 second'", (began,)), what="a second of pause")
        windows.append((began, db.value("SELECT clock_timestamp()")))
        db.value("SELECT jobq.scale('default', %s)", (random.choice((None, 2, 6)),))
        db.value("SELECT jobq.resume('default')")
    wait_all_finished(db, JOBS)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}
    for began, ended in windows:
        assert db.value("SELECT count(*) FROM public.claims WHERE at BETWEEN %s AND %s", (began, ended)) == 0
