"""The matrix of faults in tests/fault/README.md tells the truth: each of its rows names tests that there are."""

import pathlib
import re

FAULT = pathlib.Path(__file__).resolve().parents[1] / "fault"
# What must be in the matrix, whatever else is there: a fault's cell begins with it, or has it behind a comma.
WORKER = ["exits 0 without an answer", "exits n", "SIGSEGV", "SIGKILL", "SIGSTOP", "out of memory", "an endless loop that ignores TERM",
          "a fork bomb within limits", "closes its socket", "half a line, then silence", "a line of 5 MiB", "binary garbage",
          "answers twice", "answers a job it does not hold", "answers after its deadline", "never says hello", "dies at hello",
          "100 MB on stderr"]
DAEMON = ["20 × SIGKILL", "SIGSTOP past the lease", "out of descriptors", "SIGTERM twice"]
HEADER = ["fault", "promise that holds", "lost", "test"]


def tables():
    """{section: [[cell, …] of each row]} of the README."""
    found, section = {}, None
    for line in (FAULT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("|"):
            found.setdefault(section, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def rows():
    return [(section, row) for section, table in tables().items() for row in table[2:]]


def test_each_section_is_a_table_of_the_same_four_columns():
    found = tables()
    assert list(found) == ["Worker", "Daemon", "Database", "Nodes and guard", "Reload and upgrade"]
    assert [name for name, table in found.items() if table[0] != HEADER or len(table) < 3] == []
    assert [row for _, row in rows() if len(row) != 4 or "" in row] == []


def test_what_can_befall_a_worker_and_the_daemon_is_there():
    missing = [(section, fault) for section, faults in (("Worker", WORKER), ("Daemon", DAEMON)) for fault in faults
               if not any(where == section and re.search(rf"(^|, ){re.escape(fault)}\b", row[0]) for where, row in rows())]
    assert missing == []


def test_each_row_names_tests_that_there_are():
    wrong = []
    for _, row in rows():
        for word in row[-1].split(", "):
            named = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", word)
            file = FAULT / named[1] if named else None
            if not named or not file.exists() or not re.search(rf"^def {named[2]}\(", file.read_text(), re.M):
                wrong.append(f"{row[0]}: {word}")
    assert wrong == []
