"""Many jobs at once, and what must be true of them when whatever killed this or that is over."""

from collections import Counter

from .waiting import wait_for


def watch_nodes(db):
    """From now on the table public.seen_nodes keeps (id, name, pid) of each node that ever registered."""
    with db.connect() as conn:
        conn.execute("CREATE TABLE public.seen_nodes (id bigint PRIMARY KEY, name text, pid int)")
        conn.execute("""CREATE FUNCTION public.see_node() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO public.seen_nodes VALUES (NEW.id, NEW.name, NEW.pid); RETURN NULL; END $$""")
        conn.execute("CREATE TRIGGER see_node AFTER INSERT ON jobq.nodes FOR EACH ROW EXECUTE FUNCTION public.see_node()")


def enqueue_crowd(db, n, kind="work", queue="default", max_attempts=1000, priority=0):
    """n jobs in one statement; returns their ids."""
    return [row[0] for row in db.query(
        "SELECT jobq.enqueue_many((SELECT jsonb_agg(jsonb_build_object('kind', %s::text, 'args',"
        " jsonb_build_object('n', n), 'queue', %s::text, 'max_attempts', %s::int, 'priority', %s::int))"
        " FROM generate_series(1, %s) n))", (kind, queue, max_attempts, priority, n))]


def wait_ended(ledger, n, alive=lambda: None, timeout=120):
    """Waits until n runs have ended by the ledger. alive: raises when it makes no sense to wait on."""
    def enough():
        alive()
        return ledger.read().ended >= n
    wait_for(enough, timeout, what=lambda: f"{n} runs to end, {ledger.ended} have")


def wait_all_finished(db, n, timeout=180):
    """Waits until no job is live and n have ended."""
    def counts():
        return db.query("SELECT (SELECT count(*) FROM jobq.jobs), (SELECT count(*) FROM jobq.finished_jobs)")[0]
    wait_for(lambda: counts() == (0, n), timeout, what=lambda: f"{n} jobs to end: (live, ended) is {counts()}, {db.states()}")


def check_completed(db, ledger, ids):
    """Each job is completed, once, by the attempt that ran last and by the node that it ran on, and every other
    attempt has left one error. Needs watch_nodes. Returns a Counter of the errors' kinds."""
    pids = dict(db.query("SELECT id, pid FROM public.seen_nodes"))
    rows = db.query("SELECT id, state::text, attempt, attempted_by, errors FROM jobq.finished_jobs")
    assert sorted(row[0] for row in rows) == sorted(ids), "a job is missing, or is there twice"
    runs = ledger.read().check_never_twice_at_once().by_job()
    kinds = Counter()
    for job, state, attempt, node, errors in rows:
        told = f"job {job}: {state}, attempt {attempt}, node {node}, errors {errors}, runs {runs[job]}"
        assert state == "completed", told
        last = runs[job][-1]
        assert last.end_ns is not None and last.attempt == attempt, f"acknowledged by another attempt: {told}"
        assert pids[node] == last.worker.parent, f"acknowledged by another node: {told}"
        assert [error["attempt"] for error in errors] == list(range(1, attempt)), f"one error an attempt: {told}"
        kinds.update(error["kind"] for error in errors)
    return kinds
