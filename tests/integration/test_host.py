"""How jobqd gets on with the host that it is started on, however carelessly: what it finds there, and what of it others may
see."""

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness.daemon import clean_environment
from harness.waiting import wait_for

CLOSED = [fds for n in (1, 2, 3) for fds in itertools.combinations((0, 1, 2), n)]


def close_all(fds):
    for fd in fds:
        os.close(fd)


# ---- standard descriptors ----

@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_daemon_without_standard_descriptors(db, jobqd, programs, closed):
    """Its sockets must not be taken for its log, nor its log for a socket."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2},
                      "script": {"exec": "/bin/cat", "concurrency": 2}}, ready=False)
    node.wait_ready()
    node.stop()
    node.start(ready=False, preexec=lambda: close_all(closed))
    for _ in range(3):
        db.enqueue("noop")
        db.enqueue("noop", queue="script")
    db.wait_for_states({"completed": 6})
    node.signal(signal.SIGHUP)
    db.enqueue("noop")
    db.wait_for_states({"completed": 7})
    for fd in range(3) if os.geteuid() == 0 else ():  # jobqd's are root's to see
        path = pathlib.Path(f"/proc/{node.pid}/fd/{fd}")
        assert (os.readlink(path) == "/dev/null") == (fd in closed or fd == 0)
    assert node.stop() == 0  # and finish() looks for anything that is left


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_command_without_standard_descriptors(db, cli, closed):
    """It does its work, and says by its exit code that what it printed went nowhere."""
    def run(*args):
        return cli(*args, db=db, code=None, preexec=lambda: close_all(closed)).returncode
    assert run("enqueue", "kind", "{}") == (os.EX_IOERR if 1 in closed else 0)
    assert db.value("SELECT count(*) FROM jobq.jobs") == 1
    assert run("jobs", "--json") == (os.EX_IOERR if 1 in closed else 0)
    assert run("job", "999") == os.EX_NOINPUT
    assert run("enqueue", "-") == (os.EX_IOERR if 0 in closed else 0)  # nothing was given: nothing is printed


# ---- signals while it starts ----

@pytest.fixture
def half_started(db, jobqd, programs):
    """A daemon that waits for its configuration to be written, and what writes it."""
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, ready=False)
    node.wait_ready()
    node.stop()
    text = node.conf.read_text()
    node.conf.unlink()
    os.mkfifo(node.conf)
    node.start(ready=False)

    def is_read():
        try:
            return os.open(node.conf, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None
    fifo = wait_for(is_read)
    (node.folder / "new").write_text(text)

    def go_on():
        os.rename(node.folder / "new", node.conf)  # for later readers
        os.write(fifo, text.encode())
        os.close(fifo)
    return node, go_on


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "TSTP", "CONT", "TTIN", "TTOU", "PIPE", "WINCH"])
def test_an_early_signal_does_no_harm(db, half_started, name):
    node, go_on = half_started
    node.signal(getattr(signal, f"SIG{name}"))
    go_on()
    node.wait_ready()
    if name == "TSTP":  # it means then what it means later
        node.wait_log("claims no more jobs until SIGCONT")
        node.signal(signal.SIGCONT)
    db.enqueue("noop")
    db.wait_for_states({"completed": 1})


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_an_early_stop_is_an_orderly_one(half_started, name):
    node, go_on = half_started
    node.signal(getattr(signal, f"SIG{name}"))
    go_on()
    assert node.wait() == 0
    assert node.log().rstrip().endswith("INFO jobqd: ended")


def test_quit_stops_at_once_and_releases_what_runs(db, jobqd, programs, tmp_path):
    began = tmp_path / "began"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, shutdown_grace="10m")
    db.enqueue("sleep", f'{{"file": "{began}", "ms": 600000}}')
    wait_for(began.exists)
    node.signal(signal.SIGQUIT)
    assert node.wait() == 0
    node.wait_log("jobqd: stopping now: killing running jobs and returning them to their queues")
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs") == [("available", 0, [])]


def test_quit_ends_a_drain_that_is_under_way(db, jobqd, programs, tmp_path):
    began = tmp_path / "began"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, shutdown_grace="10m")
    db.enqueue("sleep", f'{{"file": "{began}", "ms": 600000}}')
    wait_for(began.exists)
    node.signal(signal.SIGTERM)
    node.wait_log("draining: ")
    node.signal(signal.SIGQUIT)
    assert node.wait() == 0
    assert db.states() == {"available": 1}


# ---- without /proc ----

@pytest.fixture
def without_proc(tmp_path, jobqd_program):
    """jobqd where no /proc is mounted; None where this machine does not let the test arrange that."""
    path = tmp_path / "jobqd-without-proc"
    hide = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    path.write_text(f"#!/bin/sh\nexec {' '.join(hide)} sh -c 'mount -t tmpfs none /proc && exec {jobqd_program} \"$@\"' jobqd \"$@\"\n")
    path.chmod(0o755)
    tried = subprocess.run([path, "version"], capture_output=True, check=False)
    return path if tried.returncode == 0 else None


def test_without_proc_jobs_run_and_it_is_said_once_what_is_missing(db, jobqd, programs, without_proc, tmp_path):
    if without_proc is None:
        return
    began = tmp_path / "began"
    queues = {"default": {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)"},
              "script": {"exec": "/bin/cat"}}
    node = jobqd(db, queues, program=without_proc, lease="2s")
    for _ in range(5):
        db.enqueue("ok")
        db.enqueue("ok", queue="script")
    db.enqueue("segfault", '{"times": 1}')
    db.wait_for_states({"completed": 11})
    assert node.log().count("/proc is not mounted") == 1
    assert "guard: " not in node.log().replace("INFO", "")
    # The guard still does its work.
    job = db.enqueue("sleep", f'{{"file": "{began}", "ms": 600000}}', max_attempts=1)
    wait_for(began.exists)
    worker = int(wait_for(lambda: re.search(r"\d+\s*$", began.read_text())).group())
    node.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: not alive(worker))
    finally:
        node.signal(signal.SIGCONT)
    node.wait_log("guard: process groups killed: [12]")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "discarded")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("option, value", [("max_memory", "1GiB"), ("max_memory_hard", "1GiB"), ("cpu_limit", "10s")])
def test_without_proc_a_limit_that_needs_it_is_refused(cli, programs, without_proc, tmp_path, option, value):
    if without_proc is None:
        return
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[queue default]\ncommand = {programs('noop_worker')}\n{option} = {value}\n")
    done = cli("config", "check", "-c", conf, code=os.EX_CONFIG, program=without_proc)
    assert f"{conf}:3: [queue default] {option}: it is measured through /proc, which is not mounted: mount it" in done.stderr


# ---- programs that cannot be executed ----

ELF = pathlib.Path("/bin/true").read_bytes()
FAULTY = {
    "CRLF": (b"#!/bin/sh\r\nexit 0\r\n", "its first line ends in a carriage return"),
    "no interpreter": (b"exit 0\n", "it is neither an executable binary nor a script that begins with #! and its interpreter, such as #!/bin/sh"),
    "a missing interpreter": (b"#!/opt/no/python3\n", "its interpreter /opt/no/python3: No such file or directory"),
    "empty": (b"", "it is empty"),
    "another processor": (ELF[:18] + (0x16).to_bytes(2, "little") + ELF[20:], "it is built for another kind of processor"),
}


def put_program(path, content, mode=0o755):
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


@pytest.mark.parametrize("mode", ["exec", "command"])
@pytest.mark.parametrize("fault", FAULTY)
def test_what_a_program_lacks_is_named_before_and_after_the_start(db, jobqd, cli, programs, tmp_path, fault, mode):
    content, why = FAULTY[fault]
    program = tmp_path / "program"
    put_program(program, f"#!/bin/sh\n{'cat' if mode == 'exec' else 'exec ' + programs('noop_worker')}\n".encode())
    node = jobqd(db, {"default": {mode: program, "concurrency": 1, "backoff": "constant(0s)"}})
    assert cli("config", "check", "-c", node.conf).stdout.startswith(f"{node.conf}: ok")
    put_program(program, content)
    says = f"[queue default] {mode}: cannot run {program}: {why}"
    assert says in cli("config", "check", "-c", node.conf, code=os.EX_CONFIG).stderr
    assert re.search(rf"fail +programs +.*{re.escape(says)}", cli("doctor", "-c", node.conf, code=os.EX_CONFIG).stdout)
    node.signal(signal.SIGHUP)
    node.wait_log(r"ERROR jobqd: " + re.escape(f"{node.conf}:") + r"\d+: " + re.escape(says))
    node.wait_log("configuration reloaded")
    if mode == "exec":
        db.enqueue("noop")
    else:
        os.kill(next(iter(node.workers())), signal.SIGKILL)
    node.wait_log("did not start: cannot execute " + re.escape(f"{program}: {why}"))
    assert "No such file or directory" not in node.log().replace(why, "")
    put_program(program, f"#!/bin/sh\n{'cat' if mode == 'exec' else 'exec ' + programs('noop_worker')}\n".encode())
    job = db.enqueue("noop")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed")


@pytest.mark.parametrize("mode", ["exec", "command"])
@pytest.mark.parametrize("fault", [*FAULTY, "not executable", "env finds nothing"])
def test_a_program_that_is_no_good_stops_only_its_queue(db, jobqd, programs, tmp_path, fault, mode):
    """At the start, and at a reload; no job is charged, and it is served as soon as the file is mended."""
    program = tmp_path / "program"
    content, why = FAULTY.get(fault, (b"#!/bin/sh\n", "it is not executable (chmod +x)"))
    if fault == "env finds nothing":
        content, why = b"#!/usr/bin/env no-such-interpreter\n", "its interpreter no-such-interpreter is not on PATH"
    put_program(program, content, mode=0o644 if fault == "not executable" else 0o755)
    broken = {mode: program, "concurrency": 1, "max_restarts": 1}
    sound = {"command": programs("noop_worker"), "concurrency": 1}
    node = jobqd(db, {"broken": broken, "sound": sound})
    node.wait_log(r"ERROR jobqd: .*\[queue broken\] " + re.escape(f"{mode}: cannot run {program}: {why}"))
    waiting = db.enqueue("noop", queue="broken")
    node.wait_log("ERROR queue broken: .*starting no processes for")
    wait_for(lambda: db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", (waiting,)) == [("available", 0, [])])
    done = db.enqueue("noop", queue="sound")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (done,)) == "completed")
    node.write_conf(db.uri, {"broken": broken, "sound": sound, "third": sound}, {})
    node.signal(signal.SIGHUP)
    node.wait_log("configuration reloaded: 3 queues")
    put_program(program, f"#!/bin/sh\n{'cat' if mode == 'exec' else 'exec ' + programs('noop_worker')}\n".encode())
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (waiting,)) == "completed", 60)


def test_without_a_path_env_looks_where_the_system_says(cli, jobqd_program, tmp_path):
    program, conf = tmp_path / "program", tmp_path / "jobqd.conf"
    put_program(program, b"#!/usr/bin/env sh\n")
    conf.write_text(f"[queue default]\nexec = {program}\n")
    cli("-i", jobqd_program, "config", "check", "-c", conf, program="/usr/bin/env")
    put_program(program, b"#!/usr/bin/env no-such-interpreter\n")
    done = cli("-i", jobqd_program, "config", "check", "-c", conf, program="/usr/bin/env", code=os.EX_CONFIG)
    assert "its interpreter no-such-interpreter is not on PATH" in done.stderr


@pytest.mark.parametrize("how, why", [
    ("a folder", "it is a folder"), ("a pipe", "it is not a file"), ("not executable", "it is not executable (chmod +x)"),
    ("env", 'env would look for a program called "python3 -u": use env -S to pass several words'),
    ("env's PATH", "its interpreter only-here is not on PATH")])
def test_other_faults_of_programs_are_named(cli, tmp_path, how, why):
    program, conf = tmp_path / "program", tmp_path / "jobqd.conf"
    conf.write_text(f"[queue default]\nexec = {program}\n")
    if how == "a folder":
        program.mkdir()
    elif how == "a pipe":
        os.mkfifo(program)
    elif how == "env":
        put_program(program, b"#!/usr/bin/env python3 -u\n")
    elif how == "env's PATH":
        put_program(program, b"#!/usr/bin/env only-here\n")
        (tmp_path / "bin").mkdir()
        put_program(tmp_path / "bin" / "only-here", b"#!/bin/sh\n")
    else:
        put_program(program, b"#!/bin/sh\n", mode=0o644)
    assert f"exec: cannot run {program}: {why}\n" in cli("config", "check", "-c", conf, code=os.EX_CONFIG).stderr
    if how == "env's PATH":  # that of the queue counts
        conf.write_text(f"[queue default]\nexec = {program}\nenv = PATH={tmp_path}/bin:/bin\n")
        cli("config", "check", "-c", conf)


def test_an_exec_programs_args_are_a_line(db, jobqd, tmp_path):
    """Without a newline at its end `read` takes the line and says that it has failed, which under `set -e` ends the job."""
    program, said = tmp_path / "program.sh", tmp_path / "said"
    put_program(program, f"#!/bin/sh\nset -e\nread -r args\nprintf '%s' \"$args\" > {said}\n! read -r more\n".encode())
    jobqd(db, {"default": {"exec": program, "concurrency": 1}})
    db.enqueue("line", '{"a": [1, "\\u00e9", "b\\nc"]}', max_attempts=1)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
    assert db.states() == {"completed": 1}
    assert json.loads(said.read_text()) == {"a": [1, "é", "b\nc"]}


# ---- the folder that jobqd was started in ----

REPORTER = "#!/bin/sh\nread -r args\npwd -P > {said} 2>&1 || echo nowhere > {said}\necho '{name}' >> {said}\n"


@pytest.fixture
def releases(tmp_path):
    """A deployment: make(name) makes releases/NAME with an exec program and a configuration, and points `current` to it. Each
    program says where it was started and of which release it is."""
    said = tmp_path / "said"

    def make(name, database):
        folder = tmp_path / "releases" / name
        (folder / "config").mkdir(parents=True)
        put_program(folder / "run.sh", REPORTER.format(said=said, name=name).encode())
        (folder / "config" / "jobqd.conf").write_text(
            f"[jobqd]\nnode = node1\ndatabase = {database}\n[queue default]\nexec = ../run.sh\nconcurrency = 1\n")
        link = tmp_path / "new"
        link.symlink_to(folder)
        link.rename(tmp_path / "current")
        return folder
    return make, tmp_path / "current", said


def report_of(db, said):
    said.unlink(missing_ok=True)
    job = db.enqueue("where")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed", what=db.states)
    return said.read_text().splitlines()


class Started:
    """`jobqd run -c FILE` in a folder, by a shell's name for it."""

    def __init__(self, program, folder, conf, env=None):
        self.log_file = folder.parent / f"log-{time.monotonic_ns()}"
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen([program, "run", "-c", conf], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=clean_environment(PWD=str(folder), **(env or {})))
        self.wait("ready database=")

    def log(self):
        return self.log_file.read_text()

    def wait(self, text, times=1):
        wait_for(lambda: self.log().count(text) >= times, what=lambda: f"{text} in the log:\n{self.log()}")

    def reload(self):
        before = self.log().count("reloaded")
        self.process.send_signal(signal.SIGHUP)
        self.wait("reloaded", before + 1)

    def upgrade(self):
        before = self.log().count("took over from jobqd")
        self.process.send_signal(signal.SIGUSR2)
        self.wait("took over from jobqd", before + 1)


@pytest.fixture
def started(request, jobqd_program):
    def start(folder, conf, **more):
        found = Started(jobqd_program, folder, conf, **more)

        def end():
            found.process.terminate()
            assert found.process.wait(60) == 0, found.log()
        request.addfinalizer(end)
        return found
    return start


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_the_folder_of_a_start_may_be_deleted(db, releases, started, tmp_path, how):
    """Capistrano deletes old releases; the configuration was named in full, so nothing is missing."""
    make, current, said = releases
    first = make("1", db.uri)
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[jobqd]\nnode = node1\ndatabase = {db.uri}\n[queue default]\nexec = {tmp_path}/run.sh\nconcurrency = 1\n")
    put_program(tmp_path / "run.sh", REPORTER.format(said=said, name="fixed").encode())
    node = started(first, conf)
    assert report_of(db, said) == [str(first), "fixed"]
    shutil.rmtree(first)
    getattr(node, how)()
    assert report_of(db, said) == ["/", "fixed"]
    assert "refused" not in node.log() and "upgrade: failed" not in node.log()
    node.wait(f"the folder that jobqd was started in, {first}, is gone: programs without working_directory start in /")
    node.reload()
    assert node.log().count("the folder that jobqd was started in") == 1
    first.mkdir()  # back again
    getattr(node, how)()
    assert report_of(db, said) == [str(first), "fixed"]


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_a_link_to_the_current_release_is_followed(db, releases, started, how):
    """`cd current; jobqd run -c config/jobqd.conf`: what a reload reads is the next release's, and that is where it starts."""
    make, current, said = releases
    first = make("1", db.uri)
    node = started(current, "config/jobqd.conf")
    assert report_of(db, said) == [str(first), "1"]
    second = make("2", db.uri)
    assert report_of(db, said) == [str(first), "1"]  # not before it is asked to
    getattr(node, how)()
    assert report_of(db, said) == [str(second), "2"]
    shutil.rmtree(first)
    third = make("3", db.uri)
    shutil.rmtree(second)
    getattr(node, how)()
    assert report_of(db, said) == [str(third), "3"]


def test_a_relative_path_into_a_folder_that_is_gone_is_named(db, releases, started):
    make, current, said = releases
    first = make("1", db.uri)
    node = started(first, "config/jobqd.conf")
    shutil.rmtree(first)
    node.reload()
    node.wait(f"not reloaded; the old one stays in force: {first}/config/jobqd.conf: No such file or directory")
    assert node.process.poll() is None


def test_a_relative_folder_of_the_command_line_is_named(db, cli, tmp_path, jobqd_program):
    """A command in a folder that is gone works, unless it is told something that counts from there."""
    folder = tmp_path / "gone"
    folder.mkdir()
    def run(*args, code=0):
        command = " ".join(map(str, args))
        return cli("-c", f"cd {folder} && rmdir {folder}; {jobqd_program} {command}; code=$?; mkdir -p {folder}; exit $code",
                   program="/bin/sh", code=code)
    run("jobs", f"--database '{db.uri}'")
    run("version")
    said = run("jobs", "--embedded ./data", code=os.EX_USAGE).stderr
    assert '--embedded: "./data" is relative, and the folder that jobqd was started in' in said
    assert "jobqd.conf: No such file or directory" in run("config", "check", "-c jobqd.conf", code=os.EX_CONFIG).stderr
