"""SIGHUP, recycling, TTIN and TTOU, and what a drain leaves: processes change, jobs notice nothing."""

import os
import pathlib
import random
import re
import signal

import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from harness.waiting import wait_for


def log_of(node, pattern):
    return re.findall(pattern, node.log(), re.M)


def wait_rolled(node, queue="default"):
    """Until no process of the queue is left from before the last reload."""
    wait_for(lambda: f"queue {queue}: reload complete: all workers run the new configuration" in node.log().rsplit("configuration reloaded", 1)[1],
             what=lambda: f"the roll to end:\n{node.log()}")


def most_at_once(runs):
    """How many of the ledger's runs went on at the same time, at most."""
    events = sorted([(run.start_ns, 1) for run in runs] + [(run.end_ns, -1) for run in runs])
    now = most = 0
    for _, step in events:
        now += step
        most = max(most, now)
    return most


def is_done(db, job):
    return db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", (job,)) == "completed"


def wait_done(db, job):
    wait_for(lambda: is_done(db, job), what=lambda: f"job {job} to be done: "
             f"{db.query('SELECT state, attempt, errors FROM jobq.all_jobs WHERE id = %s', (job,))}")


def start_one(db, kind, began, queue="default", **args):
    """A job that has begun."""
    text = "".join(f', "{name}": {value}' for name, value in args.items())
    job = db.enqueue(kind, f'{{"file": "{began}"{text}}}', queue=queue)
    wait_for(began.exists)
    return job


# ---- rolling ----

def test_ten_reloads_during_3000_jobs(db, jobqd, programs, ledger):
    """Each job exactly once, never more at once than there are workers, and nobody was restarted."""
    watch_nodes(db)
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 0, 2000), "concurrency": 4}}, lease="1s")
    ids = enqueue_crowd(db, 3000)
    for n in range(1, 11):
        wait_for(lambda: ledger.read().ended >= n * 250)
        node.reload()
    wait_all_finished(db, 3000)
    assert check_completed(db, ledger, ids) == {}
    assert len(ledger.runs) == 3000 and most_at_once(ledger.runs) <= 4
    wait_rolled(node)
    status = "SELECT queues -> 'default' FROM jobq.nodes"
    wait_for(lambda: db.value(status)["outdated"] == 0)
    assert (db.value(status)["restarts"], db.value(status)["crashes"]) == (0, 0)
    wait_for(lambda: len(node.workers()) == 4)
    assert len(ledger.read().workers) >= 8
    assert len(db.query("SELECT * FROM public.seen_nodes")) == 1


def test_reloads_crashes_and_resizes_together(db, jobqd, programs, ledger):
    """Workers are killed while others take their places: each kill costs one attempt of one job at most."""
    watch_nodes(db)
    chance = random.Random(1)
    queue = {"command": ledger.command(programs("ledger_worker"), 0, 2000), "concurrency": 3, "max_jobs": 150,
             "backoff": "constant(0s)", "max_restarts": 1000, "max_crashes": 0}
    node = jobqd(db, {"default": queue}, lease="1s")
    ids = enqueue_crowd(db, 2000)
    kills = 0
    for n in range(1, 60):
        wait_for(lambda: ledger.read().ended >= n * 30)
        what = chance.choice(["kill", "reload", "reload", "more", "fewer"])
        if what == "kill":
            try:
                os.kill(chance.choice(sorted(wait_for(node.workers))), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
        elif what == "reload":
            node.configure({"default": {**queue, "concurrency": chance.randint(1, 5)}})
            node.signal(signal.SIGHUP)
        else:
            node.signal(signal.SIGTTIN if what == "more" else signal.SIGTTOU)
    wait_all_finished(db, 2000)
    kinds = check_completed(db, ledger, ids)
    print(f"{kills} kills, {dict(kinds)}, {len(ledger.workers)} workers, {node.log().count('configuration reloaded')} reloads")
    assert kills > 5 and set(kinds) <= {"crash"} and kinds["crash"] <= kills
    node.reload({"default": {**queue, "concurrency": 2}})
    wait_rolled(node)
    assert len(node.workers()) == 2


def test_a_hundred_reloads_leave_nothing_behind(db, jobqd, programs):
    """Neither memory nor descriptors nor processes, whatever was read and forgotten again."""
    noop = programs("noop_worker")
    queues = {f"queue{n}": {"command": noop, "concurrency": 1} for n in range(3)}
    node = jobqd(db, queues)
    figures = []
    for n in range(100):
        node.reload({**queues, f"more{n % 2}": {"exec": "true", "env": f"N={n}"}})
        if n in (20, 99):
            for queue in queues:
                wait_rolled(node, queue)
            wait_for(lambda: len(node.workers()) == 3)
            wait_for(lambda: log_of(node, "queue more.: removed")[n - 1:])
            figures.append((node.rss_kb(), len(os.listdir(f"/proc/{node.pid}/fd"))))
    print(f"memory in KiB and descriptors after 21 and 100 reloads: {figures}")
    (early_kb, early_fds), (late_kb, late_fds) = figures
    assert late_fds <= early_fds + 1
    with open(f"/proc/{node.pid}/maps", encoding="utf-8") as maps:
        sanitized = "libasan" in maps.read()  # it keeps what was freed, and tells of leaks by itself
    assert sanitized or late_kb < early_kb + 2000


def test_an_unchanged_file_brings_new_workers_one_by_one(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 3}})
    wait_for(lambda: len(log_of(node, "ready after")) == 3)
    before = set(node.workers())
    node.reload()
    wait_rolled(node)
    assert not before & set(node.workers()) and len(node.workers()) == 3
    # Each replacement was up before its predecessor was told to go.
    assert re.findall(r"(ready after|replaced by pid)", node.log()) == \
        ["ready after"] * 3 + ["ready after", "replaced by pid"] * 3


def test_a_running_job_is_not_interrupted(db, jobqd, programs, tmp_path):
    """Nor does another one begin beside it: one worker is one job at a time."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    long = start_one(db, "sleep", tmp_path / "began", ms=1500)
    later = db.enqueue("ok")
    node.reload()
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    assert not is_done(db, long) and not is_done(db, later) and len(node.workers()) == 2
    wait_done(db, long)
    wait_done(db, later)
    wait_rolled(node)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    order = db.query("SELECT id FROM jobq.finished_jobs ORDER BY finished_at")
    assert order == [(long,), (later,)]


def test_the_newest_of_several_reloads_wins(db, jobqd, programs):
    """While a roll is under way, and while its replacement does not come up."""
    noop = programs("noop_worker")
    node = jobqd(db, {"default": {"command": f"{noop} one", "concurrency": 2}})
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    node.reload({"default": {"command": f"{programs('rude_worker')} silent", "concurrency": 2}})
    wait_for(lambda: len(node.workers()) == 3)
    for word in ("two", "three", "four"):
        node.reload({"default": {"command": f"{noop} {word}", "concurrency": 2}})
    wait_rolled(node)
    wait_for(lambda: sorted(node.workers().values()) == [f"{noop} four"] * 2, what=node.workers)
    assert not log_of(node, "failed to start")


def test_a_broken_new_program_stops_nothing(db, jobqd, programs, tmp_path):
    """The old workers go on, the log says why, and one that crashes is replaced by the old program."""
    fault = programs("fault_worker")
    node = jobqd(db, {"default": {"command": fault, "concurrency": 2, "backoff": "constant(0s)"}}, lease="1s")
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    old = set(node.workers())
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    log = node.reload({"default": {"command": broken, "concurrency": 2, "backoff": "constant(0s)"}})
    assert re.search(r"queue default: changed: command$", log, re.M)
    node.wait_log("did not start: exited with status 3 before it said hello")
    node.wait_log(r"ERROR queue default: a replacement failed to start; keeping the old workers, retrying in [\d.]+ m?s")
    wait_done(db, db.enqueue("ok"))
    wait_done(db, db.enqueue("segfault", '{"times": 1}'))
    wait_done(db, db.enqueue("segfault", '{"times": 1}'))
    for _ in range(20):
        wait_done(db, db.enqueue("ok"))
    wait_for(lambda: sorted(node.workers().values()) == [fault] * 2, what=node.workers)
    assert len(old & set(node.workers())) < 2
    wait_for(lambda: db.value("SELECT queues #>> '{default,outdated}' FROM jobq.nodes") == "2")
    broken.write_text(f"#!/bin/sh\nexec {fault}\n")
    wait_rolled(node)  # by itself, once the program is mended
    wait_done(db, db.enqueue("ok"))


@pytest.mark.parametrize("fault, words", [
    ("silent", "did not start: did not say hello within 200 ms"),
    ("future", "broke the protocol: speaks protocol 2"),
    ("cut-off", "did not start: cannot execute"),  # what no check sees
])
def test_a_new_program_that_never_says_hello_stops_nothing(db, jobqd, programs, tmp_path, fault, words):
    queue = {"concurrency": 2, "max_restarts": 0}
    node = jobqd(db, {"default": {**queue, "command": programs("fault_worker")}})
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    old = set(node.workers())
    command = f"{programs('rude_worker')} {fault}"
    if fault == "cut-off":
        command = tmp_path / "program"
        command.write_bytes(pathlib.Path("/bin/true").read_bytes()[:64])
        command.chmod(0o755)
    node.reload({"default": {**queue, "command": command, **({"boot_timeout": "200ms"} if fault == "silent" else {})}})
    wait_for(lambda: len(log_of(node, "a replacement failed to start; keeping the old workers")) == 2)
    node.wait_log(re.escape(words))
    wait_done(db, db.enqueue("ok"))
    assert old <= set(node.workers())
    assert "starting no processes" not in node.log(), "only replacements wait"


@pytest.mark.parametrize("how", ["another protocol", "garbage", "memory"])
def test_whatever_ends_the_new_program_before_its_hello_the_old_one_is_started_again(db, jobqd, programs, tmp_path, how):
    """Both workers crash while the replacement cannot come up: the program that worked takes their places."""
    fault = programs("fault_worker")
    queue = {"concurrency": 2, "backoff": "constant(0s)", "max_memory_hard": "150MiB"}
    node = jobqd(db, {"default": {**queue, "command": fault}})
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    broken = tmp_path / "broken"
    broken.write_text({"another protocol": f"#!/bin/sh\nexec {programs('rude_worker')} future\n",
                       "garbage": "#!/bin/sh\necho hello >&3\nexec sleep 600\n",
                       "memory": "#!/usr/bin/python3\nimport time\nhoard = b'x' * (300 << 20)\ntime.sleep(600)\n"}[how])
    broken.chmod(0o755)
    node.reload({"default": {**queue, "command": broken}})
    node.wait_log("a replacement failed to start")
    assert len(log_of(node, "did not start")) == 0, "it is the other ways to fail that count here"
    for job in [db.enqueue("segfault", '{"times": 1}') for _ in range(2)]:
        wait_done(db, job)
    wait_for(lambda: list(node.workers().values()).count(fault) == 2, what=node.workers)
    assert not log_of(node, "starting no processes")


def test_a_program_from_before_an_exec_program_does_not_come_back(db, jobqd, programs):
    """The last worker that said hello was of the first program; nobody wants that one any more."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    wait_for(lambda: log_of(node, "ready after"))
    node.reload({"default": {"exec": "/bin/true", "concurrency": 1}})
    wait_rolled(node)
    node.reload({"default": {"command": "/bin/false", "concurrency": 1}})
    wait_for(lambda: log_of(node, "starting no processes") or len(log_of(node, "ready after")) > 1)
    assert len(log_of(node, "ready after")) == 1


# Handles the kinds of KINDS. With GATES, the n-th process waits for the file openN there before its hello. A job waits for
# the file `until` to be there.
KINDS = """#!/usr/bin/python3
import json, os, socket, time

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)

def take_number(gates):
    for n in range(1, 100):
        try:
            os.close(os.open(f"{gates}/taken{n}", os.O_CREAT | os.O_EXCL))
            return n
        except FileExistsError:
            pass

gates = os.environ.get("GATES")
if gates:
    wait_for(f"{gates}/open{take_number(gates)}")
lines = socket.socket(fileno=int(os.environ["JOBQ_FD"])).makefile("rw")

def say(**message):
    lines.write(json.dumps(message) + "\\n")
    lines.flush()

say(t="hello", protocol=1, kinds=os.environ["KINDS"].split(","))
for line in lines:
    message = json.loads(line)
    if message["t"] == "stop":
        break
    if "until" in message["args"]:
        open(message["args"]["until"] + ".began", "w").close()
        wait_for(message["args"]["until"])
    say(t="ok", id=message["id"])
"""


@pytest.mark.parametrize("before, after", [("a", "a,b"), ("a,b", "a")])
def test_while_kinds_come_or_go_a_job_for_a_busy_worker_is_put_off_uncounted(db, jobqd, tmp_path, before, after):
    """Of two workers one is of the new program. The one that handles b is busy, the other one, which does not, has room."""
    program, gates = tmp_path / "program", tmp_path / "gates"
    program.write_text(KINDS)
    program.chmod(0o755)
    gates.mkdir()
    queue = {"command": program, "concurrency": 2, "mailbox": 1, "backoff": "constant(1h)"}
    node = jobqd(db, {"default": {**queue, "env": f"KINDS={before}"}})
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    node.reload({"default": {**queue, "env": f"KINDS={after} GATES={gates}"}})
    wait_for((gates / "taken1").exists)
    early = db.enqueue("b") if "b" in after else None

    def wait_put_off(job):
        wait_for(lambda: db.query("SELECT attempt, errors FROM jobq.jobs WHERE id = %s AND state = 'scheduled'", (job,)) == [(0, [])],
                 what=lambda: db.query("SELECT kind, state, attempt, errors FROM jobq.all_jobs"))
    if early:
        wait_put_off(early)  # nobody has said yet that b is handled
    (gates / "open1").touch()
    wait_for((gates / "taken2").exists)
    if early:
        wait_done(db, early)
    busy = db.enqueue("b", f'{{"until": "{tmp_path}/done"}}')
    wait_for((tmp_path / "done.began").exists)
    second = db.enqueue("b")
    wait_put_off(second)
    wait_done(db, db.enqueue("a"))
    (tmp_path / "done").touch()
    for job in (busy, second):
        wait_done(db, job)
    (gates / "open2").touch()
    wait_rolled(node)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    other = db.enqueue("c" if "b" in after else "b")
    wait_for(lambda: db.value("SELECT errors #>> '{0,kind}' FROM jobq.jobs WHERE id = %s", (other,)) == "unhandled")


def test_a_reload_ends_a_back_off(db, jobqd, programs, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    queue = {"command": program, "concurrency": 1, "max_restarts": 0}
    node = jobqd(db, {"default": queue})
    wait_for(lambda: len(log_of(node, r"starting no processes for [\d.]+ s")) >= 2)
    job = db.enqueue("noop")
    node.reload({"default": {**queue, "command": programs("noop_worker")}})
    wait_done(db, job)


# ---- the file ----

@pytest.mark.parametrize("text, error", [
    ("[queue default]\ncommand = /no/such/program\n",
     "jobqd.conf:2: [queue default] command: cannot run /no/such/program: No such file or directory"),
    ("[queue default]\nexec = true\nmax_jobs = 5\n",
     "jobqd.conf:3: [queue default] max_jobs: is only for command; an exec queue runs one process per job"),
    ("[queue default]\nexec = true\nmax_age = 5m\n",
     "jobqd.conf:3: [queue default] max_age: is only for command; an exec queue runs one process per job"),
    ("[jobqd]\nlease = 1\n", 'jobqd.conf:2: [jobqd] lease: "1" is not allowed: 1s to 10m, with a unit (ms, s, m, h, d)'),
    ("[queue default\n", "jobqd.conf:1: a section needs a closing ]"),
    (None, "jobqd.conf: No such file or directory"),
])
def test_a_bad_configuration_is_refused_and_the_old_one_stays(db, jobqd, programs, text, error):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: len(log_of(node, "ready after")) == 2)
    before = set(node.workers())
    good = node.conf.read_text()
    node.conf.unlink() if text is None else node.conf.write_text(text)
    log = node.reload()
    assert re.search(f"ERROR jobqd: configuration not reloaded; the old one stays in force: "
                     f".*{re.escape(error)}$", log, re.M), log
    for _ in range(5):
        wait_done(db, db.enqueue("noop"))
    assert set(node.workers()) == before
    node.conf.write_text(good)
    node.reload()
    wait_rolled(node)


def test_queues_are_added_and_removed(db, jobqd, programs, tmp_path):
    fault = programs("fault_worker")
    one, two = {"command": fault, "concurrency": 1}, {"command": fault, "concurrency": 2}
    node = jobqd(db, {"one": one})
    waiting = db.enqueue("ok", queue="two")
    log = node.reload({"one": one, "two": two})
    assert "queue two: added" in log
    wait_done(db, waiting)
    long = start_one(db, "sleep", tmp_path / "began", queue="two", ms=1000)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle WHERE queue = 'one'"))
    log = node.reload({"one": one})
    assert "queue two: no longer in the configuration: waiting up to 30 s for its running jobs" in log
    left = db.enqueue("ok", queue="two")
    wait_done(db, db.enqueue("ok", queue="one"))
    node.wait_log("queue two: removed")
    assert is_done(db, long)
    assert db.query("SELECT state::text, attempt FROM jobq.jobs WHERE id = %s", (left,)) == [("available", 0)]
    assert db.value("SELECT count(*) FROM jobq._idle WHERE queue = 'two'") == 0
    wait_rolled(node, "one")
    assert len(node.workers()) == 1
    node.reload({"one": one, "two": two})
    wait_done(db, left)


def test_a_removed_queue_comes_back_while_it_drains(db, jobqd, programs, tmp_path):
    queue = {"command": programs("fault_worker"), "concurrency": 1}
    node = jobqd(db, {"default": queue})
    long = start_one(db, "sleep", tmp_path / "began", ms=1500)
    node.reload({"other": queue})
    node.reload({"default": queue, "other": queue})
    wait_done(db, db.enqueue("ok"))
    assert not is_done(db, long)
    node.wait_log("queue default: removed")
    assert is_done(db, long)
    wait_done(db, db.enqueue("ok"))


def test_what_a_removed_queue_does_not_finish_is_released(db, jobqd, programs, tmp_path):
    queue = {"command": programs("fault_worker"), "concurrency": 1}
    node = jobqd(db, {"default": queue, "brief": {**queue, "shutdown_grace": "200ms"}})
    job = start_one(db, "hang", tmp_path / "began", queue="brief")
    node.reload({"default": queue})
    node.wait_log("queue brief: removed")
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (job,)) == [("available", 0, [])]


def test_a_queue_is_resized_and_changed(db, jobqd, programs, tmp_path):
    fault = programs("fault_worker")
    node = jobqd(db, {"default": {"command": fault, "concurrency": 2}})
    wait_for(lambda: len(node.workers()) == 2)
    log = node.reload({"default": {"command": fault, "concurrency": 5}})
    assert "queue default: changed: concurrency" in log
    wait_for(lambda: len(node.workers()) == 5)
    wait_rolled(node)
    jobs = [start_one(db, "sleep", tmp_path / f"began{n}", ms=700) for n in range(3)]
    node.reload({"default": {"command": fault, "concurrency": 1}})
    wait_for(lambda: len(node.workers()) == 1)
    for job in jobs:
        assert is_done(db, job)
    log = node.reload({"default": {"command": fault, "concurrency": 1, "timeout": "300ms", "backoff": "constant(1h)"}})
    assert "queue default: changed: timeout, backoff" in log
    wait_rolled(node)
    late = db.enqueue("sleep", '{"ms": 600000}')
    wait_for(lambda: db.value("SELECT errors #>> '{0,kind}' = 'timeout' FROM jobq.jobs WHERE id = %s", (late,)))


def test_a_queue_changes_from_command_to_exec_and_back(db, jobqd, programs, tmp_path):
    script = tmp_path / "handler.sh"
    script.write_text("#!/bin/sh\nexec sleep 0.3\n")
    script.chmod(0o755)
    command = {"command": programs("fault_worker"), "concurrency": 2}
    node = jobqd(db, {"default": command})
    long = start_one(db, "sleep", tmp_path / "began", ms=500)
    assert "changed: exec" in node.reload({"default": {"exec": script, "concurrency": 2}})
    jobs = [db.enqueue("ok") for _ in range(4)]
    wait_for(lambda: is_done(db, jobs[0]))
    assert "changed: command" in node.reload({"default": command})
    jobs += [db.enqueue("ok") for _ in range(4)]
    for job in [long, *jobs]:
        wait_done(db, job)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    wait_for(lambda: sorted(node.workers().values()) == [programs("fault_worker")] * 2, what=node.workers)


def test_an_exec_queue_runs_its_new_program(db, jobqd, tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho done >>{tmp_path}/{name}.out\n")
        (tmp_path / name).chmod(0o755)
    node = jobqd(db, {"default": {"exec": tmp_path / "old"}})
    wait_done(db, db.enqueue("work"))
    node.reload({"default": {"exec": tmp_path / "new"}})
    wait_done(db, db.enqueue("work"))
    assert (tmp_path / "old.out").read_text() == (tmp_path / "new.out").read_text() == "done\n"


def test_what_counts_at_once_and_what_after_a_restart(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    log = node.reload(lease="20s", schema="other", log_level="debug", shutdown_grace="1m", poll_interval="50ms", notify="off")
    assert "jobqd: changed: poll_interval, shutdown_grace, log_level" in log
    assert "WARNING jobqd: schema, lease, notify: takes effect after a restart" in log
    node.wait_log("DEBUG")
    wait_done(db, db.enqueue("noop"))
    wait_rolled(node)
    assert "changed:" not in node.reload()
    node.signal(signal.SIGTERM)
    node.wait_log("waiting up to 1 min for")
    node.wait()


def test_a_reload_while_jobqd_stops_is_told_so(db, jobqd, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    job = start_one(db, "sleep", tmp_path / "began", ms=700)
    node.signal(signal.SIGTERM)
    node.wait_log("draining: ")
    node.signal(signal.SIGHUP)
    node.wait_log("stopping: the configuration is not reloaded")
    assert node.wait() == 0 and is_done(db, job)


def test_a_reload_while_the_lease_is_lost_comes_after(db, jobqd, programs):
    """Every queue comes back with what the file says by then."""
    noop = programs("noop_worker")
    node = jobqd(db, {"default": {"command": f"{noop} one", "concurrency": 1}}, lease="1s")
    wait_for(lambda: len(node.workers()) == 1)
    os.kill(node.pid, signal.SIGSTOP)
    db.query("DELETE FROM jobq.nodes")
    node.configure({"default": {"command": f"{noop} two", "concurrency": 1}, "other": {"command": noop, "concurrency": 1}})
    os.kill(node.pid, signal.SIGCONT)
    node.wait_log("declared this node dead|lease")
    node.signal(signal.SIGHUP)
    node.wait_log("configuration reloaded")
    wait_for(lambda: sorted(node.workers().values()) == [noop, f"{noop} two"], what=lambda: f"{node.workers()}\n{node.log()}")
    for queue in ("default", "other"):
        wait_done(db, db.enqueue("noop", queue=queue))


# ---- recycling ----

def test_workers_go_after_max_jobs(db, jobqd, programs, ledger):
    watch_nodes(db)
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 0, 1000), "concurrency": 3,
                                  "max_jobs": 100}}, lease="1s")
    ids = enqueue_crowd(db, 3000)
    wait_all_finished(db, 3000)
    assert check_completed(db, ledger, ids) == {}
    assert most_at_once(ledger.runs) <= 3
    done = [len(worker.runs) for worker in ledger.workers if worker.runs]
    print(f"{len(done)} workers, jobs each {sorted(done)}")
    assert len(done) >= 8 and len(set(done)) > 1
    assert min(sorted(done)[3:]) >= 80, "nobody went too soon, but those that the end of the jobs came upon"
    node.wait_log(r"replaced by pid \d+: it has reached max_jobs")
    assert db.value("SELECT queues #>> '{default,restarts}' FROM jobq.nodes") == "0"


def test_an_idle_worker_goes_at_max_age(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2, "max_age": "500ms"}})
    wait_for(lambda: len(log_of(node, r"replaced by pid \d+: it has reached max_age")) >= 4)
    wait_done(db, db.enqueue("noop"))
    assert node.complaints() == []


def test_a_replacement_that_fails_leaves_the_old_worker(db, jobqd, programs, tmp_path):
    """It has done its max_jobs, but goes on."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {programs('noop_worker')}\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": program, "concurrency": 1, "max_jobs": 2}})
    wait_for(lambda: log_of(node, "ready after"))
    program.write_text("#!/bin/sh\nexit 3\n")
    for _ in range(10):
        wait_done(db, db.enqueue("noop"))
    node.wait_log("a replacement failed to start; keeping the old workers")
    wait_done(db, db.enqueue("noop"))
    assert len(log_of(node, "ready after")) == 1 and not log_of(node, "starting no processes")


# ---- one worker more, one less ----

def test_ttin_adds_a_worker_and_ttou_takes_one(db, jobqd, programs, tmp_path):
    fault = {"command": programs("fault_worker"), "concurrency": 2}
    node = jobqd(db, {"default": fault, "other": {**fault, "concurrency": 1}})
    wait_for(lambda: len(node.workers()) == 3)
    node.signal(signal.SIGTTIN)
    wait_for(lambda: len(node.workers()) == 5)
    node.wait_log("queue default: number of workers changed from 2 to 3")
    jobs = [start_one(db, "sleep", tmp_path / f"began{n}", ms=500) for n in range(3)]
    for workers in (3, 2, 2):  # at least one is left in each
        node.signal(signal.SIGTTOU)
        wait_for(lambda: len(node.workers()) == workers, what=node.workers)
    for job in jobs:
        wait_done(db, job)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    node.reload()
    wait_for(lambda: len(node.workers()) == 3)
    wait_rolled(node)
    assert len(node.workers()) == 3


def test_a_lost_lease_does_not_change_how_many_there_are(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, lease="1s")
    for workers in (2, 3):
        node.signal(signal.SIGTTIN)
        wait_for(lambda: len(node.workers()) == workers)
    before = set(node.workers())
    os.kill(node.pid, signal.SIGSTOP)
    db.query("DELETE FROM jobq.nodes")
    os.kill(node.pid, signal.SIGCONT)
    wait_done(db, db.enqueue("noop"))
    wait_for(lambda: db.value("SELECT (queues #>> '{default,ready}')::int FROM jobq.nodes"))
    wait_for(lambda: len(set(node.workers()) - before) == 3, timeout=20, what=lambda: f"{node.workers()}\n{node.log()}")
    node.reload()
    wait_for(lambda: len(node.workers()) == 1)


# ---- the way down ----

def test_each_queue_drains_by_its_own_grace(db, jobqd, programs, tmp_path):
    fault = {"command": programs("fault_worker"), "concurrency": 1}
    node = jobqd(db, {"default": fault, "brief": {**fault, "shutdown_grace": "200ms"}, "long": {**fault, "shutdown_grace": "1h"}},
                 shutdown_grace="2500ms")
    brief = start_one(db, "hang", tmp_path / "brief", queue="brief")
    bound = start_one(db, "hang", tmp_path / "bound", queue="long")
    job = start_one(db, "sleep", tmp_path / "sleep", ms=1500)
    node.signal(signal.SIGTERM)
    wait_for(lambda: db.value("SELECT state = 'available' FROM jobq.jobs WHERE id = %s", (brief,)))
    assert not is_done(db, job), "the brief one did not wait for the others"
    assert node.wait() == 0
    assert is_done(db, job)
    assert db.query("SELECT id, state::text, attempt, errors FROM jobq.jobs ORDER BY id") == [
        (brief, "available", 0, []), (bound, "available", 0, [])]
