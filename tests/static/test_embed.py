"""jobqd/embed.cmake: what it makes of SQL files, and which files it refuses."""

import re
import subprocess

import pytest

from harness.sqlfiles import FOLDERS, PARTS, ROOT, part, statements


def embed(tmp_path, files, parts=()):
    """Runs embed.cmake on SQL files: ({name: text}, what it complained of)."""
    out = tmp_path / "embedded.c"
    done = subprocess.run(["cmake", f"-DOUT={out}", "-DSQL=" + ";".join(map(str, files)), "-DPARTS=" + ";".join(map(str, parts)),
                           "-P", ROOT / "jobqd" / "embed.cmake"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        return None, re.sub(r"\s+", " ", done.stdout)
    return {name: bytes(int(byte, 16) for byte in text.split(",")).removesuffix(b"\0").decode()
            for name, text in re.findall(r"const char sql_(\w+)\[\] = \{(.*)\};", out.read_text())}, done.stdout


@pytest.fixture
def file(tmp_path):
    def write(text, name="some.sql"):
        (tmp_path / name).write_bytes(text.encode())
        return tmp_path / name
    return write


def test_each_statement_of_a_file_keeps_its_comment_and_every_character(tmp_path, file):
    text = "-- A topic; [with] \\ signs.\n\n-- name: a\n-- First; [of] two.\nSELECT E'\\\\', ';[]', $$]$$;\n\n\n-- name: b\nSELECT ARRAY[1]\n"
    assert embed(tmp_path, [file(text)])[0] == {"a": "-- First; [of] two.\nSELECT E'\\\\', ';[]', $$]$$;\n", "b": "SELECT ARRAY[1]\n"}


def test_a_file_without_names_is_one_statement(tmp_path, file):
    assert embed(tmp_path, [file("-- A comment.\nSELECT 1;\nSELECT 2\n")])[0] == {"some": "-- A comment.\nSELECT 1;\nSELECT 2\n"}


def test_a_part_comes_without_its_opening_comment(tmp_path, file):
    parts = [file("-- Why.\nb, @inner@\n", "outer.sql"), file("c -- here\n", "inner.sql")]
    assert embed(tmp_path, [file("SELECT a, @outer@\n")], parts)[0] == {"some": "SELECT a, b, c -- here\n"}


@pytest.mark.parametrize("text, complaint", [
    ("-- A comment.\nSELECT 1\n-- name: a\nSELECT 1\n", "only comments may stand above"),
    ("-- name: a\nSELECT 1\n\n-- name: a\nSELECT 2\n", "there is another statement a"),
    ("-- name: a\n-- nothing\n-- name: b\nSELECT 1\n", "a is empty"),
    ("-- name: a b\nSELECT 1\n", 'this line is not "-- name: NAME": -- name: a b'),
    ("-- name: a\r\nSELECT 1\n", "is not a line of its own"),
])
def test_a_file_that_may_be_a_mistake_is_refused(tmp_path, file, text, complaint):
    names, said = embed(tmp_path, [file(text)])
    assert names is None and complaint in said and "some.sql" in said


def test_a_name_in_two_files_is_refused(tmp_path, file):
    names, said = embed(tmp_path, [file("SELECT 1\n", "a.sql"), file("-- name: a\nSELECT 2\n", "b.sql")])
    assert names is None and "b.sql: there is another statement a" in said


def test_the_two_lists_of_a_jobs_columns_are_the_same():
    plain, of_j = (re.split(r",\s+", part(ROOT / "migrations" / "schema" / "parts" / f"{name}.sql")) for name in ("job_columns", "job_columns_of_j"))
    assert [f"j.{name}" for name in plain] == of_j


def test_the_tests_read_the_statements_as_the_daemon_does(tmp_path):
    files = [file for folder in FOLDERS for file in sorted(folder.glob("*.sql"))]
    parts = [file for folder in PARTS for file in sorted(folder.glob("*.sql"))]
    parts.sort(key=lambda file: file.stem == "grants")  # which rights includes
    made, said = embed(tmp_path, files, parts)
    assert made == statements(), said
