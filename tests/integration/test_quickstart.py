"""jobqd/quickstart.sh: what it promises, and that it leaves nothing running, however it ends."""

import glob
import os
import pathlib
import re
import signal
import subprocess
import uuid

import pytest

from harness.daemon import TOKEN, clean_environment, processes_with
from harness.waiting import wait_for

# It builds for itself, always in the same folder.
pytestmark = [pytest.mark.once, pytest.mark.xdist_group("quickstart")]

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATABASES = "/tmp/jobq-quickstart.*"


def hear_sigint():
    """A shell cannot trap what was ignored when it began, as SIGINT is below a script's background job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def quickstart(tmp_path):
    """Starts it, in a process group of its own; the packages are installed by tests/run.sh."""
    before = set(glob.glob(DATABASES))
    started = []

    def start():
        token = uuid.uuid4().hex
        output = tmp_path / "output"
        with open(output, "wb") as file:
            process = subprocess.Popen(["sh", "jobqd/quickstart.sh", "--no-install"], cwd=ROOT, stdin=subprocess.DEVNULL,
                                       stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                                       env=clean_environment(**{TOKEN: token}), preexec_fn=hear_sigint)
        process.output = output.read_text
        process.token = token
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
        wait_for(lambda: not processes_with(process.token), 30,
                 what=lambda: f"nothing to be left running: {processes_with(process.token)}")
    assert set(glob.glob(DATABASES)) == before


def row(output, kind):
    """The report's row of a kind: [queue, jobs, completed, discarded, attempts, median, mishaps]."""
    return [cell.strip() for cell in re.search(rf"^\| {kind} +\|(.*)\|$", output, re.M)[1].split("|")]


@pytest.mark.limit(600)
def test_every_kind_ends_as_it_should(quickstart):
    process = quickstart()
    assert process.wait(500) == 0, process.output()
    output = process.output()
    assert row(output, "thumbnail")[1:4] == ["90", "90", "0"]
    assert row(output, "contact_sheet")[1:5] == ["1", "1", "0", "1"]
    assert row(output, "unsteady")[1:5] == ["1", "1", "0", "3"]
    assert row(output, "unsteady")[6] == "2 x error (the lamp is cold)"
    assert row(output, "segfault")[1:5] == ["1", "0", "1", "2"]
    assert row(output, "segfault")[6] == "2 x crash by SIGSEGV"
    assert row(output, "hang")[1:5] == ["1", "0", "1", "1"]
    assert row(output, "hang")[6].startswith("1 x timeout")
    packed = row(output, "pack")
    assert int(packed[1]) > 50 and int(packed[2]) == int(packed[1]) - 1 and packed[3] == "1"
    results = ROOT / "build" / "quickstart" / "results"
    assert (results / "contact-sheet.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert len(list(results.glob("thumbnails/*/*.jpg"))) == 90
    assert len(list(results.glob("documents/*.gz"))) == int(packed[2])


@pytest.mark.limit(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(quickstart, number):
    process = quickstart()
    wait_for(lambda: "== running" in process.output() or process.poll() is not None, 400)
    # As a terminal does: to the whole foreground group.
    os.killpg(process.pid, number)
    assert process.wait(60) == 128 + number, process.output()
