"""Fixtures for an application's tests, which pytest finds by itself once jobq is installed.

``jobq_database``: the URI of a PostgreSQL of the tests' own, with the jobq schema in it: `jobqd run --embedded` in a
temporary directory, for the session. It runs no jobs. ``JOBQ_JOBQD`` names the program; otherwise it is jobqd on PATH.

``jobq_client``: a client on it, also what ``.enqueue()`` of decorated functions uses; when the test has ended its jobs are
deleted.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:  # not before a test asks: pytest imports this wherever jobq is installed
    from .client import Client

_LIMIT_S = 120


def _wait_ready(process: "subprocess.Popen[bytes]", log: pathlib.Path) -> str:
    """The URI that jobqd logs when it is ready."""
    until = time.monotonic() + _LIMIT_S
    while time.monotonic() < until:
        code = process.poll()
        found = re.search(r" ready database=(\S+)\n", log.read_text())
        if found:
            return found.group(1)
        if code is not None:
            raise RuntimeError(f"jobqd exited with {code} instead of being ready:\n{log.read_text()}")
        time.sleep(0.01)
    raise RuntimeError(f"jobqd was not ready within {_LIMIT_S} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def jobq_database() -> Iterator[str]:
    """See above."""
    program = os.environ.get("JOBQ_JOBQD") or shutil.which("jobqd")
    if program is None:
        pytest.fail("the fixture jobq_database needs jobqd: install it, or name it in JOBQ_JOBQD")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-", dir="/tmp"))
    folder.chmod(0o711)  # as root, jobqd runs PostgreSQL as another user
    environment = {
        name: value
        for name, value in os.environ.items()
        if name == "JOBQ_PG_BINDIR" or not name.startswith(("JOBQ_", "PG")) and name not in ("DATABASE_URL", "NOTIFY_SOCKET")
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "run", "--embedded", str(folder / "data")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
    try:
        yield _wait_ready(process, folder / "log")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_LIMIT_S)
        shutil.rmtree(folder)


@pytest.fixture
def jobq_client(jobq_database: str) -> "Iterator[Client]":
    """See above."""
    from .client import Client
    from .handlers import set_client

    with Client(jobq_database) as client:
        set_client(client)
        try:
            yield client
        finally:
            set_client(None)
            client.delete_many(all=True)
