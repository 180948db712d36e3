"""What several of the integration tests need."""

import os
import pathlib
import pwd
import socket
import subprocess
import tempfile
import urllib.parse

import pytest

from harness.waiting import wait_for


@pytest.fixture
def pgbouncer(postgres, tmp_path):
    """A pgbouncer in transaction mode before the server; returns database -> connection string."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-pb-", dir="/tmp"))
    (folder / "users").write_text('"admin" ""\n')
    (folder / "pgbouncer.ini").write_text(f"""[databases]
* = host={postgres.dir} user=admin
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
