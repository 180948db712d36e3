"""What the README shows is true: its SQL, its commands and its configuration are run as they stand there."""

import pathlib
import re
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
URI = "postgresql:///app"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def statements():
    for block in blocks("sql"):
        yield from (s.strip() for s in block.split(";\n") if s.strip())


def commands():
    for block in blocks("sh"):
        yield from (line for line in block.splitlines() if "jobqd " in line and URI in line)


def test_the_readme_has_what_is_tested_here():
    assert len(list(statements())) == 22
    assert len(list(commands())) >= 8
    assert len(blocks("ini")) == 1


@pytest.mark.parametrize("statement", statements())
def test_sql(db, statement):
    with db.connect() as conn:
        conn.execute("SELECT jobq.enqueue('resize'), jobq.enqueue('mail', queue => 'mail')")
        conn.execute("SELECT jobq.cancel(2)")
        conn.execute(statement)
        assert conn.execute("SELECT count(*) FROM jobq.all_jobs").fetchone()[0] >= 2


def test_commands(db, empty_db, cli):
    """In the order of the README; job 1 is the one that its first enqueue made."""
    def run(line, database):
        given = ""
        if "|" in line:
            made, line = line.split("|")
            given = shlex.split(made)[-1] + "\n"
        words = shlex.split(line)
        assert words[0] == "jobqd"
        at = words.index("--database")
        assert words[at + 1] == URI
        return cli(*words[1:at], *words[at + 2:], db=database, input=given)

    lines = list(commands())
    migrate = [line for line in lines if "migrate" in line]
    assert len(migrate) == 1
    run(migrate[0], empty_db)
    for line in lines:
        if line not in migrate:
            run(line, db)
    with db.connect() as conn:
        assert conn.execute("SELECT state::text FROM jobq.all_jobs WHERE id = 1").fetchone()[0] == "available"


def test_configuration(cli, tmp_path):
    file = tmp_path / "jobqd.conf"
    text = blocks("ini")[0]
    (tmp_path / "worker").write_text("#!/bin/sh\n")
    (tmp_path / "worker").chmod(0o755)
    text = text.replace("/usr/local/bin/send-mail", str(tmp_path / "worker"))
    file.write_text(text)
    cli("config", "check", "-c", file)
    printed = cli("config", "print", "-c", file).stdout
    assert "[queue mail]" in printed
    assert "concurrency = 10" in printed


@pytest.mark.once
@pytest.mark.parametrize("source", blocks("c"))
def test_c(source, tmp_path):
    assert len(blocks("c")) == 2
    file = tmp_path / "sample.c"
    file.write_text(source)
    flags = subprocess.run(["pkg-config", "--cflags", "libpq"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT / 'include'}", *flags, file],
                   check=True)


def test_every_option_that_is_named_exists(cli):
    printed = cli("config", "print").stdout
    for name in ("shutdown_grace", "keep_completed", "keep_failed"):
        assert name in README
        assert re.search(rf"^{name} =", printed, re.M), name
