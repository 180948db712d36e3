"""preload = true: workers are forked from a forkserver, which may do anything, too."""

import collections
import fcntl
import os
import pathlib
import re
import signal
import statistics

import pytest

from harness.daemon import processes_with
from harness.waiting import wait_for

FORKSERVER = pathlib.Path(__file__).resolve().parents[1] / "programs" / "forkserver.py"


def result_of(db, job):
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)), what=db.states)
    state, result = db.query("SELECT state::text, result FROM jobq.finished_jobs WHERE id = %s", (job,))[0]
    assert state == "completed"
    return result


def forkserver_pids(node):
    """Of each forkserver that has said hello, oldest first."""
    return [int(pid) for pid in re.findall(r"forkserver \S+ pid (\d+): ready after", node.log())]


def first_forkserver(node):
    return wait_for(lambda: forkserver_pids(node))[0]


def workers_of(node, program):
    """The daemon's children that run it, the forkserver among them."""
    return {pid for pid, name in children_of(node.pid).items() if name.startswith(program)}


def stat(pid):
    """Name, state, parent, group."""
    name, rest = pathlib.Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
    state, parent, group = rest.split()[:3]
    return name, state, int(parent), int(group)


def children_of(pid):
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name, state, parent, _ = stat(entry.name)
        except (OSError, IndexError):
            continue
        if parent == pid:
            found[int(entry.name)] = f"{name} {state}"
    return found


def is_gone(pid):
    try:
        return stat(pid)[1] in "ZX"
    except OSError:
        return True


def test_a_forked_worker_is_like_an_executed_one(db, jobqd, programs, tmp_path):
    """Parent, group, descriptors and variables are those of the same program without preload; hooks run once each."""
    log = tmp_path / "hooks"
    command = f"{programs('preload_worker')} {log} 1"
    node = jobqd(db, {"forked": {"command": command, "concurrency": 2, "preload": "true"},
                      "executed": {"command": command, "concurrency": 1}}, env={"PGPASSWORD": "secret"})
    forked = result_of(db, db.enqueue("facts", queue="forked"))
    executed = result_of(db, db.enqueue("facts", queue="executed"))
    forkserver = first_forkserver(node)
    for facts in (forked, executed):
        assert facts["parent"] == node.pid and facts["group"] == facts["pid"] and facts["blocked"] == 0
        assert facts["death"] == signal.SIGKILL
    assert forked["session"] == executed["session"] and forked["sum"] == executed["sum"] > 0
    assert {text.replace("forked", "executed") for text in forked["env"]} == set(executed["env"])
    assert not any("PASS" in text or "PRELOAD" in text for text in forked["env"])

    def kinds(facts):
        return collections.Counter(re.sub(r"[:\[].*", "", target) for target in facts["fds"].values())
    assert kinds(forked) == kinds(executed)
    assert forked["fds"]["0"] == "/dev/null" and forked["fds"]["1"] == forked["fds"]["2"]

    def seen():
        lines = [line.split() for line in log.read_text().splitlines()]
        return {(what, int(pid)): sum(other == [what, pid] for other in lines) for what, pid in lines}
    workers = {int(pid) for pid in re.findall(r"worker forked/w\d pid (\d+): (?:replacement )?ready", node.log())}
    assert len(workers) == 2 and forked["pid"] in workers
    assert seen() == {("preload", forkserver): 1, ("preload", executed["pid"]): 1, ("fork", executed["pid"]): 1,
                      **{("fork", pid): 1 for pid in workers}}


def test_pages_are_shared(db, jobqd, programs, tmp_path):
    jobqd(db, {"default": {"command": f"{programs('preload_worker')} {tmp_path / 'hooks'} 64", "concurrency": 4,
                           "preload": "true"}})
    pids = set()
    wait_for(lambda: pids.add(result_of(db, db.enqueue("facts"))["pid"]) or len(pids) == 4)

    def kb(pid, what):
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(n) for n in re.findall(rf"^{what}:\s+(\d+) kB", rollup, re.M))
    for pid in pids:
        rss, pss, private = kb(pid, "Rss"), kb(pid, "Pss"), kb(pid, "Private_(?:Clean|Dirty)")
        print(f"64 MB loaded: worker {pid} has {rss} kB resident, its share {pss} kB, its own {private} kB")
        assert rss > 64 * 1024 and pss < rss / 3 and private < 8 * 1024


def test_a_crashed_worker_is_back_in_milliseconds(db, jobqd, programs, tmp_path):
    """From the daemon's own log: 5 ms on a machine of its own. Without the forkserver a pause would come first, 100 ms and more."""
    node = jobqd(db, {"default": {"command": f"{programs('preload_worker')} {tmp_path / 'hooks'} 1", "concurrency": 1,
                                  "preload": "true", "max_restarts": 1000}})
    for n in range(1, 41):
        db.enqueue("fail", max_attempts=1)
        db.wait_for_states({"discarded": n})
    def seen():
        found = re.findall(r"replacement ready, (\S+) (m?s) after w1 exited", node.log())
        return [float(time) * (1 if unit == "ms" else 1000) for time, unit in found]
    times = wait_for(lambda: len(seen()) == 40 and seen())
    print(f"crash to hello: {min(times)} ms at best, {statistics.median(times)} ms in the middle, {max(times)} ms at worst")
    assert statistics.median(times) < 100


def test_a_queue_that_becomes_an_exec_queue_keeps_no_template(db, jobqd, programs, tmp_path):
    """It stays for as long as a worker of it: until then, whatever ends it is nothing to the exec queue."""
    began = tmp_path / "began"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "preload": "on", "max_restarts": 0}})
    first = first_forkserver(node)
    long = db.enqueue("sleep", f'{{"ms": 1000, "file": "{began}"}}')
    wait_for(began.exists)
    node.reload({"default": {"exec": "/bin/true", "concurrency": 2, "max_restarts": 0}})
    os.kill(first, signal.SIGKILL)
    result_of(db, db.enqueue("anything"))
    result_of(db, long)
    node.wait_log("reload complete: all workers run the new configuration")
    wait_for(lambda: not any(name.startswith("fault_worker") for name in children_of(node.pid).values()),
             what=lambda: f"the forkserver to go: {children_of(node.pid)}")
    assert forkserver_pids(node) == [first] and "starting no processes" not in node.log()


def test_a_template_goes_when_its_queue_becomes_an_exec_queue(db, jobqd, programs):
    queue = {"concurrency": 1}
    node = jobqd(db, {"default": {**queue, "command": programs("fault_worker"), "preload": "on"}})
    first = first_forkserver(node)
    wait_for(lambda: re.search(r"worker \S+ pid \d+: ready after", node.log()))
    node.reload({"default": {**queue, "exec": "/bin/true"}})
    wait_for(lambda: is_gone(first))


def test_a_crash_loop_under_load_accounts_for_each_job(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 4, "preload": "true",
                                  "max_restarts": 1000, "backoff": "constant(0s)"}})
    with db.connect() as connection:
        connection.execute("INSERT INTO jobq.jobs (kind, args) SELECT (ARRAY['segfault', 'kill', 'exit', 'ok'])[n % 4 + 1],"
                           " '{\"times\": 1, \"signal\": 9, \"code\": 3}' FROM generate_series(1, 400) n")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, what=db.states)
    assert db.query("SELECT kind, state::text, attempt, jsonb_array_length(errors), errors -> 0 ->> 'kind', count(*)"
                    " FROM jobq.finished_jobs GROUP BY 1, 2, 3, 4, 5 ORDER BY 1") == [
        ("exit", "completed", 2, 1, "crash", 100), ("kill", "completed", 2, 1, "crash", 100),
        ("ok", "completed", 1, 0, None, 100), ("segfault", "completed", 2, 1, "crash", 100)]
    assert len(forkserver_pids(node)) == 1
    # jobqd's own children: the guard, the forkserver, four workers, and nothing that nobody has taken the end of
    wait_for(lambda: sum("fault_worker S" in child for child in children_of(node.pid).values()) == 5)
    assert not any(child.endswith("Z") for child in children_of(node.pid).values())


@pytest.mark.root
@pytest.mark.parametrize("preload", ["on", "off"])
def test_limits_hold_for_forked_workers(db, jobqd, programs, for_anyone, preload):
    """They are set for the forkserver, and inherited."""
    node = jobqd(db, {"default": {"command": for_anyone(programs("fault_worker")), "concurrency": 2, "preload": preload, "user": "nobody",
                                  "nofile": 64, "nice": 5, "no_new_privs": "on", "backoff": "constant(0s)"}})
    assert result_of(db, db.enqueue("segfault", '{"times": 1}')) is None
    pids = wait_for(lambda: len(workers_of(node, "fault_worker")) == 2 + (preload == "on") and workers_of(node, "fault_worker"))
    for pid in pids:
        proc = pathlib.Path(f"/proc/{pid}")
        assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", (proc / "status").read_text(), re.M)
        assert re.search(r"^NoNewPrivs:\t1$", (proc / "status").read_text(), re.M)
        assert re.search(r"^Max open files +64 +64", (proc / "limits").read_text(), re.M)
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)
    node.kill()
    wait_for(lambda: not processes_with(node.token), what=lambda: str(processes_with(node.token)))


def test_memory_is_limited_for_each_forked_worker(db, jobqd, programs, tmp_path):
    """What the forkserver has loaded is not a worker's own: it counts in part. What a job takes is."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "preload": "true",
                                  "max_memory_hard": "64MiB"}})
    job = db.enqueue("allocate", '{"mb": 200, "ms": 600000}', max_attempts=1)
    db.wait_for_states({"discarded": 1})
    (errors,), = db.query("SELECT errors FROM jobq.finished_jobs WHERE id = %s", (job,))
    assert errors[0]["kind"] == "memory"
    assert result_of(db, db.enqueue("ok")) is None
    assert len(forkserver_pids(node)) == 1


def test_the_guard_kills_forked_workers_of_a_stopped_jobqd(db, jobqd, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "preload": "true"}}, lease="1s")
    db.enqueue("hang", f'{{"file": "{tmp_path / "file"}"}}')
    wait_for(lambda: (tmp_path / "file").exists() and (tmp_path / "file").read_text().endswith("\n"))
    pids = wait_for(lambda: len(workers_of(node, "fault_worker")) == 3 and workers_of(node, "fault_worker"))
    node.signal(signal.SIGSTOP)
    wait_for(lambda: all(is_gone(pid) for pid in pids))
    node.signal(signal.SIGCONT)
    db.query("DELETE FROM jobq.jobs")
    assert result_of(db, db.enqueue("ok")) is None


# ---- the forkserver ----

@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_template_that_ends_is_replaced_and_its_workers_go_on(db, jobqd, programs, tmp_path, number):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "preload": "true",
                                  "backoff": "constant(0s)"}}, shutdown_grace="0s")
    first = first_forkserver(node)
    running = db.enqueue("sleep", f'{{"ms": 600000, "file": "{tmp_path / "file"}"}}')
    wait_for(lambda: (tmp_path / "file").exists() and (tmp_path / "file").read_text().endswith("\n"))
    worker = int((tmp_path / "file").read_text().split()[-1])
    os.kill(first, number)
    second = wait_for(lambda: forkserver_pids(node)[1:])[0]
    assert not is_gone(worker) and second != first
    assert db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (running,)) == "executing"
    crash = db.enqueue("segfault", '{"times": 1}')
    assert result_of(db, crash) is None
    assert db.value("SELECT attempt FROM jobq.finished_jobs WHERE id = %s", (crash,)) == 2
    assert not is_gone(worker)


def test_a_template_that_hangs_is_killed_and_replaced(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "preload": "true",
                                  "backoff": "constant(0s)", "boot_timeout": "1s"}})
    os.kill(first_forkserver(node), signal.SIGSTOP)
    crash = db.enqueue("segfault", '{"times": 1}')
    assert result_of(db, crash) is None
    assert "did not answer a request to fork a worker within 1 s" in node.log()
    assert len(forkserver_pids(node)) == 2


@pytest.mark.parametrize("how, words", [
    ("ok", "ready after"),
    ("silent", "did not say hello within 2 s"),
    ("exits", "exited with status 3 before it said hello"),
    ("early", "sent another message before its hello"),
    ("future", "speaks protocol 2"),
    ("worker", "said hello as a worker, not as a forkserver: .* set preload = off"),
    ("twice", "said hello twice"),
    ("deaf", "did not answer a request to fork a worker within 2 s"),
    ("stopped", "did not answer a request to fork a worker within 2 s"),
    ("garbage", "broke the protocol: frame: "),
    ("half", "broke the protocol"),
    ("liar", "process 1 is not jobqd's child"),
    ("single", r"process \d+ is not jobqd's child: fork twice"),
    ("other", r"answered request \d+, which jobqd did not make"),
    ("refuses", "its forkserver could not fork it: not today"),
    ("closes", "closed its socket but did not exit"),
    ("dies", r"was killed by signal 9 \(SIGKILL\)"),
    ("forked", r"answered request \d+, which jobqd did not make"),
])
def test_whatever_a_template_does_the_queue_recovers(db, jobqd, tmp_path, how, words):
    """Once wrong, then right: the job is done by a child of jobqd, nothing is left over, not even a zombie."""
    node = jobqd(db, {"default": {"command": f"{FORKSERVER} {how} {tmp_path / 'once'}", "concurrency": 1, "preload": "true",
                                  "boot_timeout": "2s", "stop_grace": "200ms"}})
    assert result_of(db, db.enqueue("any")) == node.pid
    assert re.search(words, node.log()), node.log()

    def alive():
        return sorted(name for name in children_of(node.pid).values() if not name.startswith("jobqd"))
    wait_for(lambda: len(alive()) == 2 and not any(name.endswith("Z") for name in alive()), what=lambda: str(alive()))
    assert len([pid for pid, command in node.workers().items() if "forkserver.py" in command]) == 2


def test_a_template_that_answers_with_a_worker_that_jobqd_has_is_not_believed(db, jobqd, tmp_path):
    """A second worker of the same pid: the first one's end would be taken from it, and be the second's as well."""
    node = jobqd(db, {"default": {"command": f"{FORKSERVER} same {tmp_path / 'once'}", "concurrency": 2, "preload": "true",
                                  "boot_timeout": "20s", "backoff": "constant(0s)"}})
    node.wait_log(r"jobqd already knows process \d+: it was not forked for this request")
    pids = [wait_for(lambda w=w: re.findall(rf"worker default/w{w} pid (\d+): (?:replacement )?ready", node.log()))[-1] for w in (1, 2)]
    assert len(set(pids)) == 2
    assert result_of(db, db.enqueue("any")) == node.pid


def test_sixteen_descriptors_are_enough_for_a_template(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "preload": "true", "nofile": 16}})
    wait_for(lambda: node.log().count("ready after") == 3, what=node.log)
    assert result_of(db, db.enqueue("ok")) is None


def test_a_program_that_cannot_preload_stops_its_queue_alone(db, jobqd, programs, cli):
    node = jobqd(db, {"default": {"command": programs("rude_worker"), "concurrency": 4, "preload": "true", "max_restarts": 2},
                      "other": {"command": programs("fault_worker"), "concurrency": 1}})
    node.wait_log("does not support preload; set preload = off")
    node.wait_log("queue default: process failures exceeded max_restarts = 2")
    assert result_of(db, db.enqueue("ok", queue="other")) is None


# ---- the same as for any worker ----

def test_a_hang_is_killed_with_its_children(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "preload": "true",
                                  "stop_grace": "200ms"}})
    grandchild = result_of(db, db.enqueue("spawn", '{"ms": 600000}'))
    forkserver = first_forkserver(node)
    worker = stat(grandchild)[3]
    assert worker not in (forkserver, node.pid) and not is_gone(grandchild)
    job = db.enqueue("hang", timeout_ms=300, max_attempts=1)
    db.wait_for_states({"completed": 1, "discarded": 1})
    (errors,), = db.query("SELECT errors FROM jobq.finished_jobs WHERE id = %s", (job,))
    assert errors[0]["kind"] == "timeout"
    wait_for(lambda: is_gone(grandchild) and is_gone(worker))
    assert result_of(db, db.enqueue("ok")) is None and forkserver_pids(node) == [forkserver]


def test_nothing_outlives_a_killed_jobqd(db, jobqd, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 3, "preload": "true"}})
    db.enqueue("hang", f'{{"file": "{tmp_path / "file"}"}}')
    wait_for(lambda: (tmp_path / "file").exists() and (tmp_path / "file").read_text().endswith("\n"))
    node.kill()
    wait_for(lambda: not processes_with(node.token), what=lambda: str(processes_with(node.token)))


def leave_behind(db):
    """The pids of three processes that a worker has started, and that run when it has ended."""
    left = [result_of(db, db.enqueue("leave")) for _ in range(3)]
    job = db.enqueue("fail", max_attempts=1)
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)), what=db.states)
    return left


def test_what_workers_leave_behind_does_not_stay_as_a_zombie(db, jobqd, programs, tmp_path):
    """With a forkserver jobqd is the parent of orphans, so it takes their ends."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    node = jobqd(db, {"default": {"command": f"{programs('preload_worker')} {tmp_path / 'hooks'} 1", "concurrency": 1,
                                  "preload": "true", "max_restarts": 100}}, env={"TEST_FIFO": str(fifo)})
    left = leave_behind(db)
    wait_for(lambda: all(stat(pid)[2] == node.pid for pid in left))
    with open(fifo, "wb", buffering=0):
        wait_for(lambda: all(pid in children_of(node.pid) for pid in left))
    wait_for(lambda: not any(pid in children_of(node.pid) for pid in left), what=lambda: str(children_of(node.pid)))
    result_of(db, db.enqueue("facts"))


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_what_was_left_behind_is_taken_when_nothing_is_preloaded_any_more(db, jobqd, programs, tmp_path, how):
    """The orphans of before stay jobqd's children. Later ones are not, in a program that never asked for them either."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    queue = {"command": f"{programs('preload_worker')} {tmp_path / 'hooks'} 1", "concurrency": 1, "max_restarts": 100}
    node = jobqd(db, {"default": {**queue, "preload": "true"}}, env={"TEST_FIFO": str(fifo)})
    orphans = leave_behind(db)
    wait_for(lambda: all(stat(pid)[2] == node.pid for pid in orphans))
    if how == "reload":
        node.reload({"default": queue})
        node.wait_log("reload complete: all workers run the new configuration")
    else:
        node.configure({"default": queue})
        node.signal(signal.SIGUSR2)
        node.wait_log("took over from jobqd")
    with open(fifo, "wb", buffering=0):
        wait_for(lambda: all(pid in children_of(node.pid) for pid in orphans))
    wait_for(lambda: not any(pid in children_of(node.pid) for pid in orphans), what=lambda: str(children_of(node.pid)))
    strangers = leave_behind(db)
    wait_for(lambda: all(stat(pid)[2] not in workers_of(node, "preload_worker") for pid in strangers))
    assert not any(stat(pid)[2] == node.pid for pid in strangers)
    with open(fifo, "wb", buffering=0):
        pass
    result_of(db, db.enqueue("facts"))


# ---- a reload ----

def test_a_reload_replaces_the_template_and_then_the_workers(db, jobqd, programs, tmp_path):
    queue = {"command": f"{programs('preload_worker')} {tmp_path / 'hooks'} 1", "concurrency": 3, "preload": "true"}
    node = jobqd(db, {"default": queue})
    first = first_forkserver(node)
    before = wait_for(lambda: len(workers_of(node, "preload_worker")) == 4 and workers_of(node, "preload_worker"))
    node.signal(signal.SIGHUP)
    node.wait_log("reload complete: all workers run the new configuration")
    second = forkserver_pids(node)[1]
    wait_for(lambda: is_gone(first))
    after = workers_of(node, "preload_worker")
    assert second in after and not before & after and len(after) == 4
    assert result_of(db, db.enqueue("facts"))["pid"] in after


def test_a_broken_program_leaves_the_old_template_at_work(db, jobqd, programs, tmp_path):
    program = tmp_path / "program"
    program.symlink_to(programs("fault_worker"))
    node = jobqd(db, {"default": {"command": program, "concurrency": 2, "preload": "true", "backoff": "constant(0s)",
                                  "max_restarts": 100}})
    first = first_forkserver(node)
    program.unlink()
    program.symlink_to("/bin/false")
    node.signal(signal.SIGHUP)
    node.wait_log("a replacement failed to start")
    crash = db.enqueue("segfault", '{"times": 2}')
    assert result_of(db, crash) is None
    assert forkserver_pids(node) == [first] and not is_gone(first)
    program.unlink()
    program.symlink_to(programs("fault_worker"))
    node.wait_log("reload complete: all workers run the new configuration")
    wait_for(lambda: is_gone(first))


def test_a_reload_while_the_first_worker_boots(db, jobqd, programs, tmp_path):
    """Its forkserver is the one that works, though a newer program is there before the first hello."""
    program, hooks = tmp_path / "program", tmp_path / "hooks"
    program.symlink_to(programs("preload_worker"))
    os.mkfifo(hooks)
    pipe = os.open(hooks, os.O_RDWR)
    room = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    os.write(pipe, b"x" * (room - len("preload 1234567\n")))  # the forkserver loads, its first fork waits
    node = jobqd(db, {"default": {"command": f"{program} {hooks} 1", "concurrency": 1, "preload": "true", "max_restarts": 100}})
    first = first_forkserver(node)
    program.unlink()
    program.symlink_to("/bin/false")
    node.reload()
    assert not re.search("worker .* ready", node.log())
    os.read(pipe, room)
    node.wait_log("worker default/w1 .* ready after")
    node.wait_log("a replacement failed to start")
    db.enqueue("fail", max_attempts=1)
    assert result_of(db, db.enqueue("facts"))["parent"] == node.pid
    assert forkserver_pids(node) == [first] and not is_gone(first)
    os.close(pipe)


def test_preload_can_be_switched_off_and_on(db, jobqd, programs):
    queue = {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)"}
    node = jobqd(db, {"default": queue})
    for turn, preload in enumerate(["on", "off", "on"], 1):
        node.write_conf(db.uri, {"default": {**queue, "preload": preload}}, {})
        node.signal(signal.SIGHUP)
        wait_for(lambda: node.log().count("reload complete: all workers run the new configuration") == turn)
        assert result_of(db, db.enqueue("segfault", '{"times": 1}')) is None
        forkservers = [pid for pid in forkserver_pids(node) if not is_gone(pid)]
        assert len(forkservers) == (preload == "on")
