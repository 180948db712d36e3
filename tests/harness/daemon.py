"""jobqd as a process under test: its configuration, its log, its end, and what it left behind."""

import os
import pathlib
import re
import signal
import subprocess
import uuid

from .waiting import LIMIT_S, wait_for

# In a sanitizer build a worker that is meant to die by a signal must die by it, not by ASan's handler.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}
SANITIZER_REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:")
READY = re.compile(r"ready database=(\S+)\s*$", re.M)
# Each process under test carries a variable of its own, by which its descendants are found wherever they went.
TOKEN = "TEST_OF_JOBQ"
KNOWN = {}  # by token: the daemon's configuration file, and the pids of its guards that were seen


def clean_environment(**more):
    """Ours without what would configure jobqd or libpq behind the test's back. Which server binaries are under test
    holds for the embedded database, too."""
    kept = {k: v for k, v in os.environ.items() if k == "JOBQ_PG_BINDIR" or
            (not k.startswith(("JOBQ_", "PG")) and k not in ("DATABASE_URL", "NOTIFY_SOCKET"))}
    return {**kept, **SANITIZER_ENV, **more}


def processes_with(token):
    """{pid: command line} of the living processes whose environment holds the token. That of jobqd and its guard is
    root's to read: for others they are known by their command line and their parent."""
    found, hidden = {}, {}
    wanted = f"{TOKEN}={token}".encode()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if state in "ZX":
                continue
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = command
        except PermissionError:
            hidden[int(entry.name)] = (command, int(parent))
        except (OSError, IndexError):
            pass  # it ended while we looked
    conf, guards = KNOWN.get(token, (None, set()))
    found.update((pid, command) for pid, (command, _) in hidden.items() if conf in command.split())
    for pid, (command, parent) in hidden.items():
        if is_guard(command) and (pid in guards or parent in found):
            found[pid] = command
            guards.add(pid)
    return found


def is_guard(command):
    return command == "jobqd guard" or command.startswith("jobqd guard --")


def ini(sections):
    """[(section, {key: value})] as a configuration file."""
    lines = []
    for name, keys in sections:
        lines.append(f"[{name}]")
        lines += [f"{key} = {str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()]
        lines.append("")
    return "\n".join(lines)


class Daemon:
    """One `jobqd run -c FILE`, not started yet. Ends with finish(), which the fixture calls for each that a test left running."""

    def __init__(self, program, folder, database, queues, settings, env, args):
        self.token = uuid.uuid4().hex
        self.folder = folder
        self.conf = folder / "jobqd.conf"
        self.logfile = folder / "jobqd.log"
        self.expected_exit = 0
        self.program = str(program)
        self.args = list(args)
        self.env = clean_environment(**{TOKEN: self.token, **(env or {})})
        self.write_conf(database, queues, settings)
        self.process = None
        KNOWN[self.token] = (str(self.conf), set())

    def write_conf(self, database, queues, settings):
        self._written = (database, queues, settings)
        main = {"node": self.folder.name, **({"database": database} if database else {}), **settings}
        self.conf.write_text(ini([("jobqd", main)] + [(f"queue {name}", keys) for name, keys in queues.items()]))

    def start(self, ready=True, pass_fds=(), cgroup=None, output=None, preexec=None):
        """Starts it (again), with the same configuration file; ready: returns only when it says so; pass_fds: descriptors
        that it is to inherit; cgroup: the folder of the control group that it is to be in; output: where its log goes, for
        whoever brings it into `logfile`; preexec: what its process does before it is jobqd."""
        def enter():
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text("0")
            if preexec is not None:
                preexec()
        self._log_start = self.logfile.stat().st_size if self.logfile.exists() else 0
        with open(self.logfile, "ab") as log:
            self.process = subprocess.Popen([self.program, "run", "-c", str(self.conf), *self.args], env=self.env,
                                            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output or log, stderr=output or log,
                                            pass_fds=pass_fds, preexec_fn=enter if cgroup or preexec else None)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=LIMIT_S):
        """Waits for the line that ends in `ready database=URI`; returns the URI."""
        def said_so():
            match = READY.search(self.log()[self._log_start:])
            if match is None and self.process.poll() is not None:
                raise AssertionError(f"jobqd exited with {self.process.returncode} instead of being ready:\n{self.log()}")
            return match
        return wait_for(said_so, timeout, what=lambda: f"jobqd to be ready:\n{self.log()}").group(1)

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process.poll() is None

    def log(self):
        return self.logfile.read_bytes().decode(errors="replace") if self.logfile.exists() else ""

    def complaints(self):
        """The log's lines of level WARNING and ERROR, but for the one that root's workers are worth at the start."""
        return [line for line in self.log().splitlines() if re.search(r"^\S+ (WARNING|ERROR) ", line)
                and "; set a dedicated user for each queue" not in line]

    def wait_log(self, pattern, timeout=LIMIT_S):
        """Waits for a match (re.M) in the log and returns it."""
        return wait_for(lambda: re.search(pattern, self.log(), re.M), timeout,
                        what=lambda: f"{pattern!r} in the log:\n{self.log()}")

    def signal(self, number):
        self.process.send_signal(number)

    def configure(self, queues=None, **settings):
        """Writes the configuration file anew: other queues, other settings beside those that it has. No reload yet."""
        database, old_queues, old_settings = self._written
        self.write_conf(database, old_queues if queues is None else queues, {**old_settings, **settings})

    def reload(self, queues=None, **settings):
        """configure(), then SIGHUP; returns what the log says from there on, once the new configuration is in force."""
        if queues is not None or settings:
            self.configure(queues, **settings)
        start = len(self.log())
        self.signal(signal.SIGHUP)
        wait_for(lambda: re.search("configuration (not )?reloaded", self.log()[start:]), what=lambda: f"a reload:\n{self.log()}")
        return self.log()[start:]

    def stop(self, timeout=LIMIT_S):
        """SIGTERM, and waits for the end; returns the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def stop_at_once(self, timeout=LIMIT_S):
        """SIGTERM twice: the second when the first was heard, for two that are pending are one."""
        start = len(self.log())
        self.signal(signal.SIGTERM)
        wait_for(lambda: " draining: " in self.log()[start:] or not self.running, timeout, what=lambda: f"it to drain:\n{self.log()}")
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=LIMIT_S):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"jobqd did not end within {timeout} s:\n{self.log()}") from None

    def kill(self):
        """kill -9 of the daemon alone. Its workers must follow by themselves: finish() looks."""
        self.process.kill()
        self.expected_exit = -signal.SIGKILL
        return self.process.wait(LIMIT_S)

    def workers(self):
        """{pid: command line} of what runs below the daemon, without its guard."""
        found = processes_with(self.token)
        found.pop(self.process.pid, None)
        return {pid: command for pid, command in found.items() if not is_guard(command)}

    def guards(self):
        """The pids of the daemon's guard: one, but for the moment after it was killed."""
        return [pid for pid, command in processes_with(self.token).items() if is_guard(command)]

    def rss_kb(self):
        return int(re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.M).group(1))

    def peak_kb(self):
        """The most that it ever had resident."""
        return int(re.search(r"^VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.M).group(1))

    def finish(self):
        """Stops it if it runs, and checks its end: the exit code, no process left, nothing from a sanitizer."""
        code = self.stop()
        wait_for(lambda: not processes_with(self.token), 30,
                 what=lambda: f"no process to be left: {processes_with(self.token)}")
        assert code == self.expected_exit, f"jobqd exited with {code}, expected {self.expected_exit}:\n{self.log()}"
        report = SANITIZER_REPORT.search(self.log())
        assert report is None, f"a sanitizer reported:\n{self.log()[report.start():]}"

    def abandon(self):
        """After a failed check: ends by force, by pid, whatever is left."""
        for pid in processes_with(self.token):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
