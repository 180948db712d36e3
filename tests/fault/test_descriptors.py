"""jobqd has no file descriptor left: it starts and connects nothing new, says so, goes on with what it has, and is back as
soon as it may open files again. No job pays for it."""

import os
import pathlib
import resource
import signal

import pytest

from harness.waiting import wait_for


@pytest.fixture
def program(tmp_path):
    """An exec program that ends as soon as the file `go` is there; its path, and that file."""
    path, go = tmp_path / "program.sh", tmp_path / "go"
    path.write_text(f"#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.02; done\n")
    path.chmod(0o755)
    return path, go


def take_descriptors(node, all_of_them):
    """From here on none is left; all_of_them: not even those that it closes. Returns what gives them back."""
    used = {int(fd.name) for fd in pathlib.Path(f"/proc/{node.pid}/fd").iterdir()}
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    lowest_free = min(set(range(len(used) + 1)) - used)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (3 if all_of_them else lowest_free, hard))
    return lambda: resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_processes_wait_until_there_are_descriptors_again(db, jobqd, programs, program):
    path, go = program
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)"},
                      "script": {"exec": path, "concurrency": 2}}, lease="2s")
    running = db.enqueue("work", queue="script")
    wait_for(lambda: any("program.sh" in command for command in node.workers().values()))
    give_back = take_descriptors(node, all_of_them=False)
    crashed = db.enqueue("kill", '{"times": 1}')
    waiting = db.enqueue("work", queue="script")
    node.wait_log(r"queue default.*Too many open files")
    node.wait_log(r"queue script.*Too many open files")
    for n in range(3):  # the worker that is left works on, the lease is renewed
        since = db.value("SELECT clock_timestamp()")
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes WHERE renewed_at > %s", (since,)))
    give_back()
    go.touch()
    db.wait_for_states({"completed": 3})
    assert node.running
    assert db.query("SELECT id, attempt, jsonb_array_length(errors) FROM jobq.finished_jobs ORDER BY id") == [
        (running, 1, 0), (crashed, 2, 1), (waiting, 1, 0)]


def test_connections_and_the_guard_wait_as_well(db, jobqd, program):
    path, go = program
    node = jobqd(db, {"script": {"exec": path, "concurrency": 1}}, lease="60s")
    running = db.enqueue("work", queue="script")
    wait_for(lambda: any("program.sh" in command for command in node.workers().values()))
    guard, = wait_for(lambda: len(node.guards()) == 1 and node.guards())
    give_back = take_descriptors(node, all_of_them=True)
    os.kill(guard, signal.SIGKILL)
    db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'jobqd %%'"
             " AND datname = current_database()")
    go.touch()
    waiting = db.enqueue("work", queue="script")
    node.wait_log("guard: cannot start the guard: too many open files; retrying")
    node.wait_log("database: still unavailable: .*Too many open files")
    give_back()
    db.wait_for_states({"completed": 2})
    node.wait_log("guard: started again")
    wait_for(lambda: len(node.guards()) == 1)
    assert node.log().count("cannot start the guard") == 1
    assert db.query("SELECT id, attempt, errors FROM jobq.finished_jobs ORDER BY id") == [(running, 1, []), (waiting, 1, [])]


def test_a_limit_too_small_for_its_workers_costs_workers_alone(db, jobqd, jobqd_program, programs, tmp_path):
    """It serves with as many as it could start."""
    program = tmp_path / "jobqd"
    program.write_text(f"#!/bin/sh\nulimit -n 64\nexec {jobqd_program} \"$@\"\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 40},
                      "other": {"command": programs("fault_worker"), "concurrency": 1}}, program=program)
    node.wait_log("queue default: cannot start a process: .*Too many open files")
    node.wait_log("queue default: process failures exceeded max_restarts = 5")
    jobs = [db.enqueue("ok", queue=queue) for queue in ("default", "other") for _ in range(20)]
    db.wait_for_states({"completed": len(jobs)})
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
