"""Two nodes with short leases, each behind a network of its own that fails at random; the proof that they never run a
job at the same time, by what the handlers themselves wrote down."""

import random
import signal
import threading
import time
from collections import Counter

from faultproxy import FaultProxy

from .crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from .pg import SUPERUSER

NODES = 2
WORKERS = 8
LIVE = 10  # jobs that wait or run, all the time: so few that a rescued one is started at once …
LONGEST_LEASES = 2.5  # … when it would still run on the node that is cut off, if that did not kill it


class Trouble:
    """One node's: it is cut off from the database, stopped or killed, for up to two and a half leases at a time, then left alone
    for a moment."""

    def __init__(self, node, proxy, lease_s, chance):
        self.node, self.proxy, self.lease_s, self.random = node, proxy, lease_s, chance
        self.done = Counter()
        self.over = threading.Event()
        self.fault = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        kinds = (self.hang, self.hang, self.cut_off, self.half_open, self.freeze, self.kill)
        try:
            while not self.over.wait(self.random.uniform(0.5, 2.0) * self.lease_s):
                self.random.choice(kinds)(self.random.uniform(0.3, 2.5) * self.lease_s)
        except BaseException as fault:  # told by stop()
            self.fault = fault

    def hang(self, seconds):
        self.proxy.stall()
        self.over.wait(seconds)
        self.proxy.resume()
        self.done["hangs"] += 1

    def cut_off(self, seconds):
        self.proxy.refuse()
        self.proxy.cut(rst=self.random.random() < 0.5)
        self.over.wait(seconds)
        self.proxy.accept()
        self.done["cuts"] += 1

    def half_open(self, seconds):
        self.proxy.refuse()
        self.proxy.half_open()
        self.over.wait(seconds)
        self.proxy.accept()
        self.done["half-open"] += 1

    def freeze(self, seconds):
        self.node.signal(signal.SIGSTOP)
        self.over.wait(seconds)
        self.node.signal(signal.SIGCONT)
        self.done["SIGSTOPs of jobqd"] += 1

    def kill(self, seconds):
        self.node.kill()
        self.over.wait(seconds)
        self.node.start(ready=False)
        self.node.expected_exit = 0
        self.done["kills of jobqd"] += 1

    def stop(self):
        self.over.set()
        self.thread.join()
        if self.fault is not None:
            raise self.fault


def run(db, socket, start_node, ledger, program, seconds, lease_s=1, seed=None, until=lambda: False, say=lambda line: None):
    """Keeps the nodes in trouble for so many seconds, or until `until()`, then lets all jobs end. Raises AssertionError
    when two runs of a job overlapped, or a job was lost. Returns what happened, in words.

    socket: the server's; start_node(uri, queues, lease): a Daemon that is ready."""
    seed = random.randrange(2**32) if seed is None else seed
    say(f"seed {seed}")
    chance = random.Random(seed)
    watch_nodes(db)
    queues = {"default": {"command": ledger.command(program, 20_000, int(LONGEST_LEASES * lease_s * 1e6)), "concurrency": WORKERS,
                          "max_restarts": 1000}}
    proxies = [FaultProxy(socket) for _ in range(NODES)]
    nodes, troubles, ids = [], [], []
    try:
        for proxy in proxies:
            uri = f"postgresql://{SUPERUSER}@127.0.0.1:{proxy.port}/{db.name}"
            nodes.append(start_node(uri, queues, f"{int(lease_s * 1000)}ms"))
        troubles = [Trouble(node, proxy, lease_s, random.Random(chance.random())) for node, proxy in zip(nodes, proxies)]
        began = told = time.monotonic()
        while time.monotonic() - began < seconds and not until():
            live = db.value("SELECT count(*) FROM jobq.jobs")
            if live < LIVE:
                ids += enqueue_crowd(db, LIVE - live)
            ledger.read().check_never_twice_at_once()
            if time.monotonic() - told >= 30:
                told = time.monotonic()
                say(f"{told - began:.0f} s: {len(ids)} jobs, {len(ledger.runs)} runs, {ledger.ended} ended")
            troubles[0].over.wait(0.1)
        lasted = time.monotonic() - began
    finally:
        for trouble in troubles:
            trouble.stop()
        for proxy in proxies:
            proxy.resume()
    try:
        wait_all_finished(db, len(ids))
        kinds = check_completed(db, ledger, ids)
        refused = db.value("SELECT coalesce(sum((queues #>> '{default,refused}')::int), 0) FROM jobq.nodes")
    finally:
        for node in nodes:
            node.finish()
        for proxy in proxies:
            proxy.close()
    return story(ledger, nodes, troubles, ids, kinds, refused, lasted, lease_s)


def story(ledger, nodes, troubles, ids, kinds, refused, lasted, lease_s):
    log = "".join(node.log() for node in nodes)
    done = sum((trouble.done for trouble in troubles), Counter())
    cut_short = sum(1 for r in ledger.runs if r.end_ns is None)
    parents = {w.pid: w.parent for w in ledger.workers}
    moved = sum(1 for runs in ledger.by_job().values()
                if len({parents[r.worker.pid] for r in runs}) > 1)
    return "\n".join([
        f"{lasted:.0f} s, {lasted / lease_s:.0f} leases of {lease_s} s; " + ", ".join(f"{n} {what}" for what, n in sorted(done.items())),
        f"{len(ids)} jobs, each completed once; {len(ledger.runs)} runs in {len(ledger.workers)} worker processes, "
        f"{cut_short} cut short; {moved} jobs ran under more than one jobqd",
        f"errors: {dict(kinds)}; answers refused since the nodes registered last: {refused}",
        f"leases lost: {log.count('must stop its jobs: ')}; strikes of the guards: {log.count('guard: process groups killed: ')}, "
        f"jobqd gone: {log.count(') died; ')}",
        f"no two runs of a job overlapped: {len(ledger.conflicts)} times one waited for a killed process to be gone",
    ])
