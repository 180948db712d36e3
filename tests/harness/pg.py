"""A private Postgres: its own data directory, a unix socket alone, gone when the tests are gone."""

import atexit
import functools
import glob
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.parse

import psycopg
from psycopg.conninfo import make_conninfo

from . import trap
from .waiting import wait_for

SUPERUSER = "admin"  # not "jobq": that schema would then be on its search_path, and hide what is not qualified


def bindir():
    """The newest installed server's programs, or JOBQ_PG_BINDIR's."""
    named = os.environ.get("JOBQ_PG_BINDIR")
    if named:
        return pathlib.Path(named)
    installed = [p for p in glob.glob("/usr/lib/postgresql/*/bin") if os.path.exists(p + "/initdb")]
    if installed:
        return pathlib.Path(max(installed, key=lambda p: int(re.search(r"/(\d+)/bin$", p).group(1))))
    return pathlib.Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())


def unprivileged_user():
    """Whom the server runs as: Postgres refuses root. None: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise RuntimeError("running as root, and there is neither a user postgres nor nobody for the server")


@functools.cache
def in_memory():
    """Where a server of the tests lives: in memory where there is plenty, for on a disk half of the time that a fresh
    database takes goes to its 300 files."""
    folder = pathlib.Path("/dev/shm")
    try:
        free = os.statvfs(folder)
        memory = int(re.search(r"^MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M).group(1)) << 10
    except OSError:
        return "/tmp"
    plenty = 6 << 30
    fits = os.path.ismount(folder) and os.access(folder, os.W_OK) and free.f_bavail * free.f_frsize > plenty and memory > plenty
    return str(folder) if fits else "/tmp"


def new_folder(where, user):
    """A folder of the server's user. Its name is short, because a unix socket's path has 107 bytes."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-pg-", dir=where))
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


@functools.cache
def fresh_data(where):
    """What initdb makes, to be copied: it takes seconds, a copy a tenth of one."""
    maker = Cluster(where=where, empty=True)
    atexit.register(maker.remove)
    # No sync: it takes seconds on a busy disk, and helps against the machine's own crash alone.
    maker._run(bindir() / "initdb", "-D", str(maker.data), "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
    return maker.data


def copy_unless_gone(source, target):
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        pass  # what a server deletes while it is copied, its write-ahead log makes up for


class Cluster:
    """start, stop(mode), kill: as often as a test likes. fsync is off unless a test is about crashes. standby_of: a
    running Cluster that this one follows, from start() to promote(). trapped: the trap (trap.py) is first on everybody's
    search path; by default where the environment says JOBQ_TEST_TRAP=1. where: the folder that its folder is made in
    (a test's server: in_memory(), one that is measured: a disk's, a standby: its primary's). empty: without a data directory."""

    def __init__(self, fsync=False, settings=None, standby_of=None, trapped=None, where="/tmp", empty=False):
        self.user = unprivileged_user()
        self.env = {}  # besides ours, for a server that is started from now on
        self.where = where = where if standby_of is None else standby_of.where
        self.dir = new_folder(where, self.user)
        self.data = self.dir / "data"
        self.logfile = self.dir / "server.log"
        self.settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.dir),
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "max_connections": "150",
            "log_line_prefix": "%m [%p] %q%a ",
            "jit": "off",
            "log_checkpoints": "off",
            **(settings or {}),
        }
        self.trapped = trap.WANTED if trapped is None else trapped
        if self.trapped:
            self.settings["search_path"] = trap.PATH
        self.process = None
        self.databases = []
        self.laid = standby_of is not None or not self.trapped
        if standby_of is not None:
            self._copy(standby_of)
            return
        if not empty:
            self._run("cp", "-a", str(fresh_data(where)), str(self.data))

    def _command(self, program, *args):
        """program: a path, or one of the system's own."""
        # PDEATHSIG: a fast shutdown when we are killed. After the change of user, which would clear it.
        drop = [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--init-groups"] if self.user else []
        env = ["env", *(f"{name}={value}" for name, value in self.env.items())] if self.env else []
        return ["setpriv", *drop, "--pdeathsig", "INT", *env, str(program), *args]

    def _run(self, program, *args):
        done = subprocess.run(self._command(program, *args), cwd="/", capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} exited with {done.returncode}:\n{done.stdout}{done.stderr}")

    def _copy(self, primary):
        """A standby's data directory, as pg_basebackup makes it, which not every set of server binaries has."""
        with primary.connect("postgres") as conn:
            old = conn.info.server_version < 150000  # other names, and exclusive unless told otherwise
            conn.execute("SELECT pg_start_backup('standby', true, false)" if old else "SELECT pg_backup_start('standby', true)")
            shutil.copytree(primary.data, self.data, symlinks=True, copy_function=copy_unless_gone,
                            ignore=shutil.ignore_patterns("postmaster.*", "pg_replslot", "pgsql_tmp*"))
            label = conn.execute("SELECT labelfile FROM pg_stop_backup(false, false)" if old else
                                 "SELECT labelfile FROM pg_backup_stop(false)").fetchone()[0]
            (self.data / "pg_replslot").mkdir(mode=0o700)
        (self.data / "backup_label").write_text(label)
        (self.data / "standby.signal").touch()
        follow = primary.conninfo("", application_name="standby").replace("'", "''")
        with open(self.data / "postgresql.auto.conf", "a", encoding="utf-8") as conf:
            conf.write(f"primary_conninfo = '{follow}'\n")
        if self.user:
            for folder, _, files in os.walk(self.data):
                for name in [".", *files]:
                    os.chown(os.path.join(folder, name), self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def start(self):
        """Returns when the server takes connections (a standby: takes reading ones). After a kill it may refuse for a while, until the last old
        backend is gone: so it is started again until it stays."""
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]

        def is_up():
            if self.process is None or self.process.poll() is not None:
                with open(self.logfile, "ab") as log:
                    self.process = subprocess.Popen(self._command(bindir() / "postgres", "-D", str(self.data), *options),
                                                    cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                                                    stderr=subprocess.STDOUT)
            try:
                with self.connect("postgres") as conn:
                    standby = (self.data / "standby.signal").exists()
                    return conn.execute("SELECT pg_is_in_recovery()").fetchone()[0] == standby
            except psycopg.OperationalError:
                return False

        wait_for(is_up, what=lambda: f"the server to start:\n{self.log()}")
        if not self.laid:
            with self.connect("template1") as conn:
                trap.lay(conn)
            self.laid = True
        return self

    def stop(self, mode="fast"):
        """mode: smart, fast or immediate, as pg_ctl's."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self._end(number)

    def promote(self):
        """The standby takes writes when this returns."""
        with self.connect("postgres") as conn:
            assert conn.execute("SELECT pg_promote()").fetchone()[0], f"not promoted:\n{self.log()}"

    def kill(self):
        """SIGKILL to the postmaster alone; its children notice by themselves."""
        self._end(signal.SIGKILL)

    def processes(self):
        """The postmaster and its children; the postmaster first, so that it starts no more when they are ended in turn."""
        postmaster = self.process.pid
        with open(f"/proc/{postmaster}/task/{postmaster}/children", encoding="ascii") as children:
            return [postmaster, *map(int, children.read().split())]

    def kill_all(self):
        """SIGKILL to all of its processes, as when its host dies."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._end(signal.SIGKILL)

    def _end(self, number):
        for database in self.databases:
            database.close()  # its connection for looking would be broken
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)
        self.process = None

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self, start=0):
        """What the server has logged, from the byte `start` on (see log_size)."""
        return self.logfile.read_bytes()[start:].decode(errors="replace") if self.logfile.exists() else ""

    def log_size(self):
        return self.logfile.stat().st_size if self.logfile.exists() else 0

    def conninfo(self, dbname, **more):
        return make_conninfo(**{"host": str(self.dir), "user": SUPERUSER, "dbname": dbname, **more})

    def uri(self, dbname):
        return f"postgresql://{SUPERUSER}@/{dbname}?host={urllib.parse.quote(str(self.dir), safe='')}"

    def connect(self, dbname, autocommit=True, **more):
        """For a test's own SQL, which need not go past the trap."""
        clean = {"options": "-c search_path=public"} if self.trapped and "options" not in more else {}
        return psycopg.connect(self.conninfo(dbname, **clean, **more), autocommit=autocommit)

    def check_trap(self, start=0):
        """Nothing of jobq's has left it to the search path what is meant, since the log had `start` bytes."""
        if self.trapped:
            assert (sprung := trap.sprung(self.log(start))) == [], "\n".join(sprung[:20])

    def create_database(self, name, template="template1"):
        """In none of them everybody may create in public, as only from PostgreSQL 15 on by itself."""
        with self.connect("postgres") as conn:
            # Past the write-ahead log, as before 15: faster, where nothing is synced.
            strategy = " STRATEGY file_copy" if conn.info.server_version >= 150000 else ""
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
            open_to_all = template == "template1" and conn.info.server_version < 150000
        if open_to_all:
            with self.connect(name) as conn:
                conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        return Database(self, name)


class Database:
    """One database of a cluster. `query` is for looking; `connect` for everything else."""

    def __init__(self, cluster, name, schema="jobq"):
        self.cluster = cluster
        self.name = name
        self.schema = schema
        self.uri = cluster.uri(name)
        self.conninfo = cluster.conninfo(name)
        self._looker = None
        cluster.databases.append(self)

    def connect(self, autocommit=True, **more):
        """A psycopg 3 connection, to be closed (or used with `with`) by the caller."""
        return self.cluster.connect(self.name, autocommit=autocommit, **more)

    def query(self, sql, params=None):
        """The rows of one statement, on an autocommit connection that is kept for looking."""
        if self._looker is None or self._looker.closed:
            self._looker = self.connect()
        cursor = self._looker.execute(sql, params)
        return cursor.fetchall() if cursor.description else []

    def value(self, sql, params=None):
        """The first column of the first row, None when there is no row."""
        rows = self.query(sql, params)
        return rows[0][0] if rows else None

    def enqueue(self, kind, args="{}", **options):
        """jobq.enqueue with options by name (queue, priority, scheduled_at, …); returns the id."""
        names = "".join(f", {name} => %({name})s" for name in options)
        return self.value(f"SELECT {self.schema}.enqueue(%(kind)s, %(args)s::jsonb{names})",
                          {"kind": kind, "args": args, **options})

    def set_version(self, number):
        """As if that step had been the last one."""
        self.query(f"CREATE OR REPLACE FUNCTION {self.schema}.version() RETURNS int LANGUAGE sql AS 'SELECT {int(number)}'")

    def states(self):
        """{state: count} over live and finished jobs."""
        return dict(self.query(f"SELECT state::text, count(*) FROM {self.schema}.all_jobs GROUP BY 1"))

    def wait_for_states(self, expected, timeout=60):
        """Waits until states() is exactly `expected`."""
        wait_for(lambda: self.states() == expected, timeout,
                 what=lambda: f"jobs in the states {expected}, they are {self.states()}")

    def drop(self):
        self.close()
        self.cluster.databases.remove(self)
        with self.cluster.connect("postgres") as conn:
            conn.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    def close(self):
        if self._looker is not None:
            self._looker.close()
            self._looker = None
