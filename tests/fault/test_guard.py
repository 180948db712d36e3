"""The guard: what jobqd cannot do when it is stopped, hung, starved or dead, the guard does for it, in time. And each
of the two is replaced when it is lost."""

import os
import pathlib
import re
import signal

import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from harness.daemon import processes_with
from harness.ledger import boottime_ns
from harness.waiting import wait_for


@pytest.fixture
def family(tmp_path):
    """family("sleep 1000", "setsid sleep 1000"): an exec program that starts these children and waits for ever; when it is
    run again, it ends. Returns its path, and a function that waits for all their pids and its own."""
    def make(*children):
        path, pids = tmp_path / "family.sh", tmp_path / "family"
        start = "".join(f"{child} &\nall=\"$all $!\"\n" for child in children)
        path.write_text(f"#!/bin/sh\n[ $JOBQ_ATTEMPT -gt 1 ] && exit 0\nall=$$\n{start}echo $all >{pids}.new\n"
                        f"mv {pids}.new {pids}\nwait\n")
        path.chmod(0o755)
        return path, lambda: [int(pid) for pid in wait_for(lambda: pids.exists() and pids.read_text()).split()]
    return make


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def lease_end_ns(db, name):
    """When the node's lease ends by the database's word, on our clock."""
    left = db.value("SELECT extract(epoch FROM expires_at - clock_timestamp())::float FROM jobq.nodes WHERE name = %s",
                    (name,))
    return boottime_ns() + int(left * 1e9)


def the_guard(node):
    """The pid of its guard, which is up: it has blocked every signal by itself."""
    guard, = wait_for(lambda: len(node.guards()) == 1 and node.guards())
    return guard


# --- instead of a jobqd that cannot ---


def test_a_stopped_jobqd_s_workers_and_their_children_are_dead_before_its_lease_ends(db, jobqd, programs, ledger, family):
    watch_nodes(db)
    program, members = family("sleep 1000", "setsid sleep 1000")
    queues = {"default": {"command": ledger.command(programs("ledger_worker"), 2_000_000, 2_000_000), "concurrency": 2},
              "script": {"exec": program, "concurrency": 1}}
    node = jobqd(db, queues, lease="2s")
    ids = enqueue_crowd(db, 2)
    ids.append(db.enqueue("script", queue="script"))
    pids = {*members(), *wait_for(lambda: len(ledger.read().runs) == 2 and [w.pid for w in ledger.workers])}
    node.signal(signal.SIGSTOP)
    try:
        end_ns = lease_end_ns(db, "node1")
        other = jobqd(db, queues, lease="2s")
        wait_for(lambda: all(map(is_gone, pids)), what=lambda: f"{pids} to be gone:\n{node.log()}")
        left_ms = (end_ns - boottime_ns()) // 1_000_000
        print(f"the last process was gone {left_ms} ms before the lease's end")
        assert left_ms > 0, "they outlived the lease"
        node.wait_log(r"guard: process groups killed: \d+; jobqd")
        wait_all_finished(db, 3)
        first_again = min(run.start_ns for run in ledger.read().runs if run.worker.parent == other.pid)
        assert first_again > end_ns
    finally:
        node.signal(signal.SIGCONT)
    node.wait_log("must stop its jobs: ")
    ledger.read().check_never_twice_at_once()
    assert db.query("SELECT DISTINCT attempt FROM jobq.finished_jobs") == [(2,)]
    assert db.query("SELECT DISTINCT e ->> 'kind' FROM jobq.finished_jobs, jsonb_array_elements(errors) e") == [("orphaned",)]
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 2)  # it is back under a new id
    assert sorted(ids) == sorted(row[0] for row in db.query("SELECT id FROM jobq.finished_jobs"))


def test_a_jobqd_that_goes_on_after_the_guard_has_struck_knows_it(db, jobqd, family):
    """Alone: nobody has taken its job when it wakes. Nothing is charged as a crash of the program's."""
    program, members = family("sleep 1000")
    node = jobqd(db, {"default": {"exec": program, "concurrency": 1}}, lease="1s")
    job = db.enqueue("script")
    pids = members()
    node.signal(signal.SIGSTOP)
    wait_for(lambda: all(map(is_gone, pids)))
    node.signal(signal.SIGCONT)
    node.wait_log(r"guard: process groups killed: 1")
    node.wait_log(r"was killed by the guard: jobqd did not renew its lease in time|must stop its jobs: ")
    # It is run again, whoever gave it back: jobqd, or the lifeline with the old lease.
    db.wait_for_states({"completed": 1})
    assert db.query("SELECT attempt, errors -> 0 ->> 'kind', jsonb_array_length(errors) FROM jobq.finished_jobs"
                    " WHERE id = %s", (job,)) == [(2, "orphaned", 1)]


def test_kill_9_of_jobqd_takes_a_script_s_own_children_along(db, jobqd, family):
    program, members = family("sleep 1000")
    node = jobqd(db, {"default": {"exec": program, "concurrency": 1}}, lease="60s")
    db.enqueue("script")
    pids = members()
    guard = the_guard(node)
    node.kill()
    wait_for(lambda: all(map(is_gone, pids)))
    wait_for(lambda: is_gone(guard))
    node.wait_log(r"guard: jobqd \(pid \d+\) died; process groups left behind and killed: 1$")
    node.start()
    node.expected_exit = 0
    db.wait_for_states({"completed": 1})


def test_a_machine_that_was_paused_as_a_whole_does_not_get_its_answers_accepted(db, jobqd, tmp_path):
    """The one case that nothing on the machine can prevent: jobqd, its guard and its workers all stand still past the
    lease. The job runs elsewhere meanwhile; when they go on, what they answer must not count."""
    watch_nodes(db)
    began = tmp_path / "began"
    program = tmp_path / "slow.sh"
    program.write_text(f"#!/bin/sh\necho $JOBQ_ATTEMPT >>{began}\n[ $JOBQ_ATTEMPT -gt 1 ] || sleep 1\nexit 0\n")
    program.chmod(0o755)
    queue = {"default": {"exec": program, "concurrency": 1}}
    paused = jobqd(db, queue, lease="1s")
    job = db.enqueue("work")
    wait_for(began.exists)
    machine = [paused.pid, *paused.guards(), *paused.workers()]
    for pid in machine:
        os.kill(pid, signal.SIGSTOP)
    try:
        other = jobqd(db, queue, lease="1s")
        db.wait_for_states({"completed": 1})
    finally:
        for pid in machine[2:] + machine[:2]:  # its program first, so that it has a chance to end and be heard
            os.kill(pid, signal.SIGCONT)
    paused.wait_log("must stop its jobs: ")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 2)
    rows = db.query("SELECT j.attempt, n.pid, jsonb_array_length(j.errors) FROM jobq.finished_jobs j"
                    " JOIN public.seen_nodes n ON n.id = j.attempted_by WHERE j.id = %s", (job,))
    assert rows == [(2, other.pid, 1)]
    assert began.read_text().split() == ["1", "2"]
    assert paused.running


def test_a_job_s_end_by_force_reaches_who_has_left_its_group(db, jobqd, family):
    """jobqd's own kill does the same: of a job past its deadline no descendant is left that its program still knows."""
    program, members = family("setsid sleep 1000", "setsid sh -c 'trap \"\" TERM; sleep 1000'")
    jobqd(db, {"default": {"exec": program, "concurrency": 1, "timeout": "1s", "stop_grace": "100ms", "backoff": "constant(0s)"}})
    program.write_text(program.read_text().replace("all=$$", "trap '' TERM\nall=$$"))
    db.enqueue("work")
    pids = members()
    wait_for(lambda: all(map(is_gone, pids)))
    db.wait_for_states({"completed": 1})


# --- the guard is lost ---


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_is_lost_is_replaced_and_the_workers_notice_nothing(db, jobqd, programs, ledger, how):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 1000, 20_000), "concurrency": 2}}
    node = jobqd(db, queue, lease="2s")
    ids = enqueue_crowd(db, 200)
    wait_for(lambda: ledger.read().ended > 20)
    first = the_guard(node)
    os.kill(first, how)
    wait_for(lambda: is_gone(first) and set(node.guards()) - {first})
    node.wait_log(r"guard: pid \d+ was killed by SIGKILL; starting another")
    wait_all_finished(db, 200)
    assert not check_completed(db, ledger, ids)
    assert len(ledger.workers) == 2
    # The new one guards what was started before it.
    pids = [worker.pid for worker in ledger.workers]
    node.kill()
    wait_for(lambda: all(map(is_gone, pids)))
    node.wait_log(r"guard: jobqd \(pid \d+\) died")
    node.start()
    node.expected_exit = 0


def test_a_guard_that_dies_again_and_again_is_not_started_in_a_loop(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    killed = set()
    for _ in range(6):
        guard, = wait_for(lambda: set(node.guards()) - killed)
        os.kill(guard, signal.SIGKILL)
        killed.add(guard)
    node.wait_log("guard: more than 5 guards died within 10 s; starting the next in")
    db.enqueue("noop")
    db.wait_for_states({"completed": 1})
    wait_for(lambda: set(node.guards()) - killed)


def test_signals_for_jobqd_s_group_are_not_for_the_guard(db, jobqd, programs):
    """As a terminal's ^C, or a kill of the whole group: the guard stays until jobqd has drained."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    guard = the_guard(node)
    assert os.getsid(guard) != os.getsid(node.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGUSR1):
        os.kill(guard, number)
    node.signal(signal.SIGUSR1)
    node.wait_log("jobqd: node ")
    assert node.guards() == [guard]
    node.stop()
    assert is_gone(guard)
    assert "guard" not in node.log()


def test_both_are_killed_at_once(db, jobqd, programs, ledger):
    """Nobody is left to act but the kernel, which kills each worker with the jobqd that forked it."""
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 10_000, 20_000), "concurrency": 2}}
    node = jobqd(db, queue, lease="2s")
    ids = enqueue_crowd(db, 100)
    wait_for(lambda: ledger.read().ended > 10)
    node.signal(signal.SIGSTOP)  # so that it does not start another guard in between
    os.kill(the_guard(node), signal.SIGKILL)
    pids = list(node.workers())
    node.kill()
    wait_for(lambda: all(map(is_gone, pids)))
    node.start()
    node.expected_exit = 0
    wait_all_finished(db, 100)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}


# --- after an upgrade in place ---


def test_the_next_program_s_guard_knows_the_workers_of_the_one_before(db, jobqd, programs, ledger, family):
    watch_nodes(db)
    program, members = family("sleep 1000", "setsid sleep 1000")
    queues = {"default": {"command": ledger.command(programs("ledger_worker"), 2_000_000, 2_000_000), "concurrency": 1},
              "script": {"exec": program, "concurrency": 1}}
    node = jobqd(db, queues, lease="3s")
    db.enqueue("work")
    db.enqueue("script", queue="script")
    pids = {*members(), *wait_for(lambda: ledger.read().runs and [w.pid for w in ledger.workers])}
    before = the_guard(node)
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    wait_for(lambda: is_gone(before))
    the_guard(node)
    assert not any(map(is_gone, pids))
    node.signal(signal.SIGSTOP)
    try:
        end_ns = lease_end_ns(db, "node1")
        wait_for(lambda: all(map(is_gone, pids)), what=lambda: f"{pids} to be gone:\n{node.log()}")
        assert boottime_ns() < end_ns, "they outlived the lease"
    finally:
        node.signal(signal.SIGCONT)
    wait_all_finished(db, 2)
    ledger.read().check_never_twice_at_once()


def test_the_next_program_watches_the_other_nodes(db, jobqd, programs, ledger):
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 300_000, 400_000), "concurrency": 1}}
    node, victim = jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    enqueue_crowd(db, 4)
    wait_for(lambda: victim.pid in {run.worker.parent for run in ledger.read().runs})
    victim.kill()
    wait_all_finished(db, 4)
    ledger.read().check_never_twice_at_once()


# --- respawn ---


def parent_of(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def jobqds(node):
    """What it has forked has its name, too, until it executes another program."""
    found = [pid for pid, command in processes_with(node.token).items() if re.search(r"jobqd run -c ", command)
             and not command.startswith("jobqd guard")]
    return [pid for pid in found if parent_of(pid) not in found]


def test_with_respawn_a_jobqd_that_was_killed_is_started_again_by_its_guard(db, jobqd, programs, ledger):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 1000, 10_000), "concurrency": 2}}
    node = jobqd(db, queue, lease="60s", respawn="on")
    ids = enqueue_crowd(db, 400)
    first = node.pid
    seen = {first}
    for n in range(3):
        wait_for(lambda: ledger.read().ended > (n + 1) * 50)
        pid, = jobqds(node)
        guard = the_guard(node)
        os.kill(pid, signal.SIGKILL)
        if pid == first:
            node.process.wait()
        wait_for(lambda: jobqds(node) == [guard], what=lambda: f"{guard} to be jobqd: {jobqds(node)}\n{node.log()}")
        seen.add(guard)
    wait_all_finished(db, 400)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}
    assert len(seen) == 4 and node.log().count("restarting jobqd") == 3
    # An end in order is an end.
    os.kill(jobqds(node)[0], signal.SIGTERM)
    wait_for(lambda: not processes_with(node.token), what=lambda: node.log())
    assert node.log().count("restarting jobqd") == 3
    node.expected_exit = -signal.SIGKILL


def test_what_is_meant_for_jobqd_does_not_end_one_that_is_about_to_be_started_again(db, jobqd, programs):
    """While it waits for its turn there is nothing to reload."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, respawn="on")
    node.expected_exit = -signal.SIGKILL
    for again in range(2, 5):  # each time after a longer wait
        (pid,), guard = jobqds(node), the_guard(node)
        os.kill(pid, signal.SIGKILL)

        def is_back():
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
                os.kill(guard, number)
            return node.log().count("ready database=") == again
        wait_for(is_back, what=node.log)
        assert jobqds(node) == [guard]
    os.kill(jobqds(node)[0], signal.SIGTERM)
    wait_for(lambda: not processes_with(node.token), what=node.log)


def test_without_respawn_it_is_not(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    guard = the_guard(node)
    node.kill()
    wait_for(lambda: is_gone(guard) and not processes_with(node.token))


def test_respawn_does_not_bring_back_a_jobqd_that_refuses_to_start(empty_db, jobqd, programs):
    node = jobqd(empty_db, {"default": {"command": programs("noop_worker")}}, respawn="on", ready=False)
    node.wait_log("run `jobqd migrate up`")
    node.wait()
    node.expected_exit = 69
    wait_for(lambda: not processes_with(node.token))
    assert "restarting jobqd" not in node.log()


# --- its table ---


def test_no_process_is_started_that_the_guard_cannot_know(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 4}}, env={"JOBQ_TEST_GUARD_SLOTS": "2"})
    node.wait_log("queue default: cannot start a process: the guard's table is full: 2 processes are running")
    enqueue_crowd(db, 50, kind="noop")
    wait_all_finished(db, 50)
    assert len(node.workers()) == 2


def test_the_command_says_that_it_is_not_for_people(cli):
    done = cli("guard", code=64)
    assert "only jobqd itself starts this command" in done.stderr
    assert "guard" not in cli("--help").stdout
