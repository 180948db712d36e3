"""on_failure and on_discard run a program after a failure was recorded, and on_discard_kind enqueues a job in the transaction that
records it. None of them is in a job's way, whatever it does."""

import json
import os
import pathlib
import pwd
import re
import shlex
import signal
import subprocess
import tempfile

import pytest

from harness.ends import ENDS, put
from harness.waiting import wait_for

@pytest.fixture
def told():
    """told(): what the hooks were told, by the program told.program() (before: shell commands that it runs first)."""
    with tempfile.TemporaryDirectory(prefix="jobq-told-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o1777)

        def read():
            stories = []
            for path in sorted(folder.glob("*.json"), key=lambda path: int(path.stem.split("-")[0])):
                env = path.with_suffix(".env").read_bytes().decode().split("\0")
                stories.append({**json.loads(path.read_text()), "_uid": path.stat().st_uid,
                                "_env": dict(variable.split("=", 1) for variable in env if variable)})
            return stories

        def program(before="true"):
            name = f"{folder}/$JOBQ_JOB_ID-$JOBQ_EVENT-$$"
            return shlex.join(["/bin/sh", "-c", f"{before}; cat /proc/$$/environ >{name}.env; cat >{name}.new;"
                               f" mv {name}.new {name}.json"])
        read.program, read.folder = program, folder
        yield read


def queue(programs, **more):
    return {"command": programs("fault_worker"), "concurrency": 2, "max_restarts": 100, **more}


def test_on_failure_is_told_the_story(db, jobqd, programs, told):
    node = jobqd(db, {"default": queue(programs)}, on_failure=told.program())
    with db.connect() as conn:
        job = conn.execute("SELECT jobq.enqueue('fail', %s, meta => '{\"trace\": 7}', max_attempts => 5)",
                           (json.dumps({"error": "smtp said no", "detail": "line 1\nline 2", "retry_in_ms": 3_600_000, "x": 1.10}),)
                           ).fetchone()[0]
    story, = wait_for(told)
    env = story["_env"]
    assert story["args"] == {"error": "smtp said no", "detail": "line 1\nline 2", "retry_in_ms": 3_600_000, "x": 1.1}
    assert {key: story[key] for key in ("event", "job", "kind", "queue", "attempt", "max_attempts", "state", "node", "meta")} == {
        "event": "failure", "job": job, "kind": "fail", "queue": "default", "attempt": 1, "max_attempts": 5, "state": "retryable",
        "node": "node1", "meta": {"trace": 7}}
    assert (story["error"]["kind"], story["error"]["error"], story["error"]["detail"]) == ("error", "smtp said no", "line 1\nline 2")
    due = db.value("SELECT to_char(date_trunc('milliseconds', scheduled_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI')"
                   " FROM jobq.jobs WHERE id = %s", (job,))
    assert story["retry_at"].startswith(due) and story["at"] < story["retry_at"]
    assert {name: env[name] for name in env if name.startswith("JOBQ_")} == {
        "JOBQ_EVENT": "failure", "JOBQ_JOB_ID": str(job), "JOBQ_KIND": "fail", "JOBQ_QUEUE": "default", "JOBQ_ATTEMPT": "1",
        "JOBQ_STATE": "retryable", "JOBQ_ERROR": "error: smtp said no"}
    assert not any(name.startswith("PG") for name in env)
    node.stop()
    assert len(told()) == 1, "no discard, one attempt"


def test_each_end_calls_its_hooks(db, jobqd, programs, told):
    jobs = {name: put(db, *given) for name, (given, _) in ENDS.items()}
    jobqd(db, {"default": queue(programs)}, lease="2s", on_failure=told.program(), on_discard=told.program())
    wanted = set()
    for name, (_, (_, state, attempt, kind, _, _)) in ENDS.items():
        if attempt:
            wanted.add((jobs[name], "failure", state, kind))
        if state in ("discarded", "cancelled"):
            wanted.add((jobs[name], "discard", state, kind))

    def got():
        return {(s["job"], s["event"], s["state"], s["error"]["kind"]) for s in told()}
    wait_for(lambda: got() >= wanted, what=lambda: wanted - got())
    assert got() == wanted


def test_a_queue_has_its_own(db, jobqd, programs, told, tmp_path):
    own = tmp_path / "own"
    node = jobqd(db, {"default": queue(programs), "mail": queue(programs, on_discard=shlex.join(
        ["/bin/sh", "-c", f"cat >{own}.new; mv {own}.new {own}"]))}, on_discard=told.program())
    one = db.enqueue("discard", queue="default")
    other = db.enqueue("discard", queue="mail")
    wait_for(own.exists)
    story, = wait_for(told)
    assert (story["job"], json.loads(own.read_text())["job"]) == (one, other)
    node.stop()
    assert len(told()) == 1


@pytest.mark.root
def test_a_queues_hook_has_the_queues_user(db, jobqd, programs, told, for_anyone):
    user = pwd.getpwnam("nobody")
    jobqd(db, {"default": {"command": for_anyone(programs("fault_worker")), "user": "nobody", "env": "COLOUR=red",
                           "on_failure": told.program()}})
    db.enqueue("fail")
    story, = wait_for(told)
    assert (story["_uid"], story["_env"]["COLOUR"]) == (user.pw_uid, "red")


def test_a_hook_that_fails_is_logged(db, jobqd, programs):
    node = jobqd(db, {"default": queue(programs, on_failure="/bin/sh -c 'echo no mail server >&2; exit 3'"),
                      "gone": queue(programs, on_failure="/nonexistent/hook"),
                      "dies": queue(programs, on_failure="/bin/sh -c 'kill -9 $$'")})
    for name in ("default", "gone", "dies"):
        db.enqueue("fail", queue=name)
    node.wait_log(r"INFO hook on_failure pid \d+: job 1 says: no mail server$")
    node.wait_log(r"WARNING hook on_failure pid \d+: /bin/sh failed with exit code 3 \(job 1, kind fail, queue default\)$")
    node.wait_log(r"WARNING hook on_failure pid \d+: cannot run /nonexistent/hook: No such file or directory \(job 2, kind fail, queue gone\)$")
    node.wait_log(r"WARNING hook on_failure pid \d+: /bin/sh was killed by signal 9 \(job 3, kind fail, queue dies\)$")
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'retryable'") == 3


def test_a_hooks_lines_have_the_job_as_members(db, jobqd, programs):
    node = jobqd(db, {"default": queue(programs, on_failure="/bin/sh -c 'echo no mail server >&2; exit 3'")}, log_format="json")
    job = db.enqueue("fail")
    for text in (f"job {job} says: no mail server", f"/bin/sh failed with exit code 3 (job {job}, kind fail, queue default)"):
        line = json.loads(node.wait_log(r"^.*" + re.escape(text) + ".*$").group())
        assert (line["job"], line["kind"], line["queue"]) == (job, "fail", "default") and line["pid"]


def test_a_hook_that_hangs_is_killed(db, jobqd, programs):
    """With what it has started."""
    node = jobqd(db, {"default": queue(programs, on_failure="/bin/sh -c 'sleep 1000 & wait'")}, env={"JOBQ_TEST_HOOK_MS": "300"})
    db.enqueue("fail")
    node.wait_log(r"WARNING hook on_failure pid \d+: /bin/sh ran for more than 300 ms and was killed \(job 1, kind fail, queue default\)$")


def test_slow_hooks_are_in_no_jobs_way(db, jobqd, programs, tmp_path):
    """More failures than a slow hook can be told: four run, a thousand wait, the rest is counted. Jobs go on, and none is lost."""
    pids = tmp_path / "pids"
    node = jobqd(db, {"default": queue(programs, on_failure=f"/bin/sh -c 'echo $$ >>{pids}; exec sleep 1000'")})
    many = 1500
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'fail', '{\"retry_in_ms\": 3600000}' FROM generate_series(1, %s)", (many,))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'retryable'") == many)
    after = db.enqueue("ok")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", (after,)) == 1)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4)
    node.signal(signal.SIGTERM)
    node.wait_log("draining: ")
    node.signal(signal.SIGTERM)
    node.wait()
    told = re.findall(r"WARNING hooks: (\d+) calls of on_failure and on_discard were dropped: (more than 1000|jobqd is stopping)",
                      node.log())
    assert sum(int(n) for n, _ in told) == many - 4 and {why for _, why in told} == {"more than 1000", "jobqd is stopping"}
    assert len(pids.read_text().split()) == 4
    for pid in pids.read_text().split():
        wait_for(lambda pid=pid: not pathlib.Path(f"/proc/{pid}").exists() or "Z" in pathlib.Path(f"/proc/{pid}/stat").read_text())


def test_what_waits_at_the_end_is_run(db, jobqd, programs, told):
    node = jobqd(db, {"default": queue(programs, on_discard=told.program("sleep 0.2"))})
    db.query("SELECT jobq.enqueue('discard') FROM generate_series(1, 8)")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 8)
    node.stop()
    assert len(told()) == 8


def test_an_upgrade_says_what_it_drops(db, jobqd, programs, tmp_path):
    """And what was counted of failures that are alike."""
    pids = tmp_path / "pids"
    node = jobqd(db, {"default": queue(programs, on_failure=f"/bin/sh -c 'echo $$ >>{pids}; exec sleep 1000'")})
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'fail', '{\"retry_in_ms\": 3600000}' FROM generate_series(1, 10)")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'retryable'") == 10)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4)
    try:
        node.signal(signal.SIGUSR2)
        node.wait_log("WARNING hooks: the upgrade drops 6 waiting calls of on_failure and on_discard; 4 running ones continue")
        node.wait_log("WARNING queue default: 5 more jobs of kind fail failed the same way")
        node.wait_log("took over from jobqd")
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_large_story_leaves_out_the_args(db, jobqd, programs, told):
    jobqd(db, {"default": queue(programs, on_discard=told.program())})
    db.enqueue("discard", json.dumps({"error": "x", "pad": "y" * 100_000}))
    story, = wait_for(told)
    assert "args" not in story and story["error"]["error"] == "x"


def test_a_node_that_died_and_came_back_tells_of_its_jobs(db, jobqd, programs, told):
    """Under its own name it takes back its jobs itself: each has its line, and calls its hooks."""
    node = jobqd(db, {"default": queue(programs)}, on_failure=told.program(), on_discard=told.program(), lease="2s",
                 shutdown_grace="0s")
    last = db.enqueue("sleep", '{"ms": 3600000}', max_attempts=1)
    other = db.enqueue("sleep", '{"ms": 3600000}', max_attempts=2)
    db.wait_for_states({"executing": 2})
    node.kill()
    node.expected_exit = 0
    node.start()
    node.wait_log(rf"ERROR queue default: job {last} \(kind sleep\): attempt 1 of 1 failed: orphaned: .*; discarded")
    node.wait_log(rf"WARNING queue default: job {other} \(kind sleep\): attempt 1 of 2 failed: orphaned: .*; retrying now")
    wait_for(lambda: sorted((s["job"], s["event"], s["state"]) for s in told()) == [
        (last, "discard", "discarded"), (last, "failure", "discarded"), (other, "failure", "available")], what=told)


def test_a_kind_cannot_forge_a_line_of_a_mail(db, jobqd, programs, told):
    jobqd(db, {"default": queue(programs)}, on_discard=told.program())
    job = db.enqueue("x\nBcc: all@example.com\r\n\x7f", max_attempts=1)
    wait_for(told)
    story, = told()
    assert story["_env"]["JOBQ_KIND"] == "x Bcc: all@example.com   "
    assert not re.search("[\x00-\x1f]", story["_env"]["JOBQ_ERROR"])
    assert (story["job"], story["kind"]) == (job, "x\nBcc: all@example.com\r\n\x7f")


def test_a_queues_own_hook_that_cannot_be_run_is_replaced_by_no_other(db, jobqd, programs, told):
    node = jobqd(db, {"default": queue(programs, on_failure="/nonexistent/hook"), "mail": queue(programs)}, on_failure=told.program())
    db.enqueue("fail")
    node.wait_log(r"cannot run /nonexistent/hook: No such file or directory \(job 1, kind fail, queue default\)$")
    other = db.enqueue("fail", queue="mail")
    wait_for(lambda: [story["job"] for story in told()] == [other])


# ---- on_discard_kind ----

def hook_jobs(db, columns="args"):
    return [row[0] if columns == "args" else row for row in db.query(
        f"SELECT {columns} FROM jobq.all_jobs WHERE meta ? 'jobq.hook' ORDER BY (args ->> 'job')::bigint")]


def declared(db, n=1):
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._hooks") == n, what=lambda: db.query("SELECT * FROM jobq._hooks"))


def test_a_job_for_each_discard(db, jobqd, programs):
    """However it ends; in the transaction that ends it."""
    db.query("INSERT INTO jobq._hooks VALUES ('default', 'a', 'buried', NULL), ('idle', 'a', 'buried', 'undertaker'),"
             " ('default', 'b', 'buried', NULL)")
    jobs = {name: put(db, *given) for name, (given, _) in ENDS.items()}
    poison = db.enqueue("segfault")
    node = jobqd(db, {"default": queue(programs, max_crashes=1, on_discard_kind="buried")}, lease="2s")
    dead = {jobs[name]: (state, kind) for name, (_, (_, state, _, kind, _, _)) in ENDS.items() if state in ("discarded", "cancelled")}
    dead[jobs["a crash"]] = dead[poison] = ("discarded", "crash")
    wait_for(lambda: len(hook_jobs(db)) >= len(dead), what=lambda: hook_jobs(db))
    stories = hook_jobs(db)
    assert {s["job"]: (s["state"], s["error"]["kind"]) for s in stories} == dead
    assert all(s["event"] == "discard" and "args" in s and s["at"] for s in stories)
    assert db.query("SELECT DISTINCT kind FROM jobq.all_jobs WHERE meta ? 'jobq.hook'") == [("buried",)]
    idle = db.query("SELECT count(*) FROM jobq.jobs WHERE queue = 'undertaker'")[0][0]
    assert idle == sum(1 for name, (given, _) in ENDS.items() if jobs[name] in dead and
                       (given[0] == "orphan" or given[2].get("queue") == "idle"))
    same = db.query("SELECT count(*) FROM jobq.finished_jobs f JOIN jobq.all_jobs h ON (h.args ->> 'job')::bigint = f.id"
                    " AND h.meta ? 'jobq.hook' WHERE h.inserted_at <> f.finished_at AND f.state = 'discarded'")[0][0]
    assert same == 0, "in another transaction"
    node.stop()


def test_a_hooks_own_end_calls_no_hook(db, jobqd, programs, told):
    """Its kind has no handler here, or discards as well."""
    node = jobqd(db, {"default": queue(programs, on_discard_kind="discard", on_discard=told.program(), on_failure=told.program())})
    declared(db)
    job = db.enqueue("discard")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'discarded'") == 2)
    node.stop()
    assert len(hook_jobs(db)) == 1
    assert sorted((s["job"], s["event"]) for s in told()) == [(job, "discard"), (job, "failure")]
    assert len(re.findall(r"ERROR queue default: job \d+ \(kind discard\)", node.log())) == 2, "the log hears of both"


def test_a_hooks_job_that_is_refused_stops_nothing(db, jobqd, programs):
    db.query("CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no burials here'; END $$")
    db.query("CREATE TRIGGER no BEFORE INSERT ON jobq.jobs FOR EACH ROW WHEN (NEW.kind = 'buried') EXECUTE FUNCTION public.no()")
    node = jobqd(db, {"default": queue(programs, on_discard_kind="buried")})
    declared(db)
    job = db.enqueue("discard")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'discarded'") == 1)
    node.wait_log(rf"WARNING .*job {job}: its on_discard_kind \(buried\) could not be enqueued: no burials here")


def test_a_story_that_is_too_large_leaves_out_args(db, jobqd, programs):
    db.query("UPDATE jobq.settings SET max_job_bytes = 65536")
    jobqd(db, {"default": queue(programs, on_discard_kind="buried", on_discard_queue="else")})
    declared(db)
    job = db.enqueue("discard", json.dumps({"pad": "x" * 65_400, "error": "boom"}))
    wait_for(lambda: hook_jobs(db))
    story, = hook_jobs(db)
    assert story["job"] == job and "args" not in story and "max_job_bytes" in story["args_left_out"]
    assert story["error"] == {"kind": "error", "error": "boom"}
    assert hook_jobs(db, "queue, kind, max_attempts") == [("else", "buried", 20)]


def test_a_reload_changes_the_hooks(db, jobqd, programs, told):
    node = jobqd(db, {"default": queue(programs, on_discard_kind="one")})
    declared(db)
    node.reload({"default": queue(programs, on_discard_kind="two", on_discard=told.program())})
    wait_for(lambda: db.query("SELECT kind, to_queue FROM jobq._hooks") == [("two", None)])
    db.enqueue("discard")
    wait_for(told)
    assert hook_jobs(db, "kind") == [("two",)]
    node.reload({"default": queue(programs)})
    declared(db, 0)


def test_a_reload_without_a_hook_drops_what_waits_for_it(db, jobqd, programs, told):
    """And says so. Four run, and end."""
    gate = told.folder / "gate"
    node = jobqd(db, {"default": queue(programs)}, on_discard=told.program(f"touch {gate}.$$; until test -e {gate}; do sleep 0.05; done"))
    db.query("SELECT jobq.enqueue('discard') FROM generate_series(1, 10)")
    db.wait_for_states({"discarded": 10})
    wait_for(lambda: len(list(told.folder.glob("gate.*"))) == 4)
    node.configure(**{"on_discard": "/nowhere"})
    node.conf.write_text(node.conf.read_text().replace("on_discard = /nowhere\n", ""))
    node.reload()
    gate.touch()
    node.wait_log(r"WARNING hooks: on_discard is no longer configured, or cannot be run: call dropped \(job \d+, kind discard, queue default\)")
    wait_for(lambda: len(told()) == 4)
    wait_for(lambda: len(re.findall(r"call dropped \(job", node.log())) == 5)  # the sixth is counted


def test_hooks_of_nodes_that_are_gone_go(db, jobqd, programs):
    """Once another node serves the queue; until then they hold."""
    first = jobqd(db, {"default": queue(programs, on_discard_kind="one")})
    declared(db)
    first.stop()
    declared(db)
    second = jobqd(db, {"mail": queue(programs)})
    second.wait_log("ready")
    second.stop()
    declared(db)
    jobqd(db, {"default": queue(programs)})
    declared(db, 0)


def test_what_a_node_said_that_is_gone_ends_where_another_one_serves_the_queue(db, jobqd, programs):
    """As in a deployment to nodes of other names: the new one declares while the old one still lives."""
    old = jobqd(db, {"default": queue(programs, on_discard_kind="one", max_attempts=7), "mail": queue(programs, max_attempts=5)})
    declared(db)
    attempts = "SELECT max_attempts FROM jobq.queues WHERE name = %s"
    wait_for(lambda: (db.value(attempts, ["default"]), db.value(attempts, ["mail"])) == (7, 5))
    jobqd(db, {"default": queue(programs, max_attempts=3)})
    wait_for(lambda: db.value("SELECT declared ->> 'node2' FROM jobq.queues WHERE name = 'default'") == "3")
    old.stop()
    wait_for(lambda: (db.value(attempts, ["default"]), db.value(attempts, ["mail"])) == (3, 5), 120)  # nobody else serves mail
    declared(db, 0)


def test_a_cancel_of_one_that_had_expired_calls_no_hook(db, jobqd, programs):
    jobqd(db, {"default": queue(programs, on_discard_kind="buried")})
    declared(db)
    job = db.enqueue("ok", scheduled_at="2099-01-01T00:00:00Z")
    db.query("UPDATE jobq.jobs SET queue = 'idle', scheduled_at = now(), expires_at = now() WHERE id = %s", [job])
    db.query("INSERT INTO jobq._hooks VALUES ('idle', 'node1', 'buried', NULL)")
    wait_for(lambda: len(hook_jobs(db)) == 1)
    assert db.value("SELECT jobq.retry(%s)", [job]) and db.value("SELECT jobq.cancel(%s)", [job])
    assert db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", [job]) == "cancelled"
    assert len(hook_jobs(db)) == 1


def test_the_program_must_be_there(jobqd_program, tmp_path, db, programs):
    """config check says what is wrong with a hook, as with any program."""
    path = tmp_path / "t.conf"
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    path.write_text(f"[jobqd]\ndatabase = {db.uri}\non_failure = ./plain\n[queue default]\ncommand = {programs('fault_worker')}\n")
    done = subprocess.run([jobqd_program, "config", "check", "-c", path], capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(r"t.conf:3: \[jobqd\] on_failure: cannot run .*/plain: it is not executable \(chmod \+x\)", done.stderr)


@pytest.mark.parametrize("broken", [False, True], ids=["it fails", "it is gone"])
def test_a_hook_that_says_the_same_each_time_does_not_fill_the_log(db, jobqd, programs, told, broken):
    """Five times, then a count: as of the failures that it is told of."""
    hook = told.folder / "hook"
    hook.write_text("#!/bin/sh\necho no mail server\nexit 3\n")
    hook.chmod(0o755)
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}}, on_failure=str(hook))
    if broken:
        hook.unlink()
    db.query("SELECT jobq.enqueue('fail', '{\"error\":\"x\"}', max_attempts => 1) FROM generate_series(1, 40)")
    words = "cannot run .*" if broken else ".*failed with exit code 3"
    node.wait_log(rf"WARNING hook on_failure: 35 more times within \d+ (s|min), the last for job \d+: {words}$")
    assert len(re.findall(r"WARNING hook on_failure pid ", node.log())) == 5
    if not broken:
        node.wait_log(r"INFO hook on_failure: 35 more times within \d+ (s|min), the last for job \d+: no mail server$")
        assert len(re.findall(r"job \d+ says: no mail server", node.log())) == 5
