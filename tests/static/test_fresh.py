"""What a new machine meets first: tests/fresh.sh, and the scripts that install missing packages. fresh.sh itself needs root, a
network and an hour, so it is run by hand."""

import pathlib
import shutil
import subprocess

import pytest

from harness import readme

ROOT = pathlib.Path(__file__).resolve().parents[2]


def packages():
    text = (ROOT / "tests" / "packages.txt").read_text(encoding="ascii")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("part,expected", [
    ("quickstart", "sh jobqd/quickstart.sh"),
    ("tests", "sh tests/run.sh"),
    ("install", "cmake --install build"),
    ("tutorial", "pip install "),
])
def test_each_part_is_in_the_readmes(part, expected):
    """fresh.sh runs what they say, so they must say it where it looks."""
    done = subprocess.run(["sh", "tests/fresh.sh", "--show", "--as", "root", part], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout and "sudo" not in done.stdout
    assert readme.prints("tutorial") != []
    subprocess.run(["bash", "-n"], input=done.stdout.replace("==", "#"), text=True, check=True)


def test_an_ordinary_user_has_sudo_in_front_of_what_is_for_root():
    done = subprocess.run(["sh", "tests/fresh.sh", "--show", "--as", "user", "tutorial"], cwd=ROOT, capture_output=True, text=True)
    for command in ("apt-get update", "apt-get install", "cmake --install", "ldconfig"):
        assert f"\nsudo {command}" in done.stdout and f"\n{command}" not in done.stdout
    assert "\ncmake --build" in done.stdout


@pytest.mark.parametrize("arguments,says", [
    (["qickstart"], "unknown argument 'qickstart'; allowed are quickstart, tests, install, tutorial,"),
    (["tests+nothing"], "unknown argument 'nothing'"),
    (["--as", "nobody"], "--as needs root or user"),
    (["--mirror"], "--mirror needs a value"),
])
def test_wrong_arguments(arguments, says):
    done = subprocess.run(["sh", "tests/fresh.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 64 and says in done.stderr


def test_no_package_is_named_twice():
    assert len(packages()) == len(set(packages()))


@pytest.mark.parametrize("script", ["tests/run.sh", "jobqd/quickstart.sh"])
def test_without_sudo_it_is_said_what_to_install(script, tmp_path):
    """An ordinary user on a machine with nothing, by programs that say so."""
    for name, text in (("id", "echo 1000"), ("dpkg-query", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("awk", "cat", "date", "dirname", "grep", "mkdir", "mktemp", "nproc", "rm", "sh", "wc"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run([tmp_path / "sh", script], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "only root can install packages, and there is no sudo: apt-get" in line]
    assert len(said) == 1 and "cmake" in said[0] and "postgresql" in said[0]
    if script == "tests/run.sh":
        assert done.stdout.endswith("left out: the tests that only root can run\nfailed: installing packages\n0 passed, 1 failed\n")
