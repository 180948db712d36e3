"""What a queue's processes are confined to, looked at from inside a real worker and a real exec program; and what
becomes of one that uses more."""

import ctypes
import fcntl
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios

import pytest

from harness.waiting import wait_for

# A worker of the protocol: answers each job with what the job's Python expression is, run inside it.
WORKER = """#!%s
import json, os, resource, socket, sys, time
kept = []
def hog(mib):
    kept.append(bytearray(mib << 20))
    return len(kept)
def child(mib, s=600, exits=False):
    '''A child in the same process group that holds mib MiB; exits: its parent goes at once, so that it is nobody's.'''
    ready, told = os.pipe()
    if os.fork() == 0:
        if exits and os.fork() != 0:
            os._exit(0)
        held = bytearray(mib << 20)
        os.write(told, b'x')
        time.sleep(s)
        os._exit(0)
    os.read(ready, 1)
    return os.getpid()
def burn(s):
    end = time.process_time() + s
    while time.process_time() < end:
        pass
def fds():
    return {int(fd): os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')
            if os.path.exists(f'/proc/self/fd/{fd}')}
def status(name):
    return [line.split()[1] for line in open('/proc/self/status') if line.startswith(name + ':')][0]
def run(args):
    for step in args.get('do', []):
        exec(step, globals())
    return eval(args.get('ask', 'None'), globals())
"""

AS_WORKER = WORKER + """
s = socket.socket(fileno=int(os.environ['JOBQ_FD']))
f = s.makefile('rw')
def say(**frame):
    f.write(json.dumps(frame) + '\\n')
    f.flush()
say(t='hello', protocol=1)
for line in f:
    m = json.loads(line)
    if m['t'] == 'job':
        print('job', m['id'], 'begins', flush=True)
        say(t='ok', id=m['id'], result={'pid': os.getpid(), 'is': run(m['args'])})
    elif m['t'] == 'stop':
        break
"""

AS_PROGRAM = WORKER + """
import pathlib
args = json.load(sys.stdin)
pathlib.Path(args['to']).write_text(json.dumps({'pid': os.getpid(), 'is': run(args)}))
"""

MODES = ["command", "exec"]


@pytest.fixture
def tmp_path():
    """A folder that any user may enter and write to: pytest's own is closed again by each pytest that starts."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-limits-"))
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def program(tmp_path):
    """The paths of the two programs."""
    def make(mode):
        path = tmp_path / mode
        path.write_text((AS_WORKER if mode == "command" else AS_PROGRAM) % sys.executable)
        path.chmod(0o755)
        return path
    return make


@pytest.fixture
def ask(db, jobqd, program, tmp_path):
    """ask(mode, expressions, **limits): what a process of a queue with these limits says of each expression."""
    def answer(mode, asks, env=None, **limits):
        jobqd(db, {"default": {mode: program(mode), "concurrency": 1, **limits}}, env=env)
        found = []
        for nth, text in enumerate(asks):
            to = tmp_path / f"said-{nth}"
            to.touch()
            os.chmod(to, 0o666)
            job = db.enqueue("ask", json.dumps({"ask": text, "to": str(to)}), max_attempts=1)
            state, _, errors, result = ended(db, job)
            assert state == "completed", errors
            found.append((json.loads(to.read_text()) if mode == "exec" else result)["is"])
        return found
    return answer


def ended(db, job):
    """(state, attempt, errors, result) of a job, once it has ended."""
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)),
             what=lambda: f"job {job} to end: {db.query('SELECT state, attempt, errors FROM jobq.all_jobs')}")
    return db.query("SELECT state::text, attempt, errors, result FROM jobq.finished_jobs WHERE id = %s", (job,))[0]


def job_of(db, tmp_path, max_attempts=1, **args):
    return db.enqueue("do", json.dumps({"to": str(tmp_path / "said"), **args}), max_attempts=max_attempts)


# ---- what is set before the program runs ----

@pytest.mark.parametrize("mode", MODES)
def test_limits_hold_inside(ask, mode):
    said = ask(mode, ["resource.getrlimit(resource.RLIMIT_NOFILE)", "os.nice(0)", "status('NoNewPrivs')", "os.getcwd()",
                      "resource.getrlimit(resource.RLIMIT_CPU)"],
               nofile=123, nice=4, no_new_privs="on", working_directory="/usr", cpu_limit="1500ms", stop_grace="2s")
    cpu = [2, 5] if mode == "exec" else [-1, -1]  # a worker's is counted job by job
    assert said == [[123, 123], min(os.nice(0) + 4, 19), "1", "/usr", cpu]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_another_user(ask, mode):
    nobody = pwd.getpwnam("nobody")
    said = ask(mode, ["[os.getresuid(), os.getresgid(), os.getgroups()]", "status('CapEff')", "os.environ['HOME']",
                      "os.environ['USER']", "open('/dev/stderr', 'w').write('by name')"],
               user="nobody", group="daemon")
    ids = [[nobody.pw_uid] * 3, [1] * 3]
    assert said[0][:2] == ids and 0 not in said[0][2]
    assert said[1:] == ["0000000000000000", nobody.pw_dir, "nobody", 7]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_another_users_process_dies_with_jobqd(db, jobqd, program, tmp_path, mode):
    node = jobqd(db, {"default": {mode: program(mode), "concurrency": 1, "user": "nobody"}}, lease="1s")
    began = tmp_path / "began"
    job_of(db, tmp_path, do=[f"open({str(began)!r}, 'w')", "time.sleep(600)"])
    wait_for(began.exists)
    assert node.workers()
    node.kill()  # finish() looks whether anything is left


@pytest.mark.parametrize("mode", MODES)
def test_the_database_reaches_nobody_who_was_not_given_it(ask, mode, db):
    secrets = {"DATABASE_URL": "postgresql:///x", "PGPASSWORD": "s", "PGPASSFILE": "/x", "PGAPPNAME": "x", "PGSERVICEFILE": "x",
               "JOBQ_LEASE": "9s", "NOTIFY_SOCKET": "/nowhere", "MINE": "1"}
    meant = {"JOBQ_LIBRARY": "/opt/libjobq.so.0", "JOBQ_SCHEMA": "jobq"}
    (found,) = ask(mode, ["dict(os.environ)"], env={**secrets, **meant})
    assert found["MINE"] == "1" and found["PATH"]
    assert not [name for name in found if name.startswith(("PG", "DATABASE", "NOTIFY"))]
    own = {"JOBQ_QUEUE", "JOBQ_FD", "JOBQ_MAX_FRAME"} if mode == "command" else {
        "JOBQ_QUEUE", "JOBQ_JOB_ID", "JOBQ_KIND", "JOBQ_ATTEMPT", "JOBQ_MAX_ATTEMPTS", "JOBQ_DEADLINE_MS"}
    assert {name for name in found if name.startswith("JOBQ_")} == own | set(meant)
    assert {name: found[name] for name in meant} == meant
    assert db.uri not in json.dumps(found)


@pytest.mark.parametrize("mode", MODES)
def test_env_sets_and_hands_over(db, jobqd, program, tmp_path, mode):
    jobqd(db, {"default": {mode: program(mode), "concurrency": 1,
                           "env": "DATABASE_URL PATH=/bin:/usr/bin 'TWO=a b' NOT_SET GIVEN=here"}},
          env={"DATABASE_URL": "postgresql:///app", "GIVEN": "there", "PGPASSWORD": "s"})
    to = tmp_path / "said"
    state, _, errors, result = ended(db, job_of(db, tmp_path, ask="dict(os.environ)"))
    assert state == "completed", errors
    found = (json.loads(to.read_text()) if mode == "exec" else result)["is"]
    assert {name: found.get(name) for name in ("DATABASE_URL", "PATH", "TWO", "GIVEN", "NOT_SET", "PGPASSWORD")} == {
        "DATABASE_URL": "postgresql:///app", "PATH": "/bin:/usr/bin", "TWO": "a b", "GIVEN": "here", "NOT_SET": None,
        "PGPASSWORD": None}


@pytest.mark.parametrize("mode", MODES)
def test_no_descriptor_but_its_own_is_open(db, jobqd, program, tmp_path, mode):
    """Not even one that jobqd itself was started with by somebody careless."""
    node = jobqd(db, {"default": {mode: program(mode), "concurrency": 1}}, ready=False)
    node.kill()
    node.expected_exit = 0
    leaks = [os.open("/dev/zero", os.O_RDONLY) for _ in range(3)]
    for fd in leaks:
        os.set_inheritable(fd, True)
    node.start(pass_fds=leaks)
    for fd in leaks:
        os.close(fd)
    if os.geteuid() == 0:  # jobqd's open files are root's to see
        assert "/dev/zero" in [os.readlink(f"/proc/{node.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{node.pid}/fd")]
    state, _, errors, result = ended(db, job_of(db, tmp_path, ask="fds()"))
    assert state == "completed", errors
    found = (json.loads((tmp_path / "said").read_text()) if mode == "exec" else result)["is"]
    kinds = {fd: re.sub(r":.*", "", name) for fd, name in found.items()}
    assert kinds.pop("1") == kinds.pop("2") == "pipe" and found["1"] == found["2"]
    if mode == "command":
        assert kinds == {"0": "/dev/null", "3": "socket"}
    else:
        assert list(kinds) == ["0"] and "memfd" in found["0"]


SESSION = """
import ctypes, errno
def opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
        return 'opened'
    except OSError as error:
        return errno.errorcode[error.errno]
def terminal_of(pid):
    return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[4])
def kills(pid, number):
    try:
        os.kill(pid, number)
        return 'killed'
    except OSError as error:
        return errno.errorcode[error.errno]
def key(name):
    '''Whether a key of that name is found in the session's keyring.'''
    return ctypes.CDLL(None).syscall(KEYCTL, 10, -3, b'user', name.encode(), 0) >= 0
"""
KEY_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl
USERS = ["its own user", "another user"]


@pytest.fixture
def terminal():
    """What makes a process the leader of a session on a terminal, with a key in its session's keyring; the key's name."""
    ours, theirs = os.openpty()
    name = f"jobq-test-{os.getpid()}"
    add_key, keyctl = KEY_CALLS[os.uname().machine]

    def enter():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        call = ctypes.CDLL(None).syscall
        call(keyctl, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING; a container may have no keyrings
        call(add_key, b"user", name.encode(), b"secret", 6, -3)
    yield enter, name, keyctl
    os.close(ours)
    os.close(theirs)


def start_on_terminal(jobqd, db, enter, queue, user):
    if user == "another user":
        queue["user"] = "nobody"
    node = jobqd(db, {"default": queue}, ready=False)
    node.kill()
    node.expected_exit = 0
    node.start(preexec=enter)
    assert terminal_of(node.pid) != 0 and os.getsid(node.pid) == node.pid
    return node


def terminal_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[4])


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", MODES)
def test_no_process_has_jobqds_terminal(db, jobqd, program, tmp_path, terminal, mode, user):
    """Nor may another user's one reach into jobqd's session: SIGCONT needs no right there, and its keyring is open."""
    enter, key, keyctl = terminal
    start_on_terminal(jobqd, db, enter, {mode: program(mode), "concurrency": 1}, user)
    to = tmp_path / "said"
    to.touch()
    to.chmod(0o666)
    ask = ("[opens('/dev/tty'), terminal_of(os.getpid()), os.getpgid(0) == os.getpid(), os.getsid(0) == os.getsid(os.getppid()),"
           f" kills(os.getppid(), 18), key({key!r})]")
    state, _, errors, result = ended(db, job_of(db, tmp_path, do=[f"KEYCTL = {keyctl}", SESSION], ask=ask))
    assert state == "completed", errors
    found = (json.loads(to.read_text()) if mode == "exec" else result)["is"]
    assert found[:3] == ["ENXIO", 0, True]
    if user == "another user":
        assert found[3:] == [False, "EPERM", False]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("whose", ["libjobq's", "Python's"])
def test_no_forked_process_has_it_either(db, jobqd, programs, for_anyone, tmp_path, terminal, whose, user):
    command = f"{for_anyone(programs('preload_worker'))} {tmp_path / 'hooks'} 1"
    if whose == "Python's":
        copy = tmp_path / "forkserver.py"  # where any user may read it
        copy.write_text((pathlib.Path(__file__).resolve().parents[1] / "programs" / "forkserver.py").read_text())
        command = f"{sys.executable} {copy} ok {tmp_path / 'once'}"
    node = start_on_terminal(jobqd, db, terminal[0], {"command": command, "concurrency": 2, "preload": "on"}, user)
    assert ended(db, db.enqueue("facts"))[0] == "completed"
    pids = [int(pid) for pid in re.findall(r"worker default/w\d pid (\d+): (?:replacement )?ready", node.log())]
    assert len(pids) == 2
    for pid in pids:
        assert terminal_of(pid) == 0 and os.getpgid(pid) == pid
        assert user == "its own user" or os.getsid(pid) == pid


# ---- what of jobqd itself can be seen ----

LOOK = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
SECRETS = ('environ', 'mem', 'maps', 'smaps', 'fd', 'fdinfo', 'exe', 'cwd', 'root', 'map_files', 'auxv', 'io', 'stack', 'syscall',
           'pagemap', 'ns/mnt', 'task/{pid}/environ', 'task/{pid}/fd', 'clear_refs')
def tries(what):
    try:
        what()
        return None
    except OSError as error:
        return errno.errorcode[error.errno]
def fails(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
def opens(path):
    if path.endswith(('fd', 'fdinfo', 'map_files')):
        os.listdir(path)
    elif path.endswith(('exe', 'cwd', 'root', 'mnt')):
        os.readlink(path)
    else:
        os.close(os.open(path, os.O_WRONLY if path.endswith('refs') else os.O_RDONLY))
        if not path.endswith('refs'):
            with open(path, 'rb') as file:
                file.read(1)
def attaches(pid):
    fails(libc.ptrace(16, pid, None, None))
def seizes(pid):
    fails(libc.ptrace(0x4206, pid, None, None))
def takes_descriptor(pid):
    fails(libc.syscall(438, os.pidfd_open(pid), 2, 0))
def is_child(pid, parent):
    try:
        return open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1] == str(parent)
    except OSError:
        return False
def look(pid):
    '''What can be seen of the process; its name and its command line, which everybody may read.'''
    seen = [name for name in SECRETS if tries(lambda: opens(f'/proc/{pid}/' + name.format(pid=pid))) not in ('EACCES', 'EPERM')]
    seen += [call.__name__ for call in (attaches, seizes, takes_descriptor) if tries(lambda: call(pid)) != 'EPERM']
    return [open(f'/proc/{pid}/comm').read().strip(), open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' '), seen]
def look_at_all():
    jobqd = os.getppid()
    children = [int(pid) for pid in os.listdir('/proc') if pid.isdigit() and is_child(pid, jobqd)]
    return sorted(look(pid) for pid in [jobqd, *children] if open(f'/proc/{pid}/comm').read().startswith('jobqd'))
"""


@pytest.fixture
def unprivileged(tmp_path, jobqd_program, for_anyone, db):
    """jobqd as an ordinary user (the database's, whose socket it may use), as whom its workers run, too."""
    user = db.cluster.user
    if user is None:
        return jobqd_program
    path = tmp_path / "jobqd-unprivileged"
    jobqd_program = for_anyone(jobqd_program)
    path.write_text(f'#!/bin/sh\nexec setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --clear-groups {jobqd_program} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("form", ["--database={}", "--database {}", "--datab {}"])
def test_a_worker_of_jobqds_user_sees_nothing_of_jobqd_and_its_guard(db, jobqd, program, unprivileged, tmp_path, form):
    """Nor of the program that takes jobqd's place, or of the jobqd that the guard becomes."""
    uri = db.uri.replace("admin@", "admin:s3cret@")
    assert "s3cret" in uri
    node = jobqd(None, {"default": {"command": program("command"), "concurrency": 1}}, program=unprivileged, respawn="on",
                 args=form.format(uri).split(" "), env={"PGPASSWORD": "s3cret"})

    def look():
        state, _, errors, result = ended(db, job_of(db, tmp_path, do=[LOOK], ask="look_at_all()"))
        assert state == "completed", errors
        return result["is"]

    def is_closed(found):
        assert [name for name, _, _ in found] == ["jobqd", "jobqd-guard"]
        assert [seen for _, _, seen in found] == [[], []]
        assert not any("s3cret" in command for _, command, _ in found), found
        assert all("admin:****@" in command for _, command, _ in found), found

    is_closed(look())
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    is_closed(look())
    guard, = wait_for(lambda: len(node.guards()) == 1 and node.guards())
    node.process.kill()
    node.process.wait()
    node.expected_exit = -signal.SIGKILL
    wait_for(lambda: node.log().count("ready database=") == 2, what=node.log)
    is_closed(look())
    assert "s3cret" not in node.log()
    os.kill(guard, signal.SIGTERM)  # it is jobqd now


SHY = """#!%s
import ctypes, os, pathlib, sys, time
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: others see no more of it than of jobqd
child = os.fork()
if child:
    pathlib.Path(sys.argv[1] + '.new').write_text(f'{os.getpid()} {child}')
    os.rename(sys.argv[1] + '.new', sys.argv[1])
time.sleep(600)
"""


def reap_orphans(we_do):
    """Whether this process gets the orphans below it, as init would."""
    assert ctypes.CDLL(None).prctl(36, int(we_do)) == 0  # PR_SET_CHILD_SUBREAPER


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def test_what_proc_hides_from_the_guard_is_killed_nevertheless(db, jobqd, unprivileged, tmp_path):
    """As ProtectProc=invisible mounts it: a process that lets no other look into it has no /proc/PID for jobqd and its guard."""
    shy, told, program = tmp_path / "shy.py", tmp_path / "told", tmp_path / "jobqd"
    hide = "mount -t proc -o hidepid=invisible proc /proc"
    for path, text in ((shy, SHY % sys.executable),
                       (program, f"#!/bin/sh\nexec unshare --mount sh -c '{hide} && exec {unprivileged} \"$@\"' jobqd \"$@\"\n")):
        path.write_text(text)
        path.chmod(0o755)
    if subprocess.run([program, "version"], capture_output=True, check=False).returncode != 0:
        program = unprivileged  # this machine does not let the test hide anything

    def run_shy():
        told.unlink(missing_ok=True)
        job = db.enqueue("shy", max_attempts=1)
        return job, [int(pid) for pid in wait_for(lambda: told.exists() and told.read_text()).split()]

    node = jobqd(db, {"default": {"exec": f"{shy} {told}", "concurrency": 1}}, program=program, lease="2s")
    job, pids = run_shy()
    node.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: all(map(is_gone, pids)), what=lambda: f"{pids} to be killed by the guard:\n{node.log()}")
    finally:
        node.signal(signal.SIGCONT)
    node.wait_log("guard: process groups killed: 1")
    assert ended(db, job)[0] == "discarded"
    _, pids = run_shy()
    guard, = node.guards()
    os.kill(guard, signal.SIGSTOP)  # until the leader, which dies with jobqd, is reaped: then the other one is left, hidden
    reap_orphans(True)
    try:
        node.kill()
        assert os.waitpid(pids[0], 0)[0] == pids[0]
    finally:
        reap_orphans(False)
        os.kill(guard, signal.SIGCONT)
    wait_for(lambda: all(map(is_gone, pids)), what=lambda: f"{pids} to be killed when jobqd was:\n{node.log()}")


# ---- what cannot be had ----

@pytest.mark.parametrize("option, value, says", [
    ("user", "nobody-of-that-name", 'user: there is no user "nobody-of-that-name"'),
    ("group", "no-such-group", 'group: there is no group "no-such-group"'),
    ("working_directory", "/nonexistent",
     "working_directory: entering its working_directory /nonexistent: No such file or directory"),
    ("nofile", "1048576", "nofile: setting its nofile limit to 1048576: "),
])
def test_what_cannot_be_had_is_refused_at_the_start(db, jobqd, cli, program, option, value, says):
    if option == "nofile" and int(open("/proc/sys/fs/nr_open").read()) >= int(value):
        value, says = "16", None  # can be had here: test_limits.c has it refused
    node = jobqd(db, {"default": {"exec": program("exec"), option: value}}, ready=says is None)
    checked = cli("config", "check", "-c", node.conf, code=78 if says else 0)
    if says is None:
        return
    line = next(n for n, text in enumerate(node.conf.read_text().split("\n"), 1) if text.startswith(option))
    node.expected_exit = os.EX_CONFIG
    assert node.wait() == os.EX_CONFIG
    expected = f"{node.conf}:{line}: [queue default] {says}"
    assert expected in node.log() and expected in checked.stderr


def without_cap_kill(folder, jobqd_program):
    path = folder / "jobqd-without-cap-kill"
    path.write_text(f'#!/bin/sh\nexec setpriv --bounding-set -kill {jobqd_program} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.root
def test_a_user_that_jobqd_could_not_kill_is_refused(db, jobqd, jobqd_program, program, tmp_path):
    node = jobqd(db, {"default": {"exec": program("exec"), "user": "nobody"}}, ready=False,
                 program=without_cap_kill(tmp_path, jobqd_program))
    node.expected_exit = os.EX_CONFIG
    assert node.wait() == os.EX_CONFIG
    assert '[queue default] user: jobqd may not kill processes of user "nobody": it would need CAP_KILL' in node.log()


@pytest.mark.root
def test_a_process_that_jobqd_may_not_kill_is_told_of(db, jobqd, jobqd_program, program, tmp_path):
    """It has become another user by itself."""
    node = jobqd(db, {"default": {"exec": program("exec"), "concurrency": 1, "timeout": "3s", "stop_grace": "100ms"}},
                 program=without_cap_kill(tmp_path, jobqd_program))
    job = job_of(db, tmp_path, do=["os.setuid(65534)", "time.sleep(600)"])
    says = r"process (\d+) belongs to another user and cannot be killed: jobqd lacks CAP_KILL"
    pid = int(node.wait_log(says).group(1))
    assert pid in node.workers()
    os.kill(pid, signal.SIGKILL)
    assert ended(db, job)[0] == "discarded"
    assert len(re.findall(says, node.log())) == 1


def test_what_is_lost_after_the_start_is_said_at_the_boot(db, jobqd, programs, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "max_restarts": 1, "backoff": "constant(0s)",
                                  "working_directory": folder}})
    folder.rmdir()
    job = db.enqueue("exit", '{"times": 1}')
    node.wait_log(rf"did not start: cannot start .*: entering its working_directory {folder}: No such file or directory")
    folder.mkdir()
    assert ended(db, job)[0] == "completed"


# ---- too much memory ----

@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("who", ["itself", "a child", "a child that is nobody's"])
def test_more_than_max_memory_hard_is_killed(db, jobqd, program, tmp_path, mode, who):
    node = jobqd(db, {"default": {mode: program(mode), "concurrency": 1, "max_memory_hard": "100MiB"}})
    node.wait_log("enforces max_memory_hard")  # by what, is chosen at the start
    do = {"itself": "hog(150)", "a child": "child(150)", "a child that is nobody's": "child(150, exits=True)"}[who]
    job = job_of(db, tmp_path, do=["print('about to', flush=True)", do, "time.sleep(600)"])
    state, attempt, (error,), _ = ended(db, job)
    assert (state, attempt, error["kind"], error["signal"]) == ("discarded", 1, "memory", "SIGKILL")
    assert re.search(r"max_memory_hard of 100 MiB", error["error"])
    assert error["max_rss_kb"] > 100 * 1024 and error["run_ms"] >= 0 and error["cpu_ms"] >= 0
    assert "about to" in error["output"]
    assert ended(db, job_of(db, tmp_path, ask="1"))[:2] == ("completed", 1)


@pytest.fixture
def delegated(tmp_path):
    """A control group (v2) of our own with the memory controller, as a service manager would delegate it; None: this
    machine has none to give."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    root = next((pathlib.Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if root is None or "memory" not in (root / "cgroup.controllers").read_text().split():
        yield None
        return
    (root / "cgroup.subtree_control").write_text("+memory")
    group = root / f"jobq-test-{os.getpid()}"
    group.mkdir()
    os.setxattr(group, "trusted.delegate", b"1")
    yield group
    for folder in [*group.glob("*/"), group]:
        wait_for(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


def test_the_kernel_keeps_the_limit_in_a_delegated_group(delegated, db, jobqd, program, tmp_path):
    """Or jobqd does, and says so, where there is none: then the tests above are all."""
    node = jobqd(db, {"default": {"command": program("command"), "concurrency": 2, "max_memory_hard": "100MiB"},
                      "script": {"exec": program("exec"), "max_memory_hard": "100MiB"}}, ready=False)
    node.wait_ready()
    if delegated is None:
        node.wait_log("jobqd enforces max_memory_hard itself, measuring every 100 ms: (no cgroup v2 is mounted|the control group)")
        return
    node.stop()
    node.start(preexec=lambda: (delegated / "cgroup.procs").write_text("0"))
    node.wait_log(f"the kernel enforces max_memory_hard, through control groups in {delegated}$")
    assert str(node.pid) in (delegated / "jobqd/cgroup.procs").read_text().split()
    # A child that has left the process group and the session is counted as well, and ended.
    escape = "os.fork() == 0 and (os.setsid(), hog(150), time.sleep(600))"
    for queue in ("default", "script"):
        for do in (["hog(150)"], [escape]):
            job = db.enqueue("do", json.dumps({"to": str(tmp_path / "said"), "do": [*do, "time.sleep(600)"]}), queue=queue,
                             max_attempts=1)
            state, _, (error,), _ = ended(db, job)
            assert (state, error["kind"], error["signal"]) == ("discarded", "memory", "SIGKILL")
            assert error["error"] == "was killed by the kernel at its max_memory_hard of 100 MiB"
            assert error["max_rss_kb"] > 90 * 1024
    ok = db.enqueue("do", json.dumps({"ask": "open('/proc/self/cgroup').read()"}))
    state, _, errors, result = ended(db, ok)
    assert (state, errors) == ("completed", []) and re.search(r"/worker-\d+$", result["is"].strip().split("\n")[-1])
    wait_for(lambda: len(list(delegated.glob("worker-*"))) == 2)  # those of the dead are gone
    node.stop()


def test_what_processes_share_is_not_charged_to_each(db, jobqd, program, tmp_path):
    """120 MiB in a parent and four children that it has forked are 120 MiB."""
    jobqd(db, {"default": {"command": program("command"), "concurrency": 1, "max_memory_hard": "250MiB"}})
    job = job_of(db, tmp_path, do=["hog(120)"] + ["child(1, 5)"] * 4 + ["time.sleep(1)"], ask="len(kept)")
    state, _, errors, result = ended(db, job)
    assert (state, errors) == ("completed", []) and result["is"] == 1


@pytest.mark.parametrize("preload", ["off", "on"])
def test_a_worker_of_libjobq_is_limited_however_it_was_started(db, jobqd, programs, preload):
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "max_memory_hard": "200MiB",
                                  "max_memory": "150MiB", "nofile": 99, "preload": preload}})
    state, _, (error,), _ = ended(db, db.enqueue("allocate", '{"mb": 300, "ms": 600000}', max_attempts=1))
    assert (state, error["kind"], error["signal"]) == ("discarded", "memory", "SIGKILL")
    assert ended(db, db.enqueue("allocate", '{"mb": 20}'))[:2] == ("completed", 1)
    limits = [pathlib.Path(f"/proc/{pid}/limits").read_text() for pid in node.workers()]
    assert limits and all(re.search(r"^Max open files +99 +99 ", text, re.M) for text in limits)


def test_a_template_that_loads_too_much_is_killed(db, jobqd, programs, tmp_path):
    command = f"{programs('preload_worker')} {tmp_path / 'hooks'}"
    queue = {"concurrency": 1, "preload": "on", "max_memory_hard": "150MiB", "backoff": "constant(0s)"}
    node = jobqd(db, {"default": {**queue, "command": f"{command} 300"}})
    node.wait_log(r"forkserver default pid \d+: out of memory: used \S+ MiB of memory, more than its max_memory_hard of 150 MiB")
    node.reload({"default": {**queue, "command": f"{command} 50"}})
    assert ended(db, db.enqueue("facts"))[0] == "completed"


def test_a_job_that_always_needs_too_much_is_poison(db, jobqd, program, tmp_path):
    jobqd(db, {"default": {"command": program("command"), "concurrency": 1, "max_memory_hard": "60MiB",
                           "max_crashes": 2, "backoff": "constant(0s)", "max_restarts": 100}})
    state, attempt, errors, _ = ended(db, job_of(db, tmp_path, max_attempts=20, do=["hog(100)", "time.sleep(600)"]))
    assert (state, attempt) == ("discarded", 2)
    assert [error["kind"] for error in errors] == ["memory", "memory"]
    assert errors[-1]["discarded"] == "crashed 2 workers"


def test_more_than_max_memory_after_a_job_is_replaced(db, jobqd, program, tmp_path):
    node = jobqd(db, {"default": {"command": program("command"), "concurrency": 1, "max_memory": "100MiB"}})

    def pid_of(**args):
        state, attempt, errors, result = ended(db, job_of(db, tmp_path, **args))
        assert (state, attempt, errors) == ("completed", 1, [])
        return result["pid"]
    first = pid_of(do=["hog(10)"])
    # 150 MiB that are given back before the job ends are nobody's business.
    assert pid_of(do=["hog(150)", "time.sleep(1)", "kept.clear()"]) == first
    assert pid_of(do=["time.sleep(1.2)"]) == first
    # What stays is: the job has its result, and the next one another process.
    assert pid_of(do=["hog(150)", "time.sleep(1)"]) == first
    node.wait_log(r"uses \d+ KiB of memory, more than its max_memory of 102400 KiB")
    wait_for(lambda: pid_of() != first)
    assert "ended badly" not in node.log()


# ---- too much processor time ----

@pytest.mark.parametrize("mode", MODES)
def test_more_than_cpu_limit_is_a_timeout(db, jobqd, program, tmp_path, mode):
    jobqd(db, {"default": {mode: program(mode), "concurrency": 1, "cpu_limit": "1s", "stop_grace": "500ms"}})
    # Sleeping costs nothing, and each job of a worker has its own second.
    for _ in range(3):
        assert ended(db, job_of(db, tmp_path, do=["burn(0.4)", "time.sleep(0.2)"]))[0] == "completed"
    job = job_of(db, tmp_path, do=["burn(60)"])
    state, _, (error,), _ = ended(db, job)
    assert (state, error["kind"], error["signal"]) == ("discarded", "timeout", "SIGXCPU")
    assert error["error"] == ("used more processor time than its cpu_limit of 1 s and was killed by signal 24"
                              " (SIGXCPU)")
    assert 500 <= error["cpu_ms"] < 5000  # the kernel counts by the tick
    # One that does not heed the signal is killed after stop_grace.
    job = job_of(db, tmp_path, do=["import signal", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)", "burn(60)"])
    state, _, (error,), _ = ended(db, job)
    assert (state, error["kind"], error["signal"]) == ("discarded", "timeout", "SIGKILL")


# ---- what a failed attempt leaves behind ----

def test_a_failed_attempt_tells_what_it_used_and_printed(db, jobqd, programs):
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1, "mailbox": 1}})
    earlier = db.enqueue("stderr", '{"lines": 1, "error": "earlier"}')
    assert ended(db, earlier)[0] == "completed"
    job = db.enqueue("fail", '{"error": "no", "detail": "a trace"}', max_attempts=1)
    state, _, (error,), _ = ended(db, job)
    assert (state, error["kind"], error["error"], error["detail"]) == ("discarded", "error", "no", "a trace")
    assert error["run_ms"] >= 0 and 0 <= error["cpu_ms"] < 1000 and error["max_rss_kb"] > 500
    assert "exit_code" not in error and "signal" not in error
    assert "earlier" not in error.get("output", "")  # it printed nothing itself
