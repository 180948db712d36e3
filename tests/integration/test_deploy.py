"""What a deployment asks: does the new configuration start (`config check --start`), is it in force (`reload --wait`), and what is
wrong where it is not (`doctor`)."""

import json
import os
import re
import signal
import subprocess
import uuid

import pytest

from harness.daemon import TOKEN, clean_environment, processes_with
from harness.waiting import wait_for

NO_LIST = ("workers", "kinds")


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def broken(tmp_path):
    """Programs that do not come up, by what is wrong with them: the queue's keys, and what is said of it."""
    exits = script(tmp_path / "exits", "#!/bin/sh\necho no database >&2\nexit 3\n")
    silent = script(tmp_path / "silent", "#!/bin/sh\nexec sleep 1000\n")
    babbles = script(tmp_path / "babbles", "#!/bin/sh\necho hello >&$JOBQ_FD\nexec sleep 1000\n")
    bytes_ = script(tmp_path / "bytes", "#!/bin/sh\nprintf '{\"t\":\"\\377\\376 h\\303\"}\\n' >&$JOBQ_FD\nexec sleep 1000\n")
    dies = script(tmp_path / "dies", "#!/bin/sh\nkill -SEGV $$\n")
    gone = script(tmp_path / "gone", "#!/bin/sh\nexec /nowhere/worker\n")
    return {
        "exits": ({"command": exits}, "exited with status 3 before it said hello; its last line: no database"),
        "silent": ({"command": silent, "boot_timeout": "300ms"}, "did not say hello within 300 ms"),
        "babbles": ({"command": babbles}, "broke the protocol: frame: expected an object"),
        "bytes": ({"command": bytes_}, "broke the protocol: frame: "),
        "dies": ({"command": dies}, "was killed by signal 11 (SIGSEGV) before it said hello"),
        "gone": ({"command": gone}, "exited with status 127 before it said hello"),
        "preloaded": ({"command": exits, "preload": "on"}, "exited with status 3 before it said hello; its last line: no database"),
        "one job": ({"command": "/bin/echo done"}, "exited with status 0 before it said hello; its last line: done; for a program "
                    "that runs one job and exits, use exec ="),
    }


def findings(cli, db, check):
    """What doctor finds of that check, once the node's row has it: [(level, found, remedy)]."""
    done = cli("doctor", "--json", db=db, code=None)
    return [(f["level"], f["found"], f["remedy"]) for f in json.loads(done.stdout)["findings"] if f["check"] == check]


def wait_finding(cli, db, check, pattern):
    """Until doctor fails with it; returns the remedy."""
    found = []

    def there():
        found[:] = [row for row in findings(cli, db, check) if row[0] == "fail" and re.search(pattern, row[1])]
        return found
    wait_for(there, what=lambda: f"doctor to find {pattern}: {findings(cli, db, check)}")
    return found[0][2]


# ---- config check --start ----

def conf_of(tmp_path, queues):
    path = tmp_path / "check.conf"
    path.write_text("[jobqd]\ndatabase = postgresql:///nowhere\n" + "".join(
        f"[queue {name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in queues.items()))
    return path


def test_each_queue_is_tried_and_each_fault_is_named(cli, programs, broken, tmp_path):
    good = {"good": {"command": programs("fault_worker"), "concurrency": 8}, "shell": {"exec": "/bin/true"}}
    conf = conf_of(tmp_path, good | {name: keys for name, (keys, _) in broken.items()})
    done = cli("config", "check", "--start", "-c", conf, code=os.EX_UNAVAILABLE)
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 2 + len(broken)
    assert any(re.fullmatch(r"queue good: a worker came up in \d+\.\d\d s", line) for line in lines)
    assert "queue shell: starts a program for each job; there is no worker to start" in lines
    for name, (_, why) in broken.items():
        assert any(line.startswith(f"queue {name}: its worker did not come up: ") and why in line for line in lines), (name, done.stdout)
    assert "no database" in done.stderr  # what the program printed


def test_a_worker_that_comes_up_is_ended(cli, programs, tmp_path):
    conf = conf_of(tmp_path, {"q": {"command": f"{programs('fault_worker')}", "env": f"MARK={tmp_path}"}})
    done = cli("config", "check", "--start", "--json", "-c", conf)
    said = json.loads(done.stdout)
    assert said["ok"] and [(s["queue"], s["start"]) for s in said["started"]] == [("q", "up")]
    mark = f"MARK={tmp_path}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                assert mark not in environ.read(), f"pid {pid} is left"
        except OSError:
            pass


def test_it_is_refused_beside_print(cli):
    assert "--start is only for check" in cli("config", "print", "--start", code=os.EX_USAGE).stderr


def test_a_wrong_configuration_starts_nothing(cli, tmp_path):
    conf = conf_of(tmp_path, {"q": {"command": "/bin/true", "concurency": "3"}})
    assert "concurency" in cli("config", "check", "--start", "-c", conf, code=os.EX_CONFIG).stderr


def test_the_first_line_is_looked_at_without_a_start(cli, tmp_path):
    crlf = script(tmp_path / "crlf", "#!/bin/sh\r\nexit 0\r\n")
    gone = script(tmp_path / "gone", "#!/nowhere/python3\n")
    for program, why in [(crlf, "carriage return"), (gone, "/nowhere/python3")]:
        done = cli("config", "check", "-c", conf_of(tmp_path, {"q": {"command": program}}), code=os.EX_CONFIG)
        assert why in done.stderr


# ---- reload --wait ----

def test_a_reload_is_waited_for(db, jobqd, cli, programs):
    queues = {"default": {"command": programs("fault_worker"), "concurrency": 3}, "shell": {"exec": "/bin/true"}}
    node = jobqd(db, queues, lease="2s")
    queues["new"] = {"command": programs("noop_worker"), "concurrency": 2}
    queues["default"]["concurrency"] = 4
    node.write_conf(db.uri, queues, {"node": "node1", "lease": "2s"})
    done = cli("reload", "--wait", "-c", node.conf)
    assert done.stdout == f"node node1 (pid {node.pid}): configuration reloaded; the new workers are up\n"
    pids = set(re.findall(r"worker \w+/w\d+ pid (\d+): (?:replacement )?ready", node.log().split("configuration reloaded")[0]))
    after = node.log().split("configuration reloaded")[1]
    assert len(re.findall(r"worker default/w\d+ pid \d+: (?:replacement )?ready", after)) == 4
    assert len(re.findall(r"worker new/w\d+ pid \d+: (?:replacement )?ready", after)) == 2
    assert pids and "the new workers are up; 0 old processes still run a job" in after
    assert json.loads(cli("reload", "--wait", "--json", "-c", node.conf).stdout) == {
        "node": "node1", "pid": node.pid, "waited": True, "leaving": 0}


def test_it_does_not_wait_for_running_jobs(db, jobqd, cli, programs):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 1}})
    for _ in range(2):
        db.enqueue("sleep", '{"ms": 3600000}')
    db.wait_for_states({"executing": 2})
    done = cli("reload", "--wait", "-c", node.conf)
    assert done.stdout.endswith("the new workers are up; old processes that still run a job: 2\n")
    db.query("SELECT jobq.cancel_many('{\"all\": true}')")
    db.wait_for_states({"cancelled": 2})


@pytest.mark.parametrize("fault", ["exits", "silent", "babbles", "bytes", "dies", "gone", "preloaded"])
def test_replacements_that_fail(db, jobqd, cli, programs, broken, fault):
    """The command says why, the old workers go on, doctor names it; and all is well again once it is mended."""
    good = {"command": programs("fault_worker"), "concurrency": 2}
    node = jobqd(db, {"mail": good}, lease="1s")
    keys, why = broken[fault]
    node.write_conf(db.uri, {"mail": keys | {"concurrency": 2}}, {"node": "node1", "lease": "1s"})
    done = cli("reload", "--wait", "-c", node.conf, code=os.EX_UNAVAILABLE)
    assert "the workers of queue mail fail to start: " in done.stderr and why in done.stderr
    assert "any old workers keep running" in done.stderr
    job = db.enqueue("ok", queue="mail")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", [job]) == "completed")
    remedy = wait_finding(cli, db, "workers", "queue mail on node node1 do not start, .*" + re.escape(why))
    assert "jobqd reload --wait" in remedy
    node.write_conf(db.uri, {"mail": good}, {"node": "node1", "lease": "1s"})
    cli("reload", "--wait", "-c", node.conf)
    wait_for(lambda: findings(cli, db, "workers") == [("ok", "the workers of every queue start", None)])


def test_a_new_queue_that_does_not_come_up(db, jobqd, cli, programs, broken):
    good = {"command": programs("fault_worker")}
    node = jobqd(db, {"mail": good}, lease="1s")
    keys, why = broken["exits"]
    node.write_conf(db.uri, {"mail": good, "other": keys}, {"node": "node1", "lease": "1s"})
    done = cli("reload", "--wait", "-c", node.conf, code=os.EX_UNAVAILABLE)
    assert f"node node1: the workers of queue other fail to start: {why}" in done.stderr
    remedy = wait_finding(cli, db, "workers", "queue other on node node1 keep failing, none is started for now: "
                          + re.escape(why))
    assert remedy.startswith("fix the program")


def test_a_configuration_that_is_refused(db, jobqd, cli, programs):
    """The command looks before it asks; what only the node can see comes from there."""
    good = {"command": programs("fault_worker")}
    node = jobqd(db, {"mail": good}, lease="1s")
    node.conf.write_text(node.conf.read_text() + "colour = red\n")
    done = cli("reload", "--wait", "-c", node.conf, code=os.EX_CONFIG)
    assert "colour" in done.stderr and "reloaded" not in node.log()
    wrong = node.conf.read_text()
    done = cli("reload", "--wait", "--node", "node1", db=db, code=os.EX_CONFIG)
    assert "node node1 refused the configuration and keeps the old one: " in done.stderr and "colour" in done.stderr
    wait_for(lambda: any(level == "warn" and "refused its new configuration" in found and "colour" in found
                         for level, found, _ in findings(cli, db, "nodes")))
    node.conf.write_text(wrong.replace("colour = red\n", ""))
    cli("reload", "--wait", "-c", node.conf)
    assert findings(cli, db, "nodes") == [("ok", "every node is alive and one is the leader", None)]


NEVER = "[cron late]\nschedule = @daily\nkind = report\n"


@pytest.mark.parametrize("at_start", [False, True])
def test_a_cron_that_only_the_database_refuses(db, jobqd, cli, programs, at_start):
    """reload --wait names it, and doctor does for as long as it holds."""
    db.query("ALTER TABLE jobq.crons ADD CONSTRAINT no_reports CHECK (kind <> 'report')")
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, lease="1s")
    right = node.conf.read_text()
    node.conf.write_text(right + NEVER)
    if at_start:
        node.stop()
        node.start()
    else:
        cli("config", "check", "-c", node.conf)
        done = cli("reload", "--wait", "-c", node.conf, code=os.EX_CONFIG)
        assert "node node1: configuration reloaded and the new workers are up" in done.stderr and "but the database refuses cron late: " in done.stderr
        assert "no_reports" in done.stderr
    assert "reload --wait" in wait_finding(cli, db, "crons", "node node1 has crons .* refuses: cron late: .*no_reports")
    assert cli("doctor", db=db, code=os.EX_CONFIG)
    node.conf.write_text(right)
    cli("reload", "--wait", "-c", node.conf)
    assert [level for level, _, _ in findings(cli, db, "crons")] == ["ok"]


def test_another_file_than_the_nodes_is_refused(db, jobqd, cli, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, lease="1s")
    other, link = tmp_path / "other.conf", tmp_path / "link.conf"
    other.write_text(node.conf.read_text())
    link.symlink_to(node.conf)
    wait_for(lambda: db.value("SELECT reload ->> 'file' FROM jobq.nodes") == str(node.conf))
    for wait in [["--wait"], []]:
        done = cli("reload", *wait, "-c", other, code=os.EX_CONFIG)
        assert f"node node1 was started with another file, {node.conf}, and would not read {other}" in done.stderr
    assert "reloaded" not in node.log()
    cli("reload", "--wait", "-c", link)
    cli("reload", "--wait", "-c", os.path.relpath(node.conf))


def test_reload_without_a_wait_says_so(db, jobqd, cli, programs):
    node = jobqd(db, {"mail": {"command": programs("fault_worker")}})
    done = cli("reload", "-c", node.conf)
    assert done.stdout == (f"node node1 (pid {node.pid}): asked to reload its configuration; see its log for the "
                           "result\n")
    node.wait_log("configuration reloaded")
    node.wait_log("the new workers are up")


def test_two_deployments_at_once(db, jobqd, jobqd_program, cli, programs):
    node = jobqd(db, {"mail": {"command": programs("fault_worker"), "concurrency": 4}})
    both = [subprocess.Popen([jobqd_program, "reload", "--wait", "-c", node.conf], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    assert [p.communicate(timeout=120)[0].endswith("the new workers are up\n") and p.returncode == 0 for p in both] == [True, True]


def test_an_upgrade_in_between_ends_the_wait(db, jobqd, jobqd_program, cli, programs, tmp_path):
    silent = script(tmp_path / "silent", "#!/bin/sh\nexec sleep 1000\n")
    node = jobqd(db, {"mail": {"command": programs("fault_worker")}}, lease="2s")
    node.write_conf(db.uri, {"mail": {"command": silent, "boot_timeout": "1h"}}, {"node": "node1", "lease": "2s"})
    with subprocess.Popen([jobqd_program, "reload", "--wait", "-c", node.conf], stderr=subprocess.PIPE, text=True) as waits:
        wait_for(lambda: db.value("SELECT reload ->> 'state' FROM jobq.nodes") == "begun")
        cli("upgrade", "-c", node.conf)
        _, said = waits.communicate(timeout=120)
    assert waits.returncode == os.EX_UNAVAILABLE
    assert "interrupted by an upgrade in place: its outcome is unknown" in said


def test_an_outcome_that_the_database_refuses_is_told_later(db, jobqd, cli, programs):
    node = jobqd(db, {"mail": {"command": programs("fault_worker")}})
    db.query("ALTER TABLE jobq.nodes ADD CONSTRAINT no CHECK (reload ->> 'state' IS NULL)")
    cli("reload", "-c", node.conf)
    node.wait_log("could not record how the reload is going; retrying in 5 s: ")
    db.query("ALTER TABLE jobq.nodes DROP CONSTRAINT no")
    wait_for(lambda: db.value("SELECT reload ->> 'state' FROM jobq.nodes") == "done")


def test_a_node_that_does_not_run(db, jobqd, cli, programs):
    node = jobqd(db, {"mail": {"command": programs("fault_worker")}}, lease="1s")
    conf = node.conf
    node.kill()
    done = cli("reload", "--wait", "-c", conf, code=os.EX_DATAERR)
    assert "node node1 is not running" in done.stderr


# ---- doctor ----

def test_workers_that_end_badly_again_and_again(db, jobqd, cli, broken, programs):
    queues = {name: keys | {"concurrency": 1, "max_restarts": 1} for name, (keys, _) in broken.items()}
    jobqd(db, queues | {"good": {"command": programs("fault_worker")}}, lease="1s", ready=False)
    for name, (_, why) in broken.items():
        wait_finding(cli, db, "workers", f"queue {name} on node node1 keep failing.*{re.escape(why)}")
    assert not any("queue good" in found for _, found, _ in findings(cli, db, "workers"))
    assert cli("doctor", db=db, code=os.EX_UNAVAILABLE)


def test_a_kind_that_nobody_handles(db, jobqd, cli, programs):
    jobqd(db, {"mail": {"command": programs("fault_worker")}, "shell": {"exec": "/bin/true"}}, lease="1s")
    wait_for(lambda: db.value("SELECT queues -> 'mail' ? 'kinds' FROM jobq.nodes"))
    assert findings(cli, db, "kinds")[0][0] == "ok"
    db.enqueue("unheard-of", queue="mail")
    db.enqueue("anything", queue="shell", scheduled_at="2099-01-01T00:00:00Z")
    remedy = wait_finding(cli, db, "kinds", "^no worker of queue mail handles kind unheard-of: 1 job waits$")
    assert "register a handler for it" in remedy
    assert len(findings(cli, db, "kinds")) == 1


def test_what_a_node_has_written_may_be_of_any_form(db, cli):
    for queues in ['[]', '"x"', '{"q": 1}', '{"q": {"backing_off": "yes", "failed_boots": "many", "kinds": 7, "trouble": {}}}']:
        db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues) VALUES"
                 " ('n', 'h', 1, 1, '0', now() + interval '1 hour', %s) ON CONFLICT (name) DO UPDATE SET queues = excluded.queues",
                 [queues])
        db.query("INSERT INTO jobq.jobs (kind, queue) VALUES ('k', 'q')")
        for check in NO_LIST:
            assert [level for level, _, _ in findings(cli, db, check)] == ["ok"], (queues, findings(cli, db, check))


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_check_that_is_interrupted_leaves_nothing(jobqd_program, tmp_path, how, preload):
    """As by Ctrl-C, or by `timeout 10 jobqd config check --start`."""
    program, grandchild = tmp_path / "worker", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\nsleep 300 &\necho $! >{grandchild}.new\nmv {grandchild}.new {grandchild}\nexec sleep 301\n")
    program.chmod(0o755)
    conf = tmp_path / "c.conf"
    conf.write_text(f"[queue q]\ncommand = {program}\nboot_timeout = 60s\npreload = {str(preload).lower()}\n")
    token = uuid.uuid4().hex
    check = subprocess.Popen([jobqd_program, "config", "check", "--start", "-c", conf], env=clean_environment(**{TOKEN: token}))
    wait_for(grandchild.exists)
    check.send_signal(how)
    assert check.wait(60) == -how
    wait_for(lambda: not processes_with(token), what=lambda: f"no process to be left: {processes_with(token)}")
