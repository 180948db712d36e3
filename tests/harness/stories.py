"""How a poisoned job is brought to each statement, for the table of poisons and statements (arena.Cell, statements.py). Each
story gets a cell, and returns when its poisoned jobs rest and all of their neighbours have ended."""

import contextlib
import re
import signal
import threading
import time

from .arena import FORGOTTEN, HOLD_S, LEASE_S, WAVE_S, Gone, Job
from .ledger import boottime_ns
from .waiting import wait_for

LATER = {"state": "scheduled", "position": None, "scheduled_at": ["now() + interval '1 hour'"]}

# ---- claims ----

def claim(cell):
    with paused(cell) if cell.has_locks else contextlib.nullcontext():
        with cell.db.connect(autocommit=False) as conn:
            cell.crew(conn)
            cell.poison(conn)
        cell.lock()
    cell.since()
    cell.settle()


class paused:
    """The statement's queue, on the first node, which has heard of it."""

    def __init__(self, cell):
        self.cell, self.queue = cell, cell.statement.queue

    def _says(self, words, how):
        log = self.cell.arena.first
        start = len(log.log())
        self.cell.db.query(f"SELECT jobq.{how}(%s)", (self.queue,))
        wait_for(lambda: re.search(f"queue {self.queue}: {words}", log.log()[start:]), what=log.log)

    def __enter__(self):
        self._says("paused", "pause")

    def __exit__(self, *fault):
        self._says("resumed", "resume")


# ---- attempts that end ----

def settle(companions=("plain", "result", "again"), args=None, expect=None, columns=None, more=None, before=None):
    """Jobs run, are poisoned, and end together."""
    def story(cell):
        with cell.db.connect(autocommit=False) as conn:
            cell.crew(conn, companions, gated=True, args=args, expect=expect, columns=columns, more=more)
        cell.since()
        cell.all_run()
        if before is not None:
            before(cell)
        cell.poison()
        cell.look()
        cell.open()
        cell.settle()
    return story


def ask_to_cancel(cell):
    """The workers hear of it, and answer at once: the poison has to be there before."""
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, gated=True)
    cell.since()
    cell.all_run()
    cell.poison()
    cell.db.query("SELECT jobq.cancel(id) FROM unnest(%s::bigint[]) id", ([v.id for v in cell.victims],))
    cell.look()
    cell.open()
    cell.settle()


# ---- jobs that wait for their time ----

AHEAD_S = 1.0  # for the poison to be there before the time has come


def in_time(cell, make):
    """make(conn, seconds): jobs whose time comes in that many seconds. Where they were not poisoned before that, others are
    made."""
    def is_due():
        return cell.db.value("SELECT clock_timestamp() >= %s", (due,))

    ahead_s = AHEAD_S
    while True:
        with cell.db.connect(autocommit=False) as conn:
            make(conn, ahead_s)
            due = conn.execute("SELECT now() + %s * interval '1 second'", (ahead_s,)).fetchone()[0]
            cell.poison(conn)
        try:
            cell.lock()
            if not cell.has_locks or not is_due():
                break
        except Gone:
            if not is_due():
                raise
        cell.forget()
        ahead_s *= 2
    wait_for(is_due)
    cell.since()
    cell.settle()


def stage(cell):
    in_time(cell, lambda conn, s: cell.crew(conn, columns={"scheduled_at": [f"now() + interval '{s} s'"]}))


def expire(cell):
    """Some expire, one of them poisoned; others become due."""
    def make(conn, s):
        late = {"state": "scheduled", "position": None, "scheduled_at": ["now() + interval '1 hour'"],
                "expires_at": [f"now() + interval '{s} s'"]}
        cell.crew(conn, ("plain",), raw=True, columns=late,
                  expect={"state": "cancelled", "attempt": 0, "starts": 0, "errors": ("expired",)})
        for queue in ("same", "other"):
            job = cell.insert(conn, queue, {}, scheduled_at=[f"now() + interval '{s} s'"])
            cell.neighbours.append(Job(job, "companion", queue, 0))
    in_time(cell, make)


# ---- jobs of dead nodes ----

def rescue(attempt=1, cancel=False):
    """The poisoned job's node dies, which holds others, too."""
    def story(cell):
        def make(conn, s):
            for victim in cell.victims:
                victim.node = cell.dead_node(conn, s)
            cell.crew(conn, ("plain", "result"), raw=True, columns=cell.held_by(cell.victims[0].node),
                      more=lambda victim: {"attempt": attempt, "attempted_by": victim.node},
                      expect={"attempt": 2, "errors": ("orphaned",)})
            if cancel:
                for victim in cell.victims:
                    conn.execute("INSERT INTO jobq._cancels (job_id, attempt, node_id) VALUES (%s, %s, %s)",
                                 (victim.id, attempt, victim.node))
        in_time(cell, make)
    return story


def register(cell):
    """The poisoned job's node is killed, and started again under its name."""
    first = cell.arena.first
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, ("plain", "result"), gated=True, expect={"attempt": 2, "starts": 2, "errors": ("orphaned",)})
    cell.since()
    cell.all_run()
    node = cell.arena.node_id()
    for victim in cell.victims:
        victim.node = node
    cell.poison()
    cell.look()
    first.kill()
    first.expected_exit = 0
    wait_for(lambda: not first.workers(), what="its workers to be gone")
    cell.cut()
    cell.open()
    first.start(ready=False)
    first.wait_ready(cell.limits.neighbour_s)
    cell.cut()  # it was not there to start them
    cell.settle()


def audit(cell):
    """Claims whose answer was lost with the connection are given back by the next session."""
    node = cell.arena.node_id()
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, ("plain", "result"), raw=True, columns=cell.held_by(node), expect={"attempt": 1})
        for victim in cell.victims:
            victim.node = node
        cell.poison(conn)
    cell.db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobqd work'"
                  " AND pid IN (SELECT a.pid FROM pg_stat_activity a WHERE a.datname = current_database())")
    cell.since()
    cell.settle()


def drain(cell):
    """The node stops while the poisoned job runs: it is given back, uncounted."""
    first = cell.arena.first
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, ("plain", "result"), gated=True, expect={"attempt": 1, "starts": 2})
    cell.since()
    cell.all_run()
    cell.poison()
    cell.look()
    cell.released = True
    code = first.stop(timeout=cell.limits.command_s)
    cell.cut()
    if code != 0:
        cell.faults.append(f"jobqd stopped with exit {code}")
    cell.open()
    first.start(ready=False)
    first.wait_ready(cell.limits.neighbour_s)
    cell.cut()
    cell.settle()


# ---- content ----

def content(cell):
    """Jobs as they could be there already, before bounds were: past the triggers. Domains refuse them all the same."""
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, raw=False, poisoned_raw=True)
    cell.since()
    cell.settle()


def answers(cell):
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, ("plain", "result"))
    cell.since()
    cell.settle()


# ---- what stands beside the jobs ----

def beside(cell):
    """No job is poisoned. Jobs end while the lock is held, or the object is there, and others come. Those whose fence it
    defeats wait for as long as it is held."""
    fenced = [queue for victim in cell.victims for queue in victim.poison.fence]
    if fenced:
        cell.arena.rest_after_locks()
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, gated=True, poisoned=False)
        for queue in ("other", "peer"):
            cell.neighbours.append(Job(cell.insert(conn, queue, {"gate": str(cell.gate)}), "companion", queue, 0))
    cell.since()
    cell.all_run()
    for victim in cell.victims:
        victim.node = cell.arena.node_id()
    cell.look()
    cell.poison()
    cell.open()
    has_to_wait = fenced or any(victim.poison.door for victim in cell.victims)  # an insert may, too
    comers = threading.Thread(target=cell.wave) if has_to_wait else None
    if comers:
        comers.start()
    while time.monotonic() - cell.held_since < HOLD_S:
        began = time.monotonic()
        if not has_to_wait:
            cell.wave()
            cell.through()
        elif "peer" not in fenced:  # else all of them wait, and looking could have to wait, too
            cell.look()
        wait_for(lambda: time.monotonic() - began > WAVE_S)
    cell.lift_locks()
    cell.arena.locked_at = time.monotonic()
    if comers:
        comers.join()
    cell.through()
    cell.orphans()
    cell.wave()
    cell.through()
    cell.check_neighbours()
    for victim in cell.victims:
        says = f"application {FORGOTTEN}" if victim.poison.fence else cell.says(victim)
        if says:
            cell.wait_named(says, victim)
        if not victim.poison.locks:
            for words in (["queues"], ["jobs"], ["cron"]):
                code, printed, _ = cell.arena.command(*words)
                if code != 0:
                    cell.faults.append(f"jobqd {' '.join(words)} ({victim.poison.name}): exit {code}: {printed.strip()}")


# ---- what is done beside the jobs ----

def progress(cell):
    """All say how far they are, ten times a second. It is written down for the others, and the lease is renewed."""
    others = beating(cell)
    cell.poison()
    for _ in range(2):
        began, since = time.monotonic(), cell.db.value("SELECT clock_timestamp()")
        wait_for(lambda: cell.db.value("SELECT count(*) FROM jobq._progress WHERE job_id = ANY(%s) AND at > %s",
                                       (others, since)) == len(others), cell.limits.rest_s, what="the others' progress")
        cell.took(time.monotonic() - began)
        renewed = cell.db.value("SELECT renewed_at FROM jobq.nodes WHERE name = 'first'")
        wait_for(lambda: cell.db.value("SELECT renewed_at FROM jobq.nodes WHERE name = 'first'") != renewed,
                 cell.limits.rest_s, what="a renewal")
    cell.open()
    cell.settle()


def beating(cell):
    """Jobs that run, and of which progress is written down; the neighbours' ids."""
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, gated=True, args={"beat": True}, companion_args={"beat": True})
    cell.since()
    others = cell.all_run()
    everyone = others + [victim.id for victim in cell.victims]
    wait_for(lambda: cell.db.value("SELECT count(*) FROM jobq._progress WHERE job_id = ANY(%s)", (everyone,)) == len(everyone))
    return others


def sweep(cell):
    """What was said by attempts that have ended goes."""
    others = beating(cell)
    cell.poison()
    cell.open()
    cell.through()
    began = time.monotonic()
    wait_for(lambda: not cell.db.value("SELECT count(*) FROM jobq._progress WHERE job_id = ANY(%s)", (others,)),
             cell.limits.rest_s, what="the others' progress to go")
    cell.took(time.monotonic() - began)
    cell.settle()


def cancel_again(cell):
    """Requests to cancel jobs that wait, left over from attempts that have ended."""
    with cell.db.connect(autocommit=False) as conn:
        cell.crew(conn, ("plain",), raw=True, columns=LATER, expect={"state": "cancelled", "attempt": 0, "starts": 0})
        crew = [v.id for v in cell.victims] + [job.id for job in cell.neighbours]
        cell.poison(conn)
    cell.lock()
    cell.db.query("INSERT INTO jobq._cancels (job_id, attempt, node_id) SELECT id, 0, -1 FROM unnest(%s::bigint[]) id", (crew,))
    cell.since()
    cell.settle()


def cron(cell):
    """Several crons come, one of them poisoned."""
    others = [f"other-{victim.number}-{n}" for victim in cell.victims for n in range(2)]
    names = [cell.words(victim)["name"] for victim in cell.victims]
    with cell.db.connect(autocommit=False) as conn:
        for n, name in enumerate(others + names):
            conn.execute("INSERT INTO jobq.crons (name, schedule, kind, queue) VALUES (%s, '0 0 1 1 *', 'told', %s)",
                         (name, ("same", "other")[n % 2]))
    with cell.db.connect(autocommit=False) as conn:
        conn.execute("SET LOCAL session_replication_role = replica")
        due = conn.execute("UPDATE jobq.crons SET next_at = now() + interval '0.7 s' WHERE name = ANY(%s) RETURNING next_at",
                           (others + names,)).fetchone()[0]
        conn.execute("SET LOCAL session_replication_role = origin")
        conn.execute("SELECT pg_notify('jobq', 'cron')")
        cell.poison(conn)
    cell.lock()
    wait_for(lambda: cell.db.value("SELECT clock_timestamp() >= %s", (due,)))
    began, at = time.monotonic(), boottime_ns()
    fired = "FROM jobq.all_jobs WHERE meta ->> 'cron' = ANY(%s)"
    wait_for(lambda: cell.db.value(f"SELECT count(*) {fired}", (others,)) == len(others), cell.limits.rest_s,
             what="the others' jobs")
    cell.took(time.monotonic() - began)
    cell.neighbours += [Job(id, "companion", queue, at) for id, queue in cell.db.query(f"SELECT id, queue {fired}", (others,))]
    cell.through()
    for victim, name in zip(cell.victims, names):
        if not victim.poison.locks:
            wait_for(lambda: re.search(rf"\b{name}\b", cell.new_log()) or cell.db.value(
                "SELECT error IS NOT NULL OR next_at > now() FROM jobq.crons WHERE name = %s", (name,)), cell.limits.rest_s,
                what=lambda: f"cron {name} ({victim.poison.name}) to be named: {cell.new_log()}")
            for words in (["cron", "list"], ["cron", "pause", name]):
                cell.ask_clearly(victim, *words)
    cell.lift()
    for victim, name in zip(cell.victims, names):
        cell.ask_clearly(victim, "cron", "delete", name)
    many = cell.db.query("SELECT meta ->> 'cron', count(*) FROM jobq.all_jobs WHERE meta ->> 'cron' = ANY(%s) GROUP BY 1"
                         " HAVING count(*) > 1", (names,))
    if many:
        cell.faults.append(f"a slot's job was enqueued again and again: {many}")
    cell.db.query("DELETE FROM jobq.crons WHERE name = ANY(%s)", (others,))
    cell.settle()


def declare(cell):
    """A configuration with several crons, one of them poisoned."""
    first = cell.arena.first
    others = [f"declared-{victim.number}-{n}" for victim in cell.victims for n in range(2)]
    names = [cell.words(victim)["name"] for victim in cell.victims]
    cell.poison()
    before = first.conf.read_text()
    first.conf.write_text(before + "".join(f"[cron {name}]\nschedule = 0 0 1 1 *\nkind = told\n" for name in others + names))
    began = time.monotonic()
    first.signal(signal.SIGHUP)
    there = "SELECT count(*) FROM jobq.crons WHERE name = ANY(%s)"
    wait_for(lambda: cell.db.value(there, (others,)) == len(others), cell.limits.rest_s, what="the other crons")
    cell.took(time.monotonic() - began)
    for victim, name in zip(cell.victims, names):
        if victim.poison.family != "nothing":
            cell.wait_named(rf"\b{name}\b.*{cell.says(victim)}", victim)
    first.conf.write_text(before)
    cell.lift()
    first.signal(signal.SIGHUP)
    wait_for(lambda: not cell.db.value(there, (others + names,)))
    cell.settle()


def undeclare(cell):
    """A configuration that has several crons no more, one of which is poisoned."""
    first = cell.arena.first
    others = [f"gone-{victim.number}-{n}" for victim in cell.victims for n in range(2)]
    names = [cell.words(victim)["name"] for victim in cell.victims]
    before = first.conf.read_text()
    first.conf.write_text(before + "".join(f"[cron {name}]\nschedule = 0 0 1 1 *\nkind = told\n" for name in others + names))
    first.signal(signal.SIGHUP)
    there = "SELECT count(*) FROM jobq.crons WHERE name = ANY(%s)"
    wait_for(lambda: cell.db.value(there, (others + names,)) == len(others + names), cell.limits.rest_s, what="the crons")
    cell.poison()
    first.conf.write_text(before + "[cron last]\nschedule = 0 0 1 1 *\nkind = told\n")
    began = time.monotonic()
    first.signal(signal.SIGHUP)
    wait_for(lambda: not cell.db.value(there, (others,)) and cell.db.value(there, (["last"],)), cell.limits.rest_s,
             what="the other crons to go")
    cell.took(time.monotonic() - began)
    for victim, name in zip(cell.victims, names):
        if victim.poison.family != "nothing" and not victim.poison.locks:
            cell.wait_named(rf"\b{name}\b.*{cell.says(victim)}", victim)
    cell.lift()
    first.conf.write_text(before)
    first.signal(signal.SIGHUP)
    wait_for(lambda: not cell.db.value(there, (names + ["last"],)))
    cell.settle()


# ---- the history ----

def put_in_history(conn, count, queue, state, age):
    """Jobs that ended that long ago; their ids."""
    return [row[0] for row in conn.execute(
        "INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority,"
        " queue, kind, args, meta, tags, errors) SELECT nextval('jobq.jobs_id_seq'), t, t, t, %s, 1, 20, 0, %s, 'told',"
        " '{\"shelf\": 1}', '{}', '{}', '[]' FROM (SELECT now() - %s::interval AS t) t, generate_series(1, %s) RETURNING id",
        (state, queue, age, count))]


def prune(cell):
    """Jobs of the history are past their time. The leader's next look is held back until they are locked."""
    for _ in range(2):  # what kept the connection before makes the pruner pause for longer
        seen = cell.db.value("SELECT xmin::text FROM jobq._pruning")
        wait_for(lambda: cell.db.value("SELECT xmin::text FROM jobq._pruning") != seen, 300, what="a round of the pruner")
    holder = cell.db.connect(autocommit=False)
    holder.execute("SELECT FROM jobq._pruning FOR UPDATE")
    with cell.db.connect(autocommit=False) as conn:
        for victim in cell.victims:
            jobs = put_in_history(conn, 2, "brief", "completed", "10 s")
            victim.id, = put_in_history(conn, 1, "brief", "completed", "10 s")
            jobs += put_in_history(conn, 1, "brief", "completed", "10 s")
            cell.neighbours += [Job(job, "companion", "brief", 0, state=None, starts=0) for job in jobs]
        cell.poison(conn)
    cell.lock()
    holder.close()
    cell.since()
    cell.settle()


def leading(cell):
    name = cell.db.value("SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id")
    return next(node for node in cell.arena.nodes if node.folder.name == name)


def partitions(cell):
    """Days of the history are past their time; they go when another node begins to lead."""
    old = [f"_finished_completed_p2020010{n}" for n in (1, 2, 3)]
    cell.db.query("SELECT jobq._create_partitions('2020-01-01', 3)")
    cell.poison()
    node = leading(cell)
    node.stop()
    cell.cut()
    began = time.monotonic()
    wait_for(lambda: not cell.db.value("SELECT count(*) FROM pg_class WHERE relname = ANY(%s)", (old[1:],)),
             cell.limits.rest_s, what="the others to go")
    cell.took(time.monotonic() - began)
    for victim in cell.victims:
        cell.wait_named(rf"_finished_completed_p20200101.*({cell.says(victim)})", victim)
    node.start()
    cell.lift()
    cell.db.query("DROP TABLE jobq._finished_completed_p20200101")
    cell.settle()


def strays(cell):
    """Rows of nodes that hold jobs are gone; they are missed when another node begins to lead."""
    with cell.db.connect(autocommit=False) as conn:
        other, *gone = (row[0] for row in conn.execute(
            "SELECT nextval(pg_get_serial_sequence('jobq.nodes', 'id')) FROM generate_series(0, %s)", (len(cell.victims),)))
        for victim, node in zip(cell.victims, gone):
            victim.node = node
            victim.id = cell.insert(conn, cell.statement.queue, {}, True, **cell.held_by(node))
        cell.neighbours += [Job(cell.insert(conn, queue, {}, True, **cell.held_by(other)), "companion", queue, 0, attempt=2,
                                errors=("orphaned",)) for queue in ("same", "other", "peer")]
        cell.poison(conn)
    node = leading(cell)
    node.stop()
    node.start()
    cell.since(after_s=LEASE_S)
    cell.settle()
    cell.forget()  # the leader looks for them again in a minute


# ---- commands ----

def command(*words, becomes=None, history=False):
    """Jobs wait in a queue that no node serves, or have ended in it. words: the command, where it has {id} once a job;
    becomes: what it makes of a job (None: it leaves no trace)."""
    each = "{id}" in words
    reads = becomes == "scheduled" and words[0] != "doctor"

    def story(cell):
        victims, others = shelve(cell, history)
        cell.lock()
        for id in victims + others if each else [None]:
            asked = [word.format(id=id, queue=cell.statement.queue) for word in words]
            code, printed, took = cell.arena.command(*asked)
            cell.longest_s = max(cell.longest_s, took)
            told = f"jobqd {' '.join(asked)}: exit {code}: {printed.strip()}"
            if code is None:
                cell.faults.append(f"jobqd {' '.join(asked)} did not answer within {cell.limits.command_s} s")
            elif not printed.strip() or code != 0 and (id in others or reads):
                cell.faults.append(told)
            # By its id: the command's words are about that job.
            log = "\n".join(f"job {id} {line}" for line in printed.splitlines()) if each else printed
            for victim in cell.victims:
                if victim.id is not None and id in (None, victim.id):
                    cell.check_told(victim, log, told)
        rows = cell.rows(others)
        for id in others:
            state = rows[id][1] if id in rows else None
            # A lock that lasts ends a command for many jobs, and nothing was changed: so the manual says.
            if state != becomes and (each or not cell.has_locks):
                cell.faults.append(f"job {id}, beside a poisoned one, is {state}, wanted {becomes}")
        cell.lift_locks()
        with cell.db.connect() as conn:
            conn.execute("DELETE FROM jobq.jobs WHERE id = ANY(%s)", (others,))
            conn.execute("DELETE FROM jobq.finished_jobs WHERE id = ANY(%s)", (others,))
    return story


def shelve(cell, history):
    """The ids of the poisoned ones and of the others."""
    def insert(conn, args, columns):
        if history:
            return put_in_history(conn, 1, cell.statement.queue, "discarded", "0")[0]
        return cell.insert(conn, cell.statement.queue, {"shelf": 1, **args}, True, **{**LATER, **columns})
    with cell.db.connect(autocommit=False) as conn:
        others = [insert(conn, {}, {})]
        for victim in cell.victims:
            cell.at_the_door(conn, victim, lambda: insert(conn, victim.poison.args(), victim.poison.columns))
            others.append(insert(conn, {}, {}))
        cell.poison(conn)
    return [victim.id for victim in cell.victims if victim.id is not None], others
