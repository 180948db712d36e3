"""The README's code, by section."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "bindings" / "python" / "README.md").read_text()


def blocks(text):
    """(language, code), in their order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)


def section(title):
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def recipe(name):
    """The blocks of a recipe, up to the next."""
    return blocks(section("Recipes").split(f"\n**{name}**")[1].split("\n\n**")[0])
