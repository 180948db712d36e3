"""Two nodes, each cut off, stopped or killed at random with a lease of one second: no job is ever run by both at once, and
none is lost. The same with the fences down fails, so the check sees what it is there for. tests/soak/overlap.py is the
long form."""

import pytest

from harness import overlap


@pytest.fixture
def run_overlap(db, postgres, jobqd, programs, ledger):
    def run(seconds, **more):
        env = more.pop("env", None)

        def start_node(uri, queues, lease):
            return jobqd(uri, queues, lease=lease, env=env)
        return overlap.run(db, f"{postgres.dir}/.s.PGSQL.5432", start_node, ledger, programs("ledger_worker"), seconds,
                           say=print, **more)
    return run


def test_two_nodes_in_trouble_never_run_a_job_at_the_same_time(run_overlap):
    print(run_overlap(8))


def test_without_the_fences_they_do(run_overlap, db):
    with pytest.raises(AssertionError, match="ran twice at the same time|two runs at the same time"):
        run_overlap(60, env={"JOBQ_TEST_UNFENCED": "1"})
