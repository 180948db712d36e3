"""Brings a database to the current schema, as a user would: with `jobqd migrate up`."""

import os
import pathlib
import subprocess

from .daemon import SANITIZER_REPORT, clean_environment

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build_folder():
    """The build tree under test: JOBQ_BUILD_DIR, else build/ of the checkout."""
    return pathlib.Path(os.environ.get("JOBQ_BUILD_DIR", ROOT / "build")).resolve()


def migrate(database, schema="jobq", **connect):
    """connect: more of the connection string, such as user."""
    conninfo = database.cluster.conninfo(database.name, **connect)
    done = subprocess.run([build_folder() / "jobqd" / "jobqd", "migrate", "up", "--database", conninfo, "--schema", schema],
                          env=clean_environment(), capture_output=True, text=True)
    if done.returncode or SANITIZER_REPORT.search(done.stderr):
        raise RuntimeError(f"jobqd migrate up: exit {done.returncode}\n{done.stdout}{done.stderr}")
