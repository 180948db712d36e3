"""The daemon's statements by name, from the files of jobqd/sql: cut and filled in as jobqd/embed.cmake does it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "jobqd" / "sql", ROOT / "jobqd" / "sql" / "hot")
PARTS = (ROOT / "jobqd" / "sql" / "parts", ROOT / "migrations" / "schema" / "parts")


def part(file):
    """The text of a part: without its opening comment and its last newline."""
    return re.sub(r"\A(?:--.*\n|\n)+", "", file.read_text()).rstrip("\n")


def cut(file):
    """{name: text} of one file."""
    text = "\n" + file.read_text()
    _, *pieces = re.split(r"\n-- name: (\w+)(?=\n)", text)
    if not pieces:
        return {file.stem: text[1:]}
    return {name: body.strip("\n") + "\n" for name, body in zip(pieces[::2], pieces[1::2])}


def statements():
    parts = {file.stem: part(file) for folder in PARTS for file in folder.glob("*.sql")}
    found = {name: text for folder in FOLDERS for file in folder.glob("*.sql") for name, text in cut(file).items()}
    while any(f"@{name}@" in text for name in parts for text in found.values()):
        for name, text in parts.items():
            found = {key: value.replace(f"@{name}@", text) for key, value in found.items()}
    return found


def statement(name, **words):
    """One of them, for the schema jobq; words: what else is filled in, such as limit=64."""
    text = statements()[name]
    for word, value in {"schema": "jobq", "channel": "jobq", **words}.items():
        text = text.replace(f"@{word}@", str(value))
    return text
