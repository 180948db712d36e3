"""What programs/ledger_worker.c wrote down: which process ran which attempt of which job, and when."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

# A process that was killed holds its lock for a moment longer than it runs. One that goes on running holds it
# until its run ends, which a test makes take longer than this, or writes another line.
DYING_MS = 100


def boottime_ns():
    """The ledger's clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(eq=False)
class Worker:
    pid: int
    parent: int  # the daemon's pid
    started_ns: int
    runs: list = field(default_factory=list, repr=False)
    last_ns: int = 0  # of its last line

    @property
    def current(self):
        """The run that it began and did not end, or None."""
        return self.runs[-1] if self.runs and self.runs[-1].end_ns is None else None


@dataclass(eq=False)
class Run:
    worker: Worker
    job: int
    attempt: int
    start_ns: int
    end_ns: int = None


class Ledger:
    """Reads the file again where it left off; read() is cheap and may be called in a loop."""

    def __init__(self, path):
        self.path = path
        self.workers = []
        self.runs = []
        self.of_job = defaultdict(list)  # its runs, as they were read
        self.ended = 0
        self.conflicts = []  # (time, pid, job, attempt, holder Worker, waited ms)
        self._by_pid = {}
        self._file = None
        self._rest = ""

    def command(self, program, min_us=0, max_us=0):
        """The `command` of a queue whose workers write here."""
        return f"{program} {self.path} {min_us} {max_us}"

    def read(self):
        if self._file is None:
            if not self.path.exists():
                return self
            self._file = open(self.path, encoding="ascii")
        text = self._rest + self._file.read()
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._take(*line.split())
        return self

    def _take(self, what, pid, *numbers):
        pid, numbers = int(pid), [int(n) for n in numbers]
        if what == "W":
            parent, now = numbers
            worker = self._by_pid[pid] = Worker(pid, parent, now, last_ns=now)  # a pid may come again
            self.workers.append(worker)
            return
        worker = self._by_pid[pid]
        job, attempt, now = numbers[:3]
        if what == "S":
            run = Run(worker, job, attempt, now)
            worker.runs.append(run)
            self.runs.append(run)
            self.of_job[job].append(run)
        elif what == "E":
            # Not always the last one: a worker may run many at a time.
            run = next((r for r in reversed(worker.runs) if r.end_ns is None and (r.job, r.attempt) == (job, attempt)), None)
            assert run is not None, f"E without its S: {pid} {numbers}"
            run.end_ns = now
            self.ended += 1
        elif what == "O":
            self.conflicts.append((now, pid, job, attempt, self._by_pid.get(numbers[3]), numbers[4]))
        worker.last_ns = now

    def by_job(self):
        """{job: [its runs, as they began]}"""
        return {job: sorted(runs, key=lambda run: run.start_ns) for job, runs in self.of_job.items()}

    def check_never_twice_at_once(self):
        """No two processes ran a job at the same time, by the kernel's locks and by the times; and no attempt
        was run twice, later ones having larger numbers."""
        for now, pid, job, attempt, holder, waited_ms in self.conflicts:
            alive = holder is None or holder.last_ns > now or waited_ms > DYING_MS
            assert not alive, f"job {job} ran twice at the same time: process {pid} began attempt {attempt} " \
                              f"at {now} and waited {waited_ms} ms for {holder}"
        for job, runs in self.by_job().items():
            for one, next_one in zip(runs, runs[1:]):
                told = f"job {job}: {one} and {next_one}"
                assert one.attempt < next_one.attempt, f"an attempt ran again: {told}"
                assert one.worker is not next_one.worker or one.end_ns is not None, f"two runs in one process: {told}"
                # A run that has no end was killed: its process's last line is a bound that is known.
                end_ns = one.end_ns if one.end_ns is not None else one.worker.last_ns
                assert end_ns <= next_one.start_ns, f"two runs at the same time: {told}"
        return self
