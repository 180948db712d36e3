"""The upgrade in place: the daemon executes its program anew and keeps its workers and their running jobs. Whatever is
wrong with the new program, the old one keeps running."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import psycopg
import pytest

from harness.waiting import wait_for


@pytest.fixture
def installed(tmp_path, jobqd_program):
    """A jobqd of the test's own, which it may replace."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy2(jobqd_program, folder / "jobqd")
    return folder / "jobqd"


def zombies_of(parent):
    """Ended processes whose end nobody has taken."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = entry.read_text().rsplit(")", 1)[1].split()[:2]
        except (OSError, IndexError):
            continue
        if state == "Z" and int(above) == parent:
            found.append(entry.parent.name)
    return found


def replace(installed, by):
    """As a package manager does: a new file in the old one's place. by: a program, or the text of a script."""
    new = installed.with_suffix(".new")
    if os.path.exists(by):
        shutil.copy2(by, new)
    else:
        new.write_text(by)
        new.chmod(0o755)
    new.rename(installed)


def runs_newest(node, installed):
    return os.stat(f"/proc/{node.pid}/exe").st_ino == installed.stat().st_ino


def upgrade(node, jobqd_program, installed):
    before = node.log().count("took over from jobqd")
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    wait_for(lambda: node.log().count("took over from jobqd") > before, what=lambda: f"the upgrade:\n{node.log()}")
    assert runs_newest(node, installed)


def guarded_by(node):
    """The programs' inodes."""
    found = []
    for pid in node.guards():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.stat(f"/proc/{pid}/exe").st_ino)
    return found


def left_open(pid, fd):
    """Whether it is the handover's document, or a program."""
    try:
        name = os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:
        return False
    return "jobqd-handover" in name or "/bin/jobqd" in name


def upgrade_note(db):
    return wait_for(lambda: db.value("SELECT upgrade FROM jobq.nodes"), what="the node to say how it ended")


def one_run(path):
    lines = path.read_text().split("\n")[:-1]
    assert len(lines) == 1, lines
    return int(lines[0].split()[-1])


def finish(db, job):
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)),
             what=lambda: f"job {job} to end: {db.query('SELECT state, attempt, errors FROM jobq.all_jobs')}")
    return db.query("SELECT state::text, attempt, errors FROM jobq.finished_jobs WHERE id = %s", (job,))[0]


def test_workers_and_running_jobs_stay(db, jobqd, jobqd_program, programs, installed, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 2},
                      "shell": {"exec": f"/bin/sh -c 'cat >/dev/null; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo bye; exit 65'"}},
                 program=installed)
    wait_for(lambda: node.log().count("ready after") == 2)
    pid, workers = node.pid, set(node.workers())
    row = db.query("SELECT id, name, started_at FROM jobq.nodes")
    running = [db.enqueue("sleep", json.dumps({"ms": 4000, "file": f"{tmp_path}/run{i}"})) for i in range(2)]
    script = db.enqueue("anything", queue="shell")
    wait_for(lambda: all((tmp_path / f"run{i}").exists() for i in range(2)))
    wait_for(lambda: db.value("SELECT state FROM jobq.jobs WHERE id = %s", (script,)) == "executing")
    behind = [db.enqueue("ok") for _ in range(2)]
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 5)
    upgrade(node, jobqd_program, installed)
    (tmp_path / "go").touch()
    assert node.pid == pid and node.running
    for i, job in enumerate(running):
        assert finish(db, job) == ("completed", 1, [])
        assert one_run(tmp_path / f"run{i}") in workers
    for job in behind:
        assert finish(db, job) == ("completed", 1, [])
    state, attempt, (error,) = finish(db, script)
    assert (state, attempt, error["exit_code"], error["output"]) == ("discarded", 1, 65, "bye\n")
    assert finish(db, db.enqueue("ok"))[0] == "completed"
    assert workers <= set(node.workers())
    assert row == db.query("SELECT id, name, started_at FROM jobq.nodes")
    assert upgrade_note(db)["error"] is None


def test_the_new_program_finds_out_how_workers_end(db, jobqd, jobqd_program, programs, installed, tmp_path):
    """Deadlines, crashes and the drain go on as if nothing had been."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "timeout": "2s", "stop_grace": "100ms",
                                  "backoff": "constant(0s)"}}, program=installed)
    hangs = db.enqueue("hang", json.dumps({"file": f"{tmp_path}/hangs"}), max_attempts=1)
    wait_for((tmp_path / "hangs").exists)
    upgrade(node, jobqd_program, installed)
    crashes = db.enqueue("segfault", json.dumps({"times": 1}))
    state, attempt, (error,) = finish(db, hangs)
    assert (state, attempt, error["kind"]) == ("discarded", 1, "timeout")
    state, attempt, (error,) = finish(db, crashes)
    assert (state, attempt, error["signal"]) == ("completed", 2, "SIGSEGV")


def test_the_guard_is_the_new_program_s(db, jobqd, jobqd_program, installed, tmp_path):
    """What an exec program had started before the upgrade dies with the daemon after it."""
    script = f"/bin/sh -c 'sleep 1000 & echo $! > {tmp_path}/child; wait'"
    node = jobqd(db, {"default": {"exec": script}}, program=installed)
    db.enqueue("anything")
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    upgrade(node, jobqd_program, installed)
    wait_for(lambda: guarded_by(node) == [installed.stat().st_ino], what=lambda: f"the new guard alone: {node.guards()}")
    node.kill()  # finish() sees that nothing is left


def test_workers_that_a_template_has_forked_stay(db, jobqd, jobqd_program, programs, installed, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "preload": True,
                                  "backoff": "constant(0s)"}}, program=installed)
    job = db.enqueue("sleep", json.dumps({"ms": 1500, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    upgrade(node, jobqd_program, installed)
    assert finish(db, job) == ("completed", 1, [])
    one_run(tmp_path / "run")
    assert finish(db, db.enqueue("segfault", json.dumps({"times": 1})))[:2] == ("completed", 2)
    wait_for(lambda: len(node.workers()) == 2, what=lambda: f"one forkserver and one worker: {node.workers()}")
    wait_for(lambda: not zombies_of(node.pid), what=lambda: str(zombies_of(node.pid)))


def test_again_and_again_under_load(db, jobqd, jobqd_program, programs, installed, ledger):
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 0, 3000), "concurrency": 3}},
                 program=installed, lease="3s")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'work' FROM generate_series(1, 6000) RETURNING 1")
    for _ in range(5):
        wait_for(lambda: ledger.read().ended > 0)
        upgrade(node, jobqd_program, installed)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, 120)
    ledger.read()
    assert db.query("SELECT state::text, attempt, count(*) FROM jobq.finished_jobs GROUP BY 1, 2") == [("completed", 1, 6000)]
    assert len(ledger.runs) == 6000 and not ledger.conflicts and len(ledger.workers) == 3
    # Nothing was said twice, and nothing said by somebody whose word does not count.
    assert db.value("SELECT (queues -> 'default' ->> 'refused')::int FROM jobq.nodes") == 0


def test_the_embedded_database_stays(home, jobqd, jobqd_program, programs, installed):
    node = jobqd(None, {"default": {"command": programs("noop_worker")}}, program=installed, embedded=home / "db")
    uri = node.wait_ready()
    with psycopg.connect(uri, autocommit=True) as conn:
        upgrade(node, jobqd_program, installed)
        conn.execute("SELECT jobq.enqueue('x')")  # the session is still the one from before
        wait_for(lambda: conn.execute("SELECT count(*) FROM jobq.jobs").fetchone() == (0,))


REFUSED = [
    ("a script that fails", "#!/bin/sh\necho no such luck\nexit 3\n", r"could not take over \(exit code 3\): no such luck"),
    ("no jobqd", "#!/bin/sh\nexit 0\n", "is not a jobqd that can take over"),
    ("killed", "#!/bin/sh\nkill -9 $$\n", "was killed by signal 9 during the rehearsal"),
    ("no program", "nothing that a kernel would execute", "cannot be executed: Exec format error"),
]


@pytest.mark.parametrize("name, script, why", REFUSED, ids=[row[0] for row in REFUSED])
def test_a_program_that_is_no_good_is_refused(db, jobqd, programs, installed, cli, name, script, why):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed)
    workers = set(node.workers())
    replace(installed, script)
    done = cli("upgrade", "--node", "node1", db=db, code=None)
    assert done.returncode != 0 and "keeps running: " in done.stderr
    node.wait_log("upgrade: failed, this jobqd keeps running: .*" + why)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    assert set(node.workers()) == workers


def test_a_program_that_leaves_a_process_behind_holds_nothing_up(db, jobqd, programs, installed, tmp_path):
    """Its child has left the group, and has what it prints to still open."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed)
    replace(installed, f"#!/bin/sh\nmkfifo {tmp_path}/gone\n"
                       f"setsid sh -c 'echo $$ > {tmp_path}/left; echo > {tmp_path}/gone; exec sleep 1000' &\n"
                       f"read _ < {tmp_path}/gone\nexit 0\n")
    node.signal(signal.SIGUSR2)
    try:
        node.wait_log("failed, .* keeps running: .* is not a jobqd that can take over")
        assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    finally:
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_a_configuration_that_lacks_a_queue_is_refused(db, jobqd, jobqd_program, programs, installed):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed)
    node.write_conf(db.uri, {"other": {"command": programs("fault_worker")}}, {})
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    node.wait_log("queue default is being served but is no longer in the configuration: reload first")
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    assert not runs_newest(node, installed)


@pytest.mark.parametrize("how, why", [("exit", "it exited with code 71: told to fail"), ("abort", "it was killed by signal 06"),
                                      ("segfault", "it was killed by signal 11")])
def test_a_program_that_does_not_come_up_gives_way_to_the_old_one(db, jobqd, jobqd_program, programs, installed, tmp_path, how, why):
    """It has rehearsed well, was executed, and fails before it serves."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed,
                 env={"JOBQ_TEST_TAKE_OVER": how})
    old = os.stat(f"/proc/{node.pid}/exe").st_ino
    job = db.enqueue("sleep", json.dumps({"ms": 2000, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    node.wait_log(f"upgrade: failed, .* keeps running: .*{why}")
    assert os.stat(f"/proc/{node.pid}/exe").st_ino == old
    assert finish(db, job) == ("completed", 1, [])
    one_run(tmp_path / "run")
    assert why in upgrade_note(db)["error"]
    wait_for(lambda: len(node.guards()) == 1, what=lambda: f"one guard: {node.guards()}")
    # Nothing is left behind of the program that failed, nor of the handover.
    assert not [fd for fd in os.listdir(f"/proc/{node.pid}/fd") if int(fd) > 2 and left_open(node.pid, fd)]


def test_the_command_says_why_the_new_program_ended(db, jobqd, jobqd_program, programs, installed, cli):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed, env={"JOBQ_TEST_TAKE_OVER": "exit"})
    replace(installed, jobqd_program)
    done = cli("upgrade", "--node", "node1", db=db, code=None)
    assert done.returncode != 0 and done.stderr.endswith("of node node1 keeps running: it exited with code 71: told to fail\n"), done.stderr
    assert node.running


@pytest.fixture
def versions(tmp_path, jobqd_program):
    """bin/jobqd is a link to v1/jobqd; there is a v2, too. Returns a function that points it to that version and returns its file."""
    (tmp_path / "bin").mkdir()

    def switch(version):
        (tmp_path / "bin" / "new").symlink_to(f"../{version}/jobqd")
        (tmp_path / "bin" / "new").rename(tmp_path / "bin" / "jobqd")
        return tmp_path / version / "jobqd"
    for version in ("v2", "v1"):
        (tmp_path / version).mkdir()
        shutil.copy2(jobqd_program, switch(version))
    return switch


def upgrade_to(node, program):
    before = node.log().count("took over from jobqd")
    node.signal(signal.SIGUSR2)
    wait_for(lambda: node.log().count("took over from jobqd") > before, what=lambda: f"the upgrade:\n{node.log()}")
    assert os.stat(f"/proc/{node.pid}/exe").st_ino == program.stat().st_ino


@pytest.mark.parametrize("name", ["{folder}/jobqd", "../bin/jobqd", "jobqd"], ids=["absolute", "relative", "on PATH"])
def test_a_link_to_the_program_is_followed_anew(db, jobqd, programs, versions, tmp_path, name):
    """Each version in a folder of its own, as some installers do; there and back again."""
    folder = tmp_path / "bin"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=name.format(folder=folder),
                 env={"PATH": f"/nowhere::{folder}:{os.environ['PATH']}"})
    (worker,) = wait_for(node.workers)
    for version in ("v2", "v1"):
        upgrade_to(node, versions(version))
        node.wait_log("upgrade: .* took over from .*/bin/jobqd was executed")
    wait_for(lambda: list(node.workers()) == [worker], what=node.workers)  # a new guard looks like one for a moment


@pytest.mark.parametrize("name", ["made up", "/bin/sh", ""])
def test_a_name_that_does_not_lead_to_the_program_is_not_executed(db, jobqd, jobqd_program, programs, installed, tmp_path, name):
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/bash\nexec -a '{name}' {installed} \"$@\"\n")
    wrapper.chmod(0o755)
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=wrapper)
    for _ in range(2):
        upgrade(node, jobqd_program, installed)


def test_an_upgrade_after_one_that_failed_executes_the_same_file(db, jobqd, jobqd_program, programs, installed):
    """The old program, which has come back, has another name by then."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed,
                 env={"JOBQ_TEST_TAKE_OVER": "exit"})
    installed.rename(installed.with_suffix(".old"))
    shutil.copy2(jobqd_program, installed)
    for n in (1, 2):
        node.signal(signal.SIGUSR2)
        wait_for(lambda: node.log().count(f"{installed} did not start: ") == n, what=node.log)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])


def test_without_the_database_it_does_not_take_place(cluster, jobqd, jobqd_program, programs, installed):
    db = cluster.db
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed, lease="60s")
    cluster.stop()
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    node.wait_log("upgrade: failed")
    cluster.start()
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])


def test_told_to_stop_while_a_program_rehearses(db, jobqd, programs, installed):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed)
    replace(installed, "#!/bin/sh\nexec sleep 1000\n")
    node.signal(signal.SIGUSR2)
    node.wait_log("upgrade: rehearsing with ")
    assert node.stop() == 0


def test_the_command_says_how_it_ended(db, jobqd, jobqd_program, programs, installed, cli):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed)
    replace(installed, jobqd_program)
    done = cli("upgrade", "--node", "node1", db=db)
    assert done.stdout.startswith(f"node node1 (pid {node.pid}): upgraded from ")
    done = cli("upgrade", "--node", "nobody", db=db, code=None)
    assert done.returncode != 0
    assert done.stderr == "jobqd upgrade: there is no node nobody: `jobqd queues` lists those that run\n"


# Each prints its pid once it is what it pretends to be, and waits.
PRETENDERS = {
    "another program": "",
    "one with jobqd's name": "name(b'jobqd')",
    "one with its name that bears the signal": "name(b'jobqd'); signal.signal(signal.SIGUSR2, lambda *_: print('hit', flush=True))",
    "one of another user": "name(b'jobqd'); os.geteuid() or os.setuid(65534)",
}


@pytest.fixture
def pretender(request):
    """A process that is no jobqd; what it has printed behind its pid is in its stdout."""
    code = ("import ctypes, os, signal, time\ndef name(text):\n ctypes.CDLL(None).prctl(15, text)\n"
            f"{PRETENDERS[request.param]}\nprint(os.getpid(), flush=True)\nwhile True:\n time.sleep(60)\n")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert int(process.stdout.readline()) == process.pid
    yield process
    process.kill()
    process.wait()


def start_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


@pytest.mark.parametrize("pretender", PRETENDERS, indirect=True)
def test_who_is_no_jobqd_gets_no_signal(db, jobqd, programs, cli, pretender):
    """Whoever may write the row of a node decides which process it names; root's command must not end it."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    host = db.value("SELECT host FROM jobq.nodes")
    node.stop()
    db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at)"
             " VALUES ('node1', %s, %s, %s, '0.1.0', now() + interval '1 hour')", (host, pretender.pid, start_of(pretender.pid)))
    done = cli("upgrade", "--node", "node1", db=db, code=os.EX_DATAERR)
    assert done.stderr == f"jobqd upgrade: pid {pretender.pid}, which is registered as node node1, is not a running jobqd: not signalling it\n"
    assert pretender.poll() is None
    pretender.terminate()
    assert pretender.stdout.read() == ""
    db.query("UPDATE jobq.nodes SET pid_start = pid_start - 1")
    assert "node node1 is not running (its pid" in cli("upgrade", "--node", "node1", db=db, code=os.EX_DATAERR).stderr
    for pid in (0, -1, -pretender.pid):
        db.query("UPDATE jobq.nodes SET pid = %s", (pid,))
        assert "cannot tell whether pid" in cli("upgrade", "--node", "node1", db=db, code=os.EX_DATAERR).stderr
    db.query("UPDATE jobq.nodes SET host = 'elsewhere'")
    assert "runs on another machine or in another container (elsewhere): run this there" in cli(
        "upgrade", "--node", "node1", db=db, code=os.EX_DATAERR).stderr


def test_it_works_where_the_machine_is_not_told(db, jobqd, jobqd_program, programs, cli, tmp_path):
    """In a container whose boot_id is masked the process is known by its number and start."""
    program = tmp_path / "jobqd"
    hide = "mount --bind /dev/null /proc/sys/kernel/random/boot_id"
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, *hide.split()], capture_output=True, check=False).returncode != 0:
        hide = ":"  # this machine does not let us: then there is less to see
    program.write_text(f"#!/bin/sh\nexec {' '.join(unshare)} sh -c '{hide} && exec {jobqd_program} \"$@\"' jobqd \"$@\"\n"
                       if hide != ":" else f"#!/bin/sh\nexec {jobqd_program} \"$@\"\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, program=program)
    assert (db.value("SELECT host FROM jobq.nodes") == "") == (hide != ":")
    for caller in (program, jobqd_program):  # the second one knows the machine
        done = cli("upgrade", "--node", "node1", db=db, program=caller)
        assert done.stdout.startswith(f"node node1 (pid {node.pid}): upgraded from ")
    node.stop()


def test_a_program_that_misses_a_field_leaves_the_workers_as_they_were(db, jobqd, jobqd_program, programs, installed, tmp_path):
    """The old one adopts them again, though the new one has read half of a worker."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed,
                 env={"JOBQ_TEST_HANDOVER_LACKS": "complaint"})
    job = db.enqueue("sleep", json.dumps({"ms": 2000, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    node.wait_log('could not start: the state handed over by the old jobqd is incomplete: record "worker" has no field "complaint"')
    node.wait_log("upgrade: failed, .* keeps running: .*it exited with code")
    assert finish(db, job) == ("completed", 1, [])
    one_run(tmp_path / "run")


@pytest.mark.parametrize("lacks, workers", [("nothing", 3), ("resized", 1)])
def test_the_number_of_workers_stays_as_it_was_set(db, jobqd, jobqd_program, programs, installed, lacks, workers):
    """A field that an older release does not write has a default."""
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed,
                 env={"JOBQ_TEST_HANDOVER_LACKS": lacks})
    for n in (2, 3):
        node.signal(signal.SIGTTIN)
        node.wait_log(f"number of workers changed from {n - 1} to {n}")
    wait_for(lambda: node.log().count("ready after") == 3, what=node.log)
    before = set(node.workers())
    upgrade(node, jobqd_program, installed)
    wait_for(lambda: len(node.workers()) == workers, what=lambda: f"{workers} workers: {node.workers()}")
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    assert len(node.workers()) == workers and set(node.workers()) <= before


OLD_KERNEL = """#!/usr/bin/python3
import ctypes, os, struct, sys
CLOSE_RANGE, LOAD, IS, RETURN, ALLOW, ERRNO, ENOSYS = 436, 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000, 38
rows = [(LOAD, 0, 0, 0), (IS, 0, 1, CLOSE_RANGE), (RETURN, 0, 0, ERRNO | ENOSYS), (RETURN, 0, 0, ALLOW)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
libc = ctypes.CDLL(None, use_errno=True)
prctl = lambda *args: libc.prctl(*(ctypes.c_ulong(arg) for arg in args)) == 0 or sys.exit(os.strerror(ctypes.get_errno()))
prctl(38, 1, 0, 0, 0)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code)))
prctl(22, 2, ctypes.addressof(program), 0, 0)
os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


def test_workers_share_no_descriptors_after_it_on_an_old_kernel(db, jobqd, jobqd_program, programs, installed, tmp_path):
    """Without close_range (Linux 5.11) what was handed over open would reach every process that is started from then on."""
    wrapper = tmp_path / "old_kernel"
    wrapper.write_text(OLD_KERNEL.format(program=str(installed)))
    wrapper.chmod(0o755)
    script = f"/bin/sh -c 'ls /proc/self/fd > {tmp_path}/open.new; mv {tmp_path}/open.new {tmp_path}/open'"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}, "shell": {"exec": script}}, program=wrapper)
    wait_for(lambda: node.log().count("ready after") == 2)
    upgrade(node, jobqd_program, installed)
    finish(db, db.enqueue("anything", queue="shell"))
    assert (tmp_path / "open").read_text().split() == ["0", "1", "2", "3"]  # 1: the shell's file; 3: the folder that ls reads


def test_a_roll_goes_on_after_an_upgrade(db, jobqd, jobqd_program, programs, installed, tmp_path):
    """A worker that was busy when the configuration was read is replaced once its job has ended."""
    queues = {"default": {"command": programs("fault_worker"), "concurrency": 1}}
    node = jobqd(db, queues, program=installed)
    job = db.enqueue("sleep", json.dumps({"ms": 4000, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    (old,) = node.workers()
    node.reload({"default": {**queues["default"], "env": "COLOUR=blue"}})
    upgrade(node, jobqd_program, installed)
    assert finish(db, job) == ("completed", 1, [])
    wait_for(lambda: node.workers() and old not in node.workers(), what=lambda: f"the old worker to be replaced:\n{node.log()}")


def test_a_worker_s_age_counts_from_its_start_through_upgrades(db, jobqd, jobqd_program, programs, installed):
    """Not from its last job: it is replaced although it is never idle for its max_age between two upgrades."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1, "max_age": "1s"}}, program=installed)
    wait_for(node.workers)

    def is_replaced():
        finish(db, db.enqueue("noop"))
        upgrade(node, jobqd_program, installed)
        return "it has reached max_age" in node.log()
    wait_for(is_replaced, timeout=20)


CHANGES = [({"env": "COLOUR=blue 'A=b c'"}, {}), ({"nofile": 500}, {}), ({}, {"max_frame": "1MiB"})]


@pytest.mark.parametrize("queue, settings", CHANGES, ids=["env", "nofile", "max_frame"])
def test_a_file_that_was_changed_without_a_reload_counts_from_then_on(db, jobqd, jobqd_program, programs, installed, tmp_path, queue, settings):
    """As by a reload: a worker that is busy is replaced once its job has ended, those that come after it stay."""
    before = {"command": programs("fault_worker"), "concurrency": 1, "env": "COLOUR=red"}
    node = jobqd(db, {"default": before}, program=installed)
    job = db.enqueue("sleep", json.dumps({"ms": 1500, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    (old,) = node.workers()
    node.configure({"default": {**before, **queue}}, **settings)
    upgrade(node, jobqd_program, installed)
    node.wait_log("INFO queue default: its configuration changed after the workers started; replacing them one at a time")
    assert finish(db, job) == ("completed", 1, [])
    node.wait_log(f"worker default/w1 pid {old}: replaced by pid [0-9]+: it runs the old configuration")
    new = wait_for(lambda: old not in node.workers() and set(node.workers()), what=node.log)
    if "env" in queue:
        assert b"COLOUR=blue" in pathlib.Path(f"/proc/{next(iter(new))}/environ").read_bytes()
    upgrade(node, jobqd_program, installed)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    assert set(node.workers()) == new and node.log().count("its configuration changed") == 1


@pytest.mark.parametrize("lacks, queue", [("nothing", {"timeout": "1h", "mailbox": 2}), ("launch", {"env": "COLOUR=blue"})])
def test_workers_that_are_as_the_file_says_are_not_replaced(db, jobqd, jobqd_program, programs, installed, lacks, queue):
    """What counts for a running worker at once is no reason, nor is an older release, which does not say how it started them."""
    before = {"command": programs("fault_worker"), "concurrency": 1}
    node = jobqd(db, {"default": before}, program=installed, env={"JOBQ_TEST_HANDOVER_LACKS": lacks})
    wait_for(lambda: "ready after" in node.log())
    workers = set(node.workers())
    node.configure({"default": {**before, **queue}})
    upgrade(node, jobqd_program, installed)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    assert set(node.workers()) == workers and "has changed since" not in node.log()


def test_answers_that_are_not_confirmed_do_not_hold_it_up(db, jobqd, jobqd_program, programs, installed, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed, lease="60s")
    job = db.enqueue("sleep", json.dumps({"ms": 300, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    with psycopg.connect(db.uri) as blocker:
        blocker.execute("LOCK TABLE jobq.jobs IN ACCESS EXCLUSIVE MODE")
        wait_for(lambda: db.value("SELECT count(*) FROM pg_stat_activity "
                                  "WHERE application_name = 'jobqd work' AND wait_event_type = 'Lock'"))
        replace(installed, jobqd_program)
        node.signal(signal.SIGUSR2)
        node.wait_log("failed, .* keeps running: .*the database did not confirm the last answers in time")
    assert finish(db, job) == ("completed", 1, [])
    upgrade(node, jobqd_program, installed)


def test_a_lease_that_ends_on_the_way_is_lost_like_any_other(db, jobqd, jobqd_program, programs, installed, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "backoff": "constant(0s)"}},
                 program=installed, lease="1s", env={"JOBQ_TEST_TAKE_OVER": "late"})
    db.enqueue("sleep", json.dumps({"ms": 60000, "file": f"{tmp_path}/run"}), max_attempts=1)
    wait_for((tmp_path / "run").exists)
    upgrade(node, jobqd_program, installed)
    node.wait_log("node: .*must stop its jobs: the lease could not be renewed in time")
    assert finish(db, db.enqueue("ok"))[0] == "completed"


@pytest.mark.parametrize("settings, why", [({"lease": "60s"}, "lease is 1m in the configuration but 15s in the running jobqd"),
                                           ({"database": "postgresql:///elsewhere"}, "database is .*elsewhere.* in the configuration but ")])
def test_what_takes_a_restart_is_refused(db, jobqd, jobqd_program, programs, installed, settings, why):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, program=installed, lease="15s")
    node.configure(**settings)
    replace(installed, jobqd_program)
    node.signal(signal.SIGUSR2)
    node.wait_log(f"upgrade: failed, this jobqd keeps running: .*{why}")
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])


@pytest.mark.parametrize("value, why", [("nonsense", "JOBQ_HANDOVER is not a file descriptor"), ("77", "JOBQ_HANDOVER is 77, which is not an open file descriptor"),
                                        ("0", "JOBQ_HANDOVER is not a file descriptor")])
def test_a_handover_that_is_none_is_an_error(db, jobqd, programs, value, why):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}}, ready=False,
                 env={"JOBQ_HANDOVER": value, "JOBQ_HANDOVER_FROM": "78"})
    node.expected_exit = node.wait()
    assert node.expected_exit == 71
    node.wait_log(f"could not start: .*{why}")


# ---- not now ----

def refuse(node, db, cli, jobqd_program, installed, why):
    """The command learns it at once, and says why; so does the log."""
    replace(installed, jobqd_program)
    done = cli("upgrade", "--node", "node1", db=db, code=None)
    assert done.returncode != 0 and f"of node node1 keeps running: refused for now: {why}" in done.stderr, done.stderr
    node.wait_log(f"WARNING upgrade: refused for now: {why}")
    assert not runs_newest(node, installed)


@pytest.fixture
def waiting(tmp_path):
    """An exec program that runs until tmp_path/go is there."""
    return f"/bin/sh -c 'touch {tmp_path}/run; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 65'"


def test_not_while_programs_of_what_is_a_command_queue_now_run(db, jobqd, jobqd_program, programs, installed, cli, waiting, tmp_path):
    """The new program would take the exec program for a worker, and its exit for a crash."""
    node = jobqd(db, {"default": {"exec": waiting}}, program=installed)
    job = db.enqueue("ok")
    wait_for((tmp_path / "run").exists)
    node.reload({"default": {"command": programs("fault_worker")}})
    refuse(node, db, cli, jobqd_program, installed, "processes of queue default from before the reload are still running")
    (tmp_path / "go").touch()
    assert finish(db, job)[:2] == ("discarded", 1)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
    upgrade(node, jobqd_program, installed)


def test_not_while_workers_of_what_is_an_exec_queue_now_run(db, jobqd, jobqd_program, programs, installed, cli, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, program=installed)
    job = db.enqueue("sleep", json.dumps({"ms": 60000, "file": f"{tmp_path}/run"}))
    wait_for((tmp_path / "run").exists)
    node.reload({"default": {"exec": "/bin/true"}})
    refuse(node, db, cli, jobqd_program, installed, "processes of queue default from before the reload are still running")
    db.query("SELECT jobq.cancel(%s)", (job,))
    assert finish(db, job)[:2] == ("cancelled", 1)
    wait_for(lambda: not node.workers(), what=lambda: f"the old worker to go: {node.workers()}")
    upgrade(node, jobqd_program, installed)
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])


def test_not_while_a_queue_is_being_removed(db, jobqd, jobqd_program, programs, installed, cli, waiting, tmp_path):
    queues = {"default": {"command": programs("fault_worker")}}
    node = jobqd(db, {**queues, "old": {"exec": waiting}}, program=installed)
    db.enqueue("ok", queue="old")
    wait_for((tmp_path / "run").exists)
    node.reload(queues)
    refuse(node, db, cli, jobqd_program, installed, "queue old was removed, but its last jobs are still running")
    (tmp_path / "go").touch()
    node.wait_log("queue old: removed")
    upgrade(node, jobqd_program, installed)


def test_not_while_it_stops(db, jobqd, jobqd_program, installed, cli, waiting, tmp_path):
    node = jobqd(db, {"default": {"exec": waiting}}, program=installed)
    job = db.enqueue("ok")
    wait_for((tmp_path / "run").exists)
    node.signal(signal.SIGTERM)
    node.wait_log("draining: ")
    refuse(node, db, cli, jobqd_program, installed, "this jobqd is waiting for running jobs to end")
    (tmp_path / "go").touch()
    assert finish(db, job)[:2] == ("discarded", 1)
    assert node.wait() == 0
    done = cli("upgrade", "--node", "node1", db=db, code=None)
    assert done.returncode != 0 and "there is no node node1" in done.stderr


def test_a_reload_while_the_new_program_rehearses(db, jobqd, jobqd_program, programs, installed, cli, waiting, tmp_path):
    """What the rehearsal was told is not so any more when it has ended."""
    node = jobqd(db, {"default": {"exec": waiting}}, program=installed)
    db.enqueue("ok")
    wait_for((tmp_path / "run").exists)
    replace(installed, f"#!/bin/sh\ntouch {tmp_path}/rehearses\nwhile [ ! -e {tmp_path}/reloaded ]; do sleep 0.05; done\n"
                       "echo 'jobqd-upgrade 1 ready 9.9'\n")
    node.signal(signal.SIGUSR2)
    wait_for((tmp_path / "rehearses").exists)
    node.reload({"default": {"command": programs("fault_worker")}})
    (tmp_path / "reloaded").touch()
    node.wait_log("upgrade: failed, .*: processes of queue default from before the reload are still running")
    (tmp_path / "go").touch()
    assert finish(db, db.enqueue("ok")) == ("completed", 1, [])
