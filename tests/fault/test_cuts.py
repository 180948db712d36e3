"""The work connection is cut at every message of its life in turn: of the greeting, the set-up, the session, a claim, an
acknowledgement, in either direction. What is not known to be committed is said again, and counts once."""

import pytest

from harness.crowd import check_completed, enqueue_crowd, watch_nodes
from harness.pg import SUPERUSER
from harness.waiting import wait_for
from harness.wire import Plan, WireProxy

# Of which kinds a cut must have come, or the test has not seen what it is about.
KINDS = {
    ("up", "within"): {"startup", "Q", "P", "B", "D", "E", "S"},
    ("up", "behind"): {"E", "S"},
    ("down", "within"): {"R", "S", "K", "Z", "T", "D", "C", "1", "2"},
    ("down", "behind"): {"C", "Z"},
}


@pytest.fixture
def proxy(postgres):
    with WireProxy(f"{postgres.dir}/.s.PGSQL.5432") as one:
        yield one


@pytest.mark.parametrize("way, where", KINDS)
def test_the_work_connection_is_cut_at_each_message(db, proxy, jobqd, programs, ledger, way, where):
    """One connection is cut at its first message, the next but one at its second, and so on, until one has done its two
    jobs before its message came. Between them one is left alone, and does the jobs."""
    watch_nodes(db)
    uri = f"postgresql://{SUPERUSER}@127.0.0.1:{proxy.port}/{db.name}?sslmode=disable&gssencmode=disable"
    node = jobqd(uri, {"default": {"command": ledger.command(programs("ledger_worker")), "concurrency": 1}}, lease="60s")
    ids, cut = [], []
    while len(cut) == len(ids) // 2:
        plan = Plan(way, len(cut) + 1, behind=where == "behind", rst=len(cut) % 2 == 1)
        proxy.cut_work(plan)
        ids += enqueue_crowd(db, 2)
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == len(ids),
                 what=lambda: f"2 jobs after a cut at message {len(cut) + 1}, {plan.cut}: {db.states()}")
        assert proxy.planned is plan
        if plan.cut:
            cut.append(plan.cut)
    print(f"{len(cut)} cuts {where} {way}: {' '.join(cut)}")
    assert KINDS[way, where] <= set(cut)
    assert not check_completed(db, ledger, ids)
    assert len(ledger.runs) == len(ids), "a job ran twice"
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 1
    assert node.running
