"""Where the table of poisons and statements is tried (poisons.py, statements.py): a database, two nodes, and one cell after
another. A cell brings jobs that are poisoned to a statement, among neighbours, and measures how long any neighbour waits:

- companions are in the poisoned job's transaction, queue and batch, before and behind it;
- newcomers come while it is being refused, wave after wave: to its queue, to another of its node, to another node's;
- orphans are held by a node that is dead, in the same three queues: the lifeline has to give them back.

All of them start within the limit and end right, exactly once. The poisoned one is named in the log, with what the database said,
and rests in a state that the statement allows."""

import itertools
import json
import pathlib
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field

import psycopg

from .daemon import Daemon, clean_environment
from .ledger import Ledger, boottime_ns
from .waiting import wait_for

LEASE_S = 4
DEAD_LEASE_S = 0.3  # that of dead nodes that we make up
HOLD_S = 1.2        # a lock is held for at least this long: longer than jobqd waits for one
WAVE_S = 0.1
WORKER = pathlib.Path(__file__).resolve().parents[1] / "programs" / "told_worker.py"
FORGOTTEN = "forgotten psql"  # the application that holds a lock


@dataclass(frozen=True)
class Limits:
    neighbour_s: float  # until a neighbour starts, and from its end until that is confirmed
    command_s: float    # until a command answers
    rest_s: float = 60  # until the poisoned job has its end, or is named and rests


# By hand, on a quiet machine; and where others take the processor away, but still below the ten seconds for which jobqd once
# waited for a lock.
QUIET = Limits(neighbour_s=2, command_s=12)
BUSY = Limits(neighbour_s=8, command_s=30)


@dataclass(eq=False)
class Job:
    id: int
    role: str
    queue: str
    since_ns: int              # it could start from then on
    state: str = "completed"   # what is to become of it; None: it is to leave no trace
    attempt: int = 1
    starts: int = 1
    errors: tuple = ()         # their kinds
    result: object = None
    started_ns: int = None
    quiet_ns: int = None       # since then it has waited for its start, or for its end to be confirmed
    ended_ns: int = None       # its end was seen

    @property
    def waits_s(self):
        """Until it started, and until its end was seen."""
        start = self.started_ns - self.since_ns if self.started_ns else 0
        end = self.ended_ns - self.quiet_ns if self.ended_ns and self.quiet_ns else 0
        return max(start, end, 0) / 1e9


@dataclass(eq=False)
class Victim:
    poison: object
    id: int = None             # of a job
    number: int = 0            # where it is none
    door: str = None           # why it was not let in
    node: int = 0


@dataclass(frozen=True)
class Outcome:
    """What may become of a poisoned job while its poison lasts (a lock: after that)."""
    states: tuple              # None: it has left no trace
    starts: int
    named: bool = True         # in the log, by its id, with what the database said


class Late(AssertionError):
    pass


class Gone(AssertionError):
    """What was to be locked is not there any more."""


class Arena:
    """The database, the two nodes, and what is known of them."""

    def __init__(self, postgres, template, program, folder, limits=QUIET, log_level="info"):
        self.postgres, self.template, self.program, self.folder = postgres, template, program, folder
        self.limits, self.log_level = limits, log_level
        self.numbers = itertools.count(1)
        self.lives = itertools.count(1)
        self.db = None
        self.nodes = []
        self.locked_at = 0

    # ---- its life ----

    def start(self):
        home = self.folder / f"life{next(self.lives)}"
        home.mkdir()
        self.home = home
        self.db = self.postgres.create_database(f"arena_{home.name}_{time.monotonic_ns()}", self.template.name)
        self.log_start = self.postgres.log_size()
        self.anchor = self.db.value("INSERT INTO jobq.jobs (kind, queue, state) VALUES ('anchor', 'unserved', 'suspended')"
                                    " RETURNING id")
        self.ledger = Ledger(home / "ledger")
        many, one = f"{WORKER} {home}/ledger 64", f"{WORKER} {home}/ledger"
        first = {"same": {"command": many, "concurrency": 1}, "other": {"command": many, "concurrency": 1},
                 "none": {"command": many, "concurrency": 1, "keep": "none"},
                 "aged": {"command": many, "concurrency": 1, "ageing": "1s"},
                 "single": {"command": one, "concurrency": 6, "mailbox": 1, "max_restarts": 1000},
                 "exec": {"exec": one, "concurrency": 64},
                 "brief": {"exec": one, "concurrency": 1, "keep_completed": "1s"}}
        second = {"peer": {"command": many, "concurrency": 1}}
        # The first one leads.
        self.nodes = [self._node("first", first)]
        self.nodes += [self._node("second", second)]
        for node, queues in zip(self.nodes, (first, second)):
            for queue in queues.keys() - {"exec", "brief"}:
                node.wait_log(f"worker {queue}/w1 .* ready")
        return self

    def _node(self, name, queues):
        folder = self.home / name
        folder.mkdir()
        settings = {"lease": f"{LEASE_S}s", "shutdown_grace": "500ms", "log_level": self.log_level}
        return Daemon(self.program, folder, self.db.uri, queues, settings, {"JOBQ_TEST_PRUNE_MS": "200"}, ()).start()

    def rest_after_locks(self):
        """A queue asks who holds a lock every ten seconds at most."""
        wait_for(lambda: time.monotonic() - self.locked_at > 11)

    @property
    def first(self):
        return self.nodes[0]

    def node_id(self, name="first"):
        return self.db.value("SELECT id FROM jobq.nodes WHERE name = %s", (name,))

    def log(self):
        return "\n".join(node.log() for node in self.nodes)

    def state(self):
        """What the nodes say of themselves, and the server of their sessions."""
        start = [len(node.log()) for node in self.nodes]
        for node in self.nodes:
            if node.running:
                node.signal(signal.SIGUSR1)
        wait_for(lambda: all(not node.running or len(node.log()) > at for node, at in zip(self.nodes, start)))
        rows = self.db.query("SELECT pid, application_name, state, wait_event_type, wait_event, now() - query_start,"
                             " left(query, 80) FROM pg_stat_activity WHERE datname = current_database() ORDER BY application_name, pid")
        return "\n".join([*(node.log()[at:] for node, at in zip(self.nodes, start)), *map(str, rows)])

    def server_log(self):
        return self.postgres.log(self.log_start)

    def close(self):
        """Nothing is left running, and nothing that runs is lost: with the poisons gone, all of it ends."""
        try:
            wait_for(lambda: self.db.value("SELECT count(*) FROM jobq.jobs WHERE state IN ('executing', 'retryable')"
                                           " AND scheduled_at < now()") == 0, 90, what=self.db.states)
            for node in self.nodes:
                node.finish()
        finally:
            self.drop()

    def drop(self):
        for node in self.nodes:
            node.abandon()
        self.nodes = []
        if self.db is not None:
            self.db.drop()
            self.db = None

    def renew(self):
        """After a cell that failed: who knows what state all this is in."""
        self.drop()
        self.start()

    # ---- commands ----

    def command(self, *words, input=""):
        """(exit code, what it printed, seconds); None for a command that did not answer in time."""
        began = time.monotonic()
        try:
            done = subprocess.run([self.program, *map(str, words), "--database", self.db.uri], input=input, text=True,
                                  capture_output=True, timeout=self.limits.command_s, env=clean_environment())
        except subprocess.TimeoutExpired:
            return None, "", time.monotonic() - began
        return done.returncode, done.stdout + done.stderr, time.monotonic() - began


# What a neighbour does, and what is to become of it.
WORK = {
    "plain": ({}, {}),
    "result": ({"do": "ok", "value": '{"n": 1}'}, {"result": {"n": 1}}),
    "again": ({"do": "error", "times": 1}, {"attempt": 2, "starts": 2, "errors": ("error",)}),
}


class Cell:
    """One statement, and one poisoned job for each of the poisons."""

    def __init__(self, arena, statement, poisons):
        self.arena, self.statement = arena, statement
        self.db, self.limits = arena.db, arena.limits
        self.victims = [Victim(poison, number=1_000_000 + next(arena.numbers)) for poison in poisons]
        self.neighbours = []
        self.faults = []
        self.gate = arena.home / f"gate{next(arena.numbers)}"
        self.longest_s = 0.0
        self.locks = {}
        self.log_starts = [len(node.log()) for node in arena.nodes]
        self.before = {job: len(runs) for job, runs in arena.ledger.read().of_job.items()}
        self.cut_ns = None     # see cut()
        self.floor_ns = 0      # locks were let go of
        self.may_lose_lease = False
        self.released = False  # attempts are given back uncounted after their start, and come again

    # ---- jobs ----

    def insert(self, conn, queue, args, raw=False, /, **columns):
        """A job's row; raw: past the triggers, in whatever state."""
        columns = {"kind": "told", "queue": queue, "args": json.dumps(args), **columns}
        names = ", ".join(columns)
        values = ", ".join(f"({value[0]})" if isinstance(value, list) else f"%({name})s" for name, value in columns.items())
        if raw:
            conn.execute("SET LOCAL session_replication_role = replica")
        row = conn.execute(f"INSERT INTO jobq.jobs ({names}) VALUES ({values}) RETURNING id",
                           {name: value for name, value in columns.items() if not isinstance(value, list)}).fetchone()
        if raw:
            conn.execute("SET LOCAL session_replication_role = origin")
        return row[0]

    def crew(self, conn, companions=("plain", "result", "again"), gated=False, args=None, expect=None, raw=False, columns=None,
             more=None, poisoned_raw=False, poisoned=True,
             companion_args=None):
        """The poisoned jobs, with companions before, between and behind them. args: of the poisoned ones; columns: of all;
        more(victim): further ones of a poisoned one; expect: of the companions; poisoned: whether there are poisoned ones."""
        queue = self.statement.queue
        gate = {"gate": str(self.gate)} if gated else {}
        kinds = itertools.cycle(companions)
        for victim in (None, *self.victims):
            if victim is not None and poisoned:
                self.admit(conn, victim, {**gate, **victim.poison.args(), **(args or {})}, raw or poisoned_raw,
                           **{**(columns or {}), **(more(victim) if more else {}), **victim.poison.columns})
            for _ in range(2 if victim is None else 1):
                work, wanted = WORK[next(kinds)]
                job = self.insert(conn, queue, {**gate, **work, **(companion_args or {})}, raw, **(columns or {}))
                self.neighbours.append(Job(job, "companion", queue, 0, **{**wanted, **(expect or {})}))

    def admit(self, conn, victim, its_args, raw, /, **columns):
        self.at_the_door(conn, victim, lambda: self.insert(conn, self.statement.queue, its_args, raw, **columns))

    @staticmethod
    def at_the_door(conn, victim, insert):
        """What is refused there, by the schema itself, is as good as gone."""
        try:
            with conn.transaction():
                victim.id = insert()
        except psycopg.Error as error:
            if victim.poison.script or not re.match("22|23|54", error.sqlstate or ""):
                raise
            victim.door = str(error)

    def since(self, role="companion", after_s=0.0):
        """Those neighbours can start from now on, or after that many seconds."""
        now = boottime_ns() + int(after_s * 1e9)
        for job in self.neighbours:
            if job.role == role and job.since_ns == 0:
                job.since_ns = now

    def all_run(self):
        """Waits until they do; returns the neighbours' ids."""
        others = [job.id for job in self.neighbours]
        crew = others + [victim.id for victim in self.victims if victim.id is not None]
        wait_for(lambda: not self.idle(crew), what=lambda: f"all to run: jobs {self.rows(self.idle(crew))} have not")
        return others

    def orphans(self):
        """Jobs of a node that has just died, in three queues."""
        with self.db.connect(autocommit=False) as conn:
            node = self.dead_node(conn)
            jobs = [Job(self.insert(conn, queue, {}, True, **self.held_by(node)), "orphan", queue, 0, attempt=2,
                        errors=("orphaned",)) for queue in ("same", "other", "peer")]
        now = boottime_ns() + int(DEAD_LEASE_S * 1e9)
        for job in jobs:
            job.since_ns = now
        self.neighbours += jobs

    def dead_node(self, conn, lease_s=DEAD_LEASE_S):
        return conn.execute("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at)"
                            " VALUES (%s, 'elsewhere', 1, 1, '0', now() + %s * interval '1 second') RETURNING id",
                            (f"dead-{next(self.arena.numbers)}", lease_s)).fetchone()[0]

    @staticmethod
    def held_by(node, attempt=1):
        return {"state": "executing", "attempt": attempt, "attempted_by": node, "attempted_at": ["clock_timestamp()"],
                "position": ["nextval('jobq.jobs_position_seq')"]}

    def wave(self):
        """A newcomer to each queue."""
        with self.db.connect(autocommit=False) as conn:
            jobs = [Job(self.insert(conn, queue, {}), "newcomer", queue, 0) for queue in ("same", "other", "peer")]
        self.neighbours += jobs
        self.since("newcomer")

    # ---- poisons ----

    def words(self, victim):
        number = victim.number if victim.id is None else victim.id
        return {"id": number, "node": victim.node, "anchor": self.arena.anchor, "name": f"cron-{number}"}

    def poison(self, conn=None):
        """From now on the rows are poisoned. conn: in its transaction; locks come after that (lock)."""
        poisons = [(v.poison, self.words(v)) for v in self.victims if not v.poison.locks or v.poison.hold]
        scripts = [poison.script.format(**words) for poison, words in poisons] + \
                  [poison.arm.format(**words) for poison, words in poisons]
        if conn is not None:
            for script in filter(None, scripts):
                conn.execute(script)
            return
        with self.db.connect(autocommit=False) as own:
            for script in filter(None, scripts):
                own.execute(script)
        self.lock()

    def lock(self):
        """Sessions that someone has forgotten lock what the poisons lock."""
        for victim in self.victims:
            if victim.poison.locks:
                holder = self.db.connect(autocommit=False, application_name=FORGOTTEN)
                self.locks[victim] = holder
                if holder.execute((victim.poison.hold or victim.poison.script).format(**self.words(victim))).rowcount == 0:
                    raise Gone(f"nothing to lock for {victim.poison.name}")
        self.held_since = time.monotonic()

    def forget(self):
        """The jobs, without a word."""
        self.lift()
        with self.db.connect() as conn:
            conn.execute("DELETE FROM jobq.jobs WHERE id = ANY(%s)",
                         ([v.id for v in self.victims] + [job.id for job in self.neighbours],))
        self.neighbours = []

    @property
    def has_locks(self):
        return any(victim.poison.locks for victim in self.victims)

    def lift_locks(self):
        """Those who had to wait for as long have no time to lose from now on."""
        for holder in self.locks.values():
            holder.close()
        if self.locks:
            self.floor_ns = boottime_ns()
        self.locks = {}

    def is_fenced(self, job):
        """Whether it may wait for as long as a lock is held; jobs of a dead node, for as long as its row is locked."""
        return any(job.queue in victim.poison.fence or victim.poison.family == "lock-node" and job.role == "companion"
                   for victim in self.victims)

    def lift(self):
        """As if nothing had been."""
        self.lift_locks()
        with self.db.connect(autocommit=False) as conn:
            conn.execute("SET LOCAL lock_timeout = '20s'")
            for victim in self.victims:
                conn.execute(victim.poison.undo.format(**self.words(victim)) or "SELECT")

    def open(self):
        """The gate: what runs ends now."""
        self.gate.touch()

    def cut(self):
        """The workers of the first node are gone."""
        self.cut_ns = boottime_ns()

    # ---- looking ----

    def rows(self, ids):
        """{id: (id, state, attempt, kinds of its errors, errors)}. Without the view all_jobs, which reads other tables, too:
        they may be locked."""
        ids = list(ids)
        return {row[0]: row for row in self.db.query(
            "SELECT j.id, j.state::text, j.attempt, ARRAY(SELECT e ->> 'kind' FROM jsonb_array_elements("
            "CASE jsonb_typeof(j.errors) WHEN 'array' THEN j.errors ELSE '[]' END) WITH ORDINALITY x (e, n) ORDER BY n),"
            " left(j.errors::text, 500)"
            " FROM (SELECT id, state, attempt, errors FROM jobq.jobs WHERE id = ANY(%s) UNION ALL"
            " SELECT id, state, attempt, errors FROM jobq.finished_jobs WHERE id = ANY(%s)) j", (ids, ids))}

    def end_of(self, run):
        """None: it runs."""
        if run.end_ns is None and self.cut_ns is not None and run.start_ns < self.cut_ns:
            return self.cut_ns
        return run.end_ns

    def look(self):
        """Notes who has started and who has ended; raises Late when it takes anybody too long."""
        runs = self.arena.ledger.read().of_job
        open_jobs = [job for job in self.neighbours if job.ended_ns is None and job.since_ns]
        rows = self.rows(job.id for job in open_jobs)
        now = boottime_ns()
        # A job whose updates are slow is updated twice: given back, say, and claimed.
        limit_s = self.limits.neighbour_s + max((victim.poison.delay_s for victim in self.victims), default=0)
        for job in open_jobs:
            mine, row = runs.get(job.id, []), rows.get(job.id)
            job.quiet_ns = self.end_of(mine[-1]) if mine else job.since_ns
            if self.is_fenced(job):
                if self.locks:
                    continue
                job.quiet_ns = job.quiet_ns and max(job.quiet_ns, self.floor_ns)
                job.since_ns = max(job.since_ns, self.floor_ns)
            if mine and job.started_ns is None:
                job.started_ns = mine[0].start_ns
            if len(mine) >= job.starts and job.quiet_ns and (row[1] if row else None) == job.state:
                job.ended_ns = now
            elif job.quiet_ns and now - job.quiet_ns > limit_s * 1e9:
                self.longest_s = max(self.longest_s, (now - job.quiet_ns) / 1e9)
                raise Late(f"{job.role} {job.id} of queue {job.queue} has waited {limit_s} s to"
                           f" {'end' if len(mine) >= job.starts else 'start'}: row {row}, runs {len(mine)}")

    def new_log(self):
        return "\n".join(node.log()[start:] for node, start in zip(self.arena.nodes, self.log_starts))

    def took(self, seconds):
        """A wait of another kind."""
        self.longest_s = max(self.longest_s, seconds)
        if seconds > self.limits.neighbour_s:
            self.faults.append(f"it took {seconds:.1f} s, the limit is {self.limits.neighbour_s} s")

    def says(self, victim):
        return victim.poison.says.format(**self.words(victim))

    def is_named(self, victim, log):
        says = self.says(victim)
        if len(self.victims) > 1 and not self.db.value(
                "SELECT count(*) FROM jobq.jobs j WHERE j.id = %s AND j.state NOT IN ('retryable')"
                " AND NOT EXISTS (SELECT FROM jobq.refusals r WHERE r.job_id = j.id)", (victim.id,)):
            return True  # of many the log names some, but what is kept from its end has its row there
        return any(re.search(rf"\bjob {victim.id}\b", line) and re.search(says, line) for line in log.splitlines())

    def wait_named(self, pattern, victim):
        """Waits until a line of the log says so."""
        try:
            wait_for(lambda: any(re.search(pattern, line) for line in self.new_log().splitlines()), self.limits.rest_s)
        except AssertionError:
            self.faults.append(f"the log does not say /{pattern}/ ({victim.poison.name})")

    def ask_clearly(self, victim, *words):
        """A command about what is poisoned answers: it is done, or why it is not."""
        code, printed, _ = self.arena.command(*words)
        if code is None or (code != 0 and (words[-1] == "list" or not re.search(self.says(victim) or "^.", printed))):
            self.faults.append(f"jobqd {' '.join(words)} ({victim.poison.name}): exit {code}: {printed.strip()}")

    def check_told(self, victim, log, told):
        """A command has been asked about it, and has said `log`."""
        row = self.rows([victim.id]).get(victim.id)
        ways = [list(self.lacks(victim, outcome, row, log)) for outcome in self.statement.outcomes_of(victim.poison)]
        if all(ways):
            self.faults += [f"{told}: {what}" for what in ways[0]]

    def rests(self):
        """What is still missing of the outcomes; [] when there is nothing."""
        rows = self.rows(victim.id for victim in self.victims)
        log = self.new_log()
        missing = []
        for victim in self.victims:
            if victim.id is None:
                continue
            row = rows.get(victim.id)
            ways = [list(self.lacks(victim, outcome, row, log)) for outcome in self.statement.outcomes_of(victim.poison)]
            if all(ways):
                missing += ways[0]
        return missing

    def lacks(self, victim, outcome, row, log):
        """What is missing of that outcome."""
        state, starts = row[1] if row else None, self.starts(victim.id)
        told = f"job {victim.id} ({victim.poison.name})"
        if state not in outcome.states:
            wanted = " or ".join(map(str, outcome.states))
            yield f"{told} is {state or 'gone'}, wanted {wanted}, errors {row[4] if row else '-'}"
        if starts != outcome.starts:
            yield f"{told} was started {starts} times, wanted {outcome.starts}"
        if outcome.named and not self.is_named(victim, log):
            yield (f"{told} is not named by its id with what the database said"
                   f" (/{self.says(victim)}/)")

    def starts(self, job):
        """In this cell: a poisoned job may have the number of one in a cell before."""
        return len(self.arena.ledger.read().of_job.get(job, [])) - self.before.get(job, 0)

    def idle(self, jobs):
        return [job for job in jobs if self.starts(job) == 0]

    # ---- the story ----

    def through(self):
        """Until all neighbours that are here have ended, but for those that wait for a lock."""
        def all_ended():
            self.look()
            return all(job.ended_ns is not None or self.locks and self.is_fenced(job)
                       for job in self.neighbours if job.since_ns)
        wait_for(all_ended, 2 * self.limits.neighbour_s + self.limits.rest_s)

    def settle(self):
        """Newcomers come until the poisoned jobs rest, and once more after that. Locks are held until everybody else has ended,
        and for a while, then they are let go of."""
        self.orphans()
        deadline = time.monotonic() + self.limits.rest_s
        missing = ["-"]
        while missing:
            began = time.monotonic()
            self.wave()
            self.through()
            if self.locks and began - self.held_since >= HOLD_S:
                self.lift_locks()
                deadline = time.monotonic() + self.limits.neighbour_s
            missing = ["locked"] if self.locks else self.rests()
            if time.monotonic() > deadline:
                break
            wait_for(lambda: time.monotonic() - began >= WAVE_S)
        self.faults += missing
        self.wave()
        self.through()
        self.check_neighbours()

    def check_neighbours(self):
        ledger = self.arena.ledger.read()
        runs = (ledger if self.released else ledger.check_never_twice_at_once()).of_job
        rows = self.rows(job.id for job in self.neighbours)
        results = dict(self.db.query("SELECT id, result FROM jobq.finished_jobs WHERE id = ANY(%s)", (list(rows),)))
        for job in self.neighbours:
            row = rows.get(job.id)
            told = f"{job.role} {job.id} of queue {job.queue}: row {row}"
            starts = len(runs.get(job.id, []))
            if starts != job.starts:
                self.faults.append(f"{told} was started {starts} times, wanted {job.starts}")
            if job.state is None:
                if row is not None:
                    self.faults.append(f"{told} has left a trace")
            elif row is None:
                self.faults.append(f"{told} is gone")
            elif (row[1], row[2], tuple(row[3]), results.get(job.id)) != (job.state, job.attempt, job.errors, job.result):
                self.faults.append(f"{told}, wanted {job.state}, attempt {job.attempt}, errors {job.errors}, {job.result}")
            self.longest_s = max(self.longest_s, job.waits_s)

    def operate(self):
        """An operator asks after a poisoned job, and gets a clear answer while the poison lasts; afterwards it goes."""
        jobs = [victim for victim in self.victims if victim.id is not None]
        for victim in jobs[:1]:
            for command in ("job", "cancel", "delete"):
                self.ask(victim, command)
        self.lift()
        for victim in jobs[:1]:
            if victim.id in self.rows([victim.id]):
                self.ask(victim, "delete", lifted=True)
        for victim in jobs[1:]:
            try:
                self.db.query("SELECT jobq.delete(%s)", (victim.id,))
            except psycopg.errors.NoDataFound:
                pass
        wait_for(lambda: not self.rows(victim.id for victim in jobs), self.limits.rest_s,
                 what=lambda: f"deleted jobs to be gone: {self.rows(victim.id for victim in jobs)}")

    def ask(self, victim, command, lifted=False):
        was = self.rows([victim.id]).get(victim.id)
        code, printed, _ = self.arena.command(command, victim.id)
        told = f"jobqd {command} {victim.id} ({victim.poison.name}, {was[1] if was else 'gone'})"
        says = self.says(victim)
        if code is None:
            self.faults.append(f"{told} did not answer within {self.limits.command_s} s")
        elif code == 66 and victim.id not in self.rows([victim.id]):
            pass  # it has just ended, without a trace
        elif code != 0 and was is not None and (lifted or command == "job" or not re.search(says, printed)) \
                and not re.search(r"has ended|cannot (cancel|delete) it", printed):
            self.faults.append(f"{told}: exit {code}: {printed.strip()}")

    def check_lives(self):
        for node in self.arena.nodes:
            if not node.running:
                self.faults.append(f"jobqd has ended: {node.log()[-2000:]}")
        if "must stop its jobs: " in self.new_log() and not self.may_lose_lease:
            self.faults.append("a lease was lost")

    def run(self):
        """Raises AssertionError, with all that was wrong. Returns the longest wait of a neighbour in seconds."""
        try:
            self.statement.story(self)
            self.operate()
            self.check_lives()
        except (AssertionError, psycopg.Error) as fault:
            self.faults.append(f"{type(fault).__name__}: {fault}")
        finally:
            for holder in self.locks.values():
                holder.close()
        if self.faults:
            raise AssertionError("\n".join(self.faults))
        return self.longest_s

