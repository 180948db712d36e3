#!/usr/bin/python3
"""24 hours in small: many jobs, of which one in a hundred kills its worker; what jobqd holds stays flat.

    JOBQ_BUILD_DIR=$PWD/build /usr/bin/python3 tests/soak/endurance.py [--jobs 2000000] [--crashes 0.01]

Prints at ten points: jobs ended, crashes, jobqd's resident memory, its open files, its children. Exits with 1 when one of
the last three has grown from the third point on, or a job was lost.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from harness import schema  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.pg import Cluster  # noqa: E402
from harness.waiting import wait_for  # noqa: E402

POINTS = 10
# From the third point on: what a heap may breathe, descriptors and processes that come and go with a crash.
MOST_KB, MOST_FILES, MOST_CHILDREN = 1024, 16, 6


def children(pid):
    found = 0
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            found += (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(pid)
        except OSError:
            pass  # it ended while we looked
    return found


def measure(node):
    return node.rss_kb(), len(os.listdir(f"/proc/{node.pid}/fd")), children(node.pid)


def insert(db, jobs, crashes):
    """A crash on the first attempt, spread evenly."""
    every = round(1 / crashes)
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT CASE WHEN n %% %s = 0 THEN 'segfault' ELSE 'ok' END, '{\"times\": 1}'"
             " FROM generate_series(1, %s) n RETURNING 1", (every, jobs))
    return jobs // every


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=2000000)
    options.add_argument("--crashes", type=float, default=0.01, help="the part of the jobs that kill their worker")
    wanted = options.parse_args()
    build = schema.build_folder()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-endurance."))
    folder.chmod(0o755)
    os.chdir(folder)  # core files, if they are switched on
    cluster = Cluster().start()
    node, points, crashed = None, [], 0
    try:
        db = cluster.create_database("endurance")
        schema.migrate(db)
        (folder / "node").mkdir()
        queue = {"command": build / "tests" / "fault_worker", "concurrency": 4, "max_restarts": 1000, "max_seconds": "1s",
                 "backoff": "constant(0s)", "preload": True}
        node = Daemon(build / "jobqd" / "jobqd", folder / "node", db.uri, {"default": queue}, {"log_level": "error"}, None, ())
        node.start(ready=False)
        print(f"{'jobs':>9} {'crashes':>8} {'RSS kB':>8} {'files':>6} {'children':>9} {'jobs/s':>8}")
        for point in range(1, POINTS + 1):
            begun = time.monotonic()
            crashed += insert(db, wanted.jobs // POINTS, wanted.crashes)
            wait_for(lambda: db.value("SELECT NOT EXISTS (SELECT FROM jobq.jobs)"), 3600)
            points.append(measure(node))
            print(f"{wanted.jobs // POINTS * point:>9} {crashed:>8} {points[-1][0]:>8} {points[-1][1]:>6} {points[-1][2]:>9} "
                  f"{wanted.jobs / POINTS / (time.monotonic() - begun):>8.0f}", flush=True)
        rows = db.query("SELECT state::text, count(*), sum(jsonb_array_length(errors)) FROM jobq.finished_jobs GROUP BY 1")
        assert rows == [("completed", wanted.jobs // POINTS * POINTS, crashed)], rows
        grown = [max(point[i] for point in points[2:]) - points[2][i] for i in range(3)]
        print(f"from the third point on: {grown[0]} kB, {grown[1]} files and {grown[2]} children more at most; every job completed, "
              f"{crashed} crash errors")
        assert grown[0] <= MOST_KB and grown[1] <= MOST_FILES and grown[2] <= MOST_CHILDREN, "jobqd has grown"
        return 0
    except AssertionError as fault:
        print(f"FAILED: {fault}\nthe log is in {folder}")
        return 1
    finally:
        if node:
            node.abandon()
        cluster.remove()


if __name__ == "__main__":
    sys.exit(main())
