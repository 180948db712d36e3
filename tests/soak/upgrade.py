#!/usr/bin/python3
"""Upgrades in place during long jobs: the long form of fault/test_upgrade.py.

    JOBQ_BUILD_DIR=$PWD/build /usr/bin/python3 tests/soak/upgrade.py [--upgrades 10] [--seconds 5] [--jobs 40]

The daemon's program is replaced and executed anew while jobs of some seconds run, workers of a queue, programs of another.
Each job must run once, from its start to its end. Prints what happened; exits with 1 when one did not.
"""

import argparse
import pathlib
import shutil
import signal
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from harness import schema  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.ledger import Ledger  # noqa: E402
from harness.pg import Cluster  # noqa: E402
from harness.waiting import wait_for  # noqa: E402

TOOK_OVER = "took over from jobqd"


def upgrade(node, program, installed):
    """Returns how long claims stood still, in ms, from the daemon's own log."""
    before = node.log().count(TOOK_OVER)
    shutil.copy2(program, installed.with_suffix(".new"))
    installed.with_suffix(".new").rename(installed)
    begun = time.monotonic()
    node.signal(signal.SIGUSR2)
    wait_for(lambda: node.log().count(TOOK_OVER) > before, what=lambda: f"the upgrade:\n{node.log()}")
    return (time.monotonic() - begun) * 1000


def check(db, ledger, scripts, jobs):
    rows = db.query("SELECT queue, state::text, attempt, count(*) FROM jobq.finished_jobs GROUP BY 1, 2, 3 ORDER BY 1")
    assert rows == [("default", "completed", 1, jobs), ("shell", "completed", 1, jobs)], rows
    ledger.read()
    runs = [run.job for run in ledger.runs]
    assert len(runs) == len(set(runs)) == jobs and all(run.end_ns for run in ledger.runs), "a job ran more or less than once"
    assert not ledger.conflicts, ledger.conflicts
    lines = scripts.read_text().split("\n")[:-1]
    assert sorted(lines) == sorted(set(lines)) and len(lines) == 2 * jobs, "a script ran more or less than once"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--upgrades", type=int, default=10)
    options.add_argument("--seconds", type=float, default=5, help="what a job takes")
    options.add_argument("--jobs", type=int, default=40, help="of each queue")
    wanted = options.parse_args()
    program = schema.build_folder() / "jobqd" / "jobqd"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-upgrade."))
    installed, scripts = folder / "jobqd", folder / "scripts"
    shutil.copy2(program, installed)
    cluster = Cluster().start()
    ledger = Ledger(folder / "ledger")
    us = int(wanted.seconds * 1e6)
    worker = ledger.command(schema.build_folder() / "tests" / "ledger_worker", us, us)
    script = f"/bin/sh -c 'echo begin $JOBQ_JOB_ID >> {scripts}; sleep {wanted.seconds}; echo end $JOBQ_JOB_ID >> {scripts}'"
    node = None
    try:
        db = cluster.create_database("upgrade")
        schema.migrate(db)
        (folder / "node").mkdir()
        node = Daemon(installed, folder / "node", db.uri, {"default": {"command": worker, "concurrency": 8},
                                                            "shell": {"exec": script, "concurrency": 8}}, {}, None, ()).start()
        pid, workers = node.pid, set(node.workers())
        db.query("INSERT INTO jobq.jobs (kind, queue) SELECT 'work', q FROM unnest(ARRAY['default', 'shell']) q,"
                 " generate_series(1, %s) RETURNING 1", (wanted.jobs,))
        took = []
        for _ in range(wanted.upgrades):
            wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") >= 16)
            took.append(upgrade(node, program, installed))
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, 60 + wanted.jobs * wanted.seconds)
        check(db, ledger, scripts, wanted.jobs)
        assert node.pid == pid and workers <= set(node.workers()) and len(ledger.workers) == 8
        print(f"{wanted.upgrades} upgrades during jobs of {wanted.seconds:g} s: {2 * wanted.jobs} jobs, each ran once, from its start to "
              f"its end; the 8 workers stayed; rehearsal and takeover took {min(took):.0f} to {max(took):.0f} ms")
        return 0
    except AssertionError as fault:
        print(f"FAILED: {fault}\nthe ledger and the log are in {folder}")
        return 1
    finally:
        if node:
            node.abandon()
        cluster.remove()


if __name__ == "__main__":
    sys.exit(main())
