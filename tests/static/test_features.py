"""The README's table of features tells the truth: each of our own rows links to a test that there is."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ["jobq", "Oban", "River", "graphile-worker", "pg-boss"]
LINK = re.compile(r'\[[^\]]+\]\((tests/[\w/]+\.(?:py|c))(?: "(test_\w+)")?\)')


def rows():
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Compared with other queues\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_table_has_a_column_for_each():
    table = rows()
    assert table[0] == ["", *PEERS]
    assert len(table) > 25
    assert [row for row in table if len(row) != 6 or "" in row[1:]] == []


def test_each_row_of_ours_names_a_test_that_there_is():
    wrong = []
    for what, ours, *_ in rows()[2:]:
        link = LINK.fullmatch(ours)
        if ours == "to come":
            continue
        source = ROOT / link[1] if link else None
        if not source or not source.is_file():
            wrong.append((what, ours))
        elif link[2] and not re.search(rf"^def {link[2]}\(", source.read_text(encoding="utf-8"), re.M):
            wrong.append((what, link[2]))
    assert wrong == []
