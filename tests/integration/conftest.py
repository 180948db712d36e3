"""What several of the integration tests need."""

import contextlib
import os
import pathlib
import pwd
import socket
import subprocess
import tempfile
import urllib.parse

import pytest

from harness.waiting import wait_for


@contextlib.contextmanager
def run_pgbouncer(cluster, of_database=""):
    """of_database: more of what its configuration says of each database."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-pb-", dir="/tmp"))
    (folder / "users").write_text('"admin" ""\n')
    (folder / "pgbouncer.ini").write_text(f"""[databases]
* = host={cluster.dir} user=admin {of_database}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 4
logfile = {folder}/log
pidfile = {folder}/pid
ignore_startup_parameters = extra_float_digits
""")
    drop = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in [folder, *folder.iterdir()]:
            os.chown(path, user.pw_uid, user.pw_gid)
        drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    process = subprocess.Popen([*drop, "/usr/sbin/pgbouncer", str(folder / "pgbouncer.ini")], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens():
        """The socket is there a moment before somebody listens at it."""
        with socket.socket(socket.AF_UNIX) as probe:
            return any(probe.connect_ex(str(path)) == 0 for path in folder.glob(".s.PGSQL.*[0-9]"))
    wait_for(listens, what=lambda: "pgbouncer's socket")
    port = next(path.name.rsplit(".", 1)[1] for path in folder.glob(".s.PGSQL.*[0-9]"))
    yield lambda database: f"postgresql://admin@/{database.name}?host={urllib.parse.quote(str(folder), safe='')}&port={port}"
    process.terminate()
    process.wait(30)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.fixture
def pooler():
    """pooler(cluster) is a pgbouncer in transaction mode before that server: database -> connection string."""
    with contextlib.ExitStack() as running:
        yield lambda cluster, *more: running.enter_context(run_pgbouncer(cluster, *more))


@pytest.fixture
def pgbouncer(postgres, pooler):
    """A pgbouncer in transaction mode before the server; returns database -> connection string."""
    return pooler(postgres)


@pytest.fixture
def pgbouncer_for_sql(postgres, pooler, pgbouncer):
    """The same one for a test's own SQL; where the trap is on everybody's path, another one, without it."""
    return pooler(postgres, "connect_query='SET search_path = public'") if postgres.trapped else pgbouncer
