"""The README's tutorial, pasted as it stands; its other code is compiled, and run where it stands alone. The recipes are in
test_recipes."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

from harness.readme import prints, script
from readme import ROOT, blocks, section


@pytest.fixture
def open_folder():
    """One that everyone may enter: the embedded database runs as another user. pytest's own are closed whenever one more pytest
    starts on the machine."""
    with tempfile.TemporaryDirectory(prefix="jobq-tutorial-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


def test_the_tutorial(jobqd_program, open_folder):
    """In a folder that has a checkout's bindings, with jobqd on PATH; what apt would install is there already. (tests/fresh.sh
    runs all of it where nothing is.)"""
    for name in ("libjobq", "include", "bindings"):
        shutil.copytree(ROOT / name, open_folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    for name in ("CMakeLists.txt", "LICENSE"):
        shutil.copyfile(ROOT / name, open_folder / name)
    found = [(language, text.replace("/tmp/jobq-data", str(open_folder / "jobq-data")))
             for language, text in blocks(section("Two minutes"))]
    commands = re.sub(r"^apt-get .*\n", "", script(found), flags=re.M)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBQ_", "PG")) or name == "JOBQ_PG_BINDIR"}
    path = f"{pathlib.Path(jobqd_program).parent}:/usr/bin:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", f"set -em\ncd {open_folder}\n{commands}wait"], capture_output=True, text=True,
                          timeout=280, env={**kept, "PATH": path})
    log = (open_folder / "jobqd.log").read_text() if (open_folder / "jobqd.log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    said, = prints("tutorial")
    assert f"\n{said}\n" in done.stdout
    assert len(re.findall("job 1 .*hello world", done.stdout)) == 2
    assert log.endswith("jobqd: ended\n")


def test_the_enqueue_examples(db, monkeypatch):
    import jobq
    (_, plain), (_, own) = [block for block in blocks(section("Enqueue"))]
    names = {}
    exec(plain.replace("postgresql:///app", db.uri), names)
    assert db.value("SELECT count(*) FROM jobq.all_jobs") == 1002
    db.query("CREATE TABLE photos (path text)")
    import psycopg
    exec(own.replace("postgresql:///app", db.uri), {**names, "psycopg": psycopg})
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE kind = 'resize'") == 1
    assert isinstance(names["client"], jobq.Client)
    names["client"].close()


@pytest.mark.parametrize("title", ["Work", "Values", "Test"])
def test_the_other_examples_compile(title):
    found = blocks(section(title))
    assert found
    for language, text in found:
        assert language == "python"
        compile(text, title, "exec")
