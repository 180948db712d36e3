"""The Python package at length: enqueue_many beside C's, a million jobs in and a million done, and what memory that takes.

Rates are taken in turn, so that what else the machine does meets both. Where Debian's python3-rq and redis-server are
installed, RQ does no-op jobs beside it.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import textwrap
import time

from place import arguments, figure, place, program

from harness.daemon import clean_environment
from harness.schema import build_folder
from harness.waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "bindings" / "python" / "src"
LIBRARY = build_folder() / "libjobq" / "libjobq.so.0"
BATCH = 1000
LEAST_PERCENT, LEAST_DRAIN, MOST_GROWTH_KB = 60, 15000, 1024

os.environ["JOBQ_LIBRARY"] = str(LIBRARY)
sys.path.insert(0, str(SOURCE))

import jobq  # noqa: E402

JOBS = """
import jobq

@jobq.worker("noop")
def noop(n: int) -> None:
    pass
"""


def rss_kb(pid="self"):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def in_c(at, seconds):
    done = subprocess.run([program("jobqd"), "bench", "enqueue", "--connections", "1", "--seconds", str(seconds), "--json",
                           "--database", at.database().uri], capture_output=True, text=True, check=True, env=clean_environment())
    return json.loads(done.stdout)["jobq_enqueue_many_of_1000"]["jobs_per_s_of_1_connection"]


def in_python(at, seconds):
    with jobq.Client(at.database().uri) as client:
        client.enqueue_many([jobq.NewJob("noop", {"n": 0})])
        began, n = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            client.enqueue_many([jobq.NewJob("noop", {"n": i}) for i in range(n, n + BATCH)])
            n += BATCH
        return n / (time.monotonic() - began)


def enqueue_rates(at, options):
    c, python = [], []
    for _ in range(options.rounds):
        c.append(in_c(at, options.seconds))
        python.append(in_python(at, options.seconds))
        figure("enqueue_many of 1000, jobs/s: C, Python", f"{c[-1]:,.0f}  {python[-1]:,.0f}")
    percent = 100 * statistics.median(python) / statistics.median(c)
    figure("Python of C, median to median", f"{percent:.0f} %")
    return percent >= LEAST_PERCENT


def worker(at):
    """The command of a worker whose jobs do nothing."""
    (at.folder / "noop_jobs.py").write_text(JOBS)
    script = at.folder / "worker"
    script.write_text(f"#!/bin/sh\ncd {at.folder} && exec env JOBQ_LIBRARY={LIBRARY} PYTHONPATH={SOURCE} /usr/bin/python3 -m jobq.worker noop_jobs\n")
    script.chmod(0o755)
    return str(script)


def drain_rate(at, options):
    done = subprocess.run([program("jobqd"), "bench", "drain", "--workers", "2", "--rounds", str(options.rounds), "--json", "--command", worker(at),
                           "--database", at.database().uri], capture_output=True, text=True, check=True, env=clean_environment())
    report = json.loads(done.stdout)
    figure("bench drain, 2 Python processes, jobs/s", f"best {report['best_jobs_per_s']:,.0f}, median {report['median_jobs_per_s']:,.0f}")
    return report["median_jobs_per_s"] >= LEAST_DRAIN


def memory(at, options):
    """In and out at once; each tenth is a point. The first three points are for heaps to fill."""
    db = at.database()
    points = []
    queue = {"command": worker(at), "concurrency": 2, "mailbox": 64}
    with jobq.Client(db.uri) as client, at.jobqd(db, {"default": queue}) as node:
        wait_for(lambda: node.log().count("ready after") == 2)
        workers = [pid for pid, command in node.workers().items() if "noop_jobs" in command]
        for tenth in range(1, 11):
            for _ in range(options.jobs // 10 // BATCH):
                client.enqueue_many([jobq.NewJob("noop", {"n": i}) for i in range(BATCH)])
            wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, 600)
            points.append([rss_kb(), *map(rss_kb, workers)])
            figure(f"{tenth * options.jobs // 10:,} in and done: client, workers, kB", "  ".join(f"{kb:,}" for kb in points[-1]))
        assert sorted(workers) == sorted(pid for pid, command in node.workers().items() if "noop_jobs" in command)
    growth = max(last - first for first, last in zip(points[2], points[-1]))
    figure("most growth since the third point", f"{growth:,} kB")
    return growth <= MOST_GROWTH_KB


def rq_rate(at, options):
    """RQ's own simple worker, two processes, no-op jobs; what its users would see."""
    if not shutil.which("redis-server") or subprocess.run(["/usr/bin/python3", "-c", "import rq"], capture_output=True).returncode != 0:
        figure("RQ", "not installed")
        return
    socket = at.folder / "redis"
    redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(at.folder)],
                             stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        (at.folder / "rq_jobs.py").write_text("def noop(n):\n    pass\n")
        program_text = textwrap.dedent(f"""
            import sys
            import redis, rq
            sys.path.insert(0, {str(at.folder)!r})
            import rq_jobs
            connection = redis.Redis(unix_socket_path={str(socket)!r})
            queue = rq.Queue(connection=connection)
            if sys.argv[1] == "in":
                queue.enqueue_many([rq.Queue.prepare_data(rq_jobs.noop, (i,)) for i in range({options.rq_jobs})])
            else:
                rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")
        """)
        run = ["/usr/bin/python3", "-c", program_text]
        subprocess.run([*run, "in"], check=True)
        began = time.monotonic()
        for process in [subprocess.Popen([*run, "work"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]:
            process.wait()
        figure("RQ, 2 processes (SimpleWorker), jobs/s", f"{options.rq_jobs / (time.monotonic() - began):,.0f}")
    finally:
        redis.terminate()
        redis.wait()


def main():
    options = arguments(__doc__, jobs=1000000, rounds=3, seconds=3, rq_jobs=5000)
    with place() as at:
        at.folder.chmod(0o755)
        good = [enqueue_rates(at, options), drain_rate(at, options), memory(at, options)]
        rq_rate(at, options)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
