"""Worker processes are killed by the hundred while they work: a crash costs the job at the head one attempt, its
neighbours notice nothing, and jobqd least of all."""

import os
import random
import signal

import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from harness.waiting import wait_for

JOBS = 10_000
KILLS = 200


def is_child_of(pid, parent):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[1]) == parent
    except OSError:
        return False


def kill_one(node, ledger, killed, number):
    """Sends the signal to a worker that has not been killed yet, most often in the middle of a job."""
    alive = [w for w in ledger.read().workers if w not in killed]
    busy = [w for w in alive if w.current]
    random.shuffle(busy)
    for worker in busy + alive:
        if is_child_of(worker.pid, node.pid):
            os.kill(worker.pid, number)
            killed[worker] = number
            return True
    return False


@pytest.mark.parametrize("mailbox", [0, 1])
def test_10000_jobs_while_workers_are_killed_200_times(db, jobqd, programs, ledger, mailbox):
    watch_nodes(db)
    node = jobqd(db, {"default": {
        "command": ledger.command(programs("ledger_worker"), 200, 2500), "concurrency": 4, "mailbox": mailbox,
        "backoff": "constant(0s)", "max_restarts": 1000, "max_crashes": 0}})
    ids = enqueue_crowd(db, JOBS)
    killed = {}
    for threshold in sorted(random.sample(range(1, JOBS * 9 // 10), KILLS)):
        wait_for(lambda: ledger.read().ended >= threshold)
        wait_for(lambda: kill_one(node, ledger, killed, random.choice((signal.SIGKILL, signal.SIGSEGV))))
    wait_all_finished(db, JOBS)

    kinds = check_completed(db, ledger, ids)
    assert set(kinds) == {"crash"}
    charged = check_each_crash_is_charged_once(db, ledger, killed)
    print(f"{KILLS} kills: {charged} of them in the middle of a run; {kinds['crash']} errors of kind crash")
    assert charged > KILLS / 2, "the test has hardly hit a worker at work"
    assert node.running
    assert len(node.workers()) == 4


def check_each_crash_is_charged_once(db, ledger, killed):
    """Which attempts the crashes must be charged to, as far as the ledger knows it. It does exactly where a killed
    process had begun a run and not ended it: there must be one error with its signal. A process that was
    killed between two runs either had an answer unsaid (the run that it ended is charged), or a job in its mailbox
    that had not begun (charged, without a run), or nothing."""
    errors = {}
    for job, entry in db.query("SELECT id, jsonb_array_elements(errors) FROM jobq.finished_jobs"):
        at = (job, entry["attempt"])
        assert at not in errors, f"two errors for one attempt: {at}"
        errors[at] = entry["signal"]
    names = {signal.SIGKILL: "SIGKILL", signal.SIGSEGV: "SIGSEGV"}
    ran = {(run.job, run.attempt) for run in ledger.runs}
    certain = 0
    between = []
    for worker, number in killed.items():
        run = worker.current
        if run:
            assert errors.pop((run.job, run.attempt), None) == names[number], f"{worker} died in {run}, of {number}"
            certain += 1
        else:
            between.append(worker)
    for worker in ledger.workers:
        assert worker in killed or worker.current is None, f"nobody killed {worker}"
    for at, name in list(errors.items()):
        if at in ran:
            of = [w for w in between if w.runs and (w.runs[-1].job, w.runs[-1].attempt) == at]
            assert of and names[killed[of[0]]] == name, f"{at} is charged with {name}, and {of} ran it"
            between.remove(of[0])
            del errors[at]
    assert len(errors) <= len(between), f"charged with a crash that did not happen: {errors}"
    return certain
