"""The code of the READMEs, to be run as it stands: by tests, and by tests/fresh.sh on a new machine.

    python3 tests/harness/readme.py PART [--sudo]    a script for bash, see PARTS
    python3 tests/harness/readme.py PART --prints    the lines that the README says it prints
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAIN = ROOT / "README.md"
PYTHON = ROOT / "bindings" / "python" / "README.md"
#: What is for root. Elsewhere the READMEs say: sudo in front.
FOR_ROOT = re.compile(r"^(?=apt-get |cmake --install |ldconfig)", re.M)


def blocks(text):
    """(language, code), in their order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)


def section(title, page=MAIN):
    return page.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


#: By name: the text, and which of its blocks (all, where it is None).
PARTS = {
    "quickstart": lambda: (section("See it work"), 0),
    "tests": lambda: (section("See it work"), 1),
    "install": lambda: (section("Build and install"), None),
    "tutorial": lambda: (section("Two minutes", PYTHON), None),
}


def script(found, sudo=False):
    """Commands of shell blocks, line by line; other blocks are files, named by a comment on their first line."""
    parts = []
    for language, code in found:
        if language == "sh":
            parts.append(FOR_ROOT.sub("sudo ", code) if sudo else code)
        else:
            name = re.match(r"[#;] (\S+)\n", code)[1]
            parts.append(f"cat >{name} <<'END OF {name}'\n{code}END OF {name}\n")
    return "".join(parts)


def part(name, sudo=False):
    text, index = PARTS[name]()
    found = blocks(text)
    return script(found if index is None else [found[index]], sudo)


def prints(name):
    """What the README says the part prints: `code` behind the word "prints" at a line's start."""
    return re.findall(r"^prints `(.*?)`", PARTS[name]()[0], re.M)


def main(name, option=None):
    if name not in PARTS or option not in (None, "--sudo", "--prints"):
        print(__doc__, file=sys.stderr)
        return 64
    print("\n".join(prints(name)) if option == "--prints" else part(name, option == "--sudo"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]) if len(sys.argv) > 1 else main(""))
