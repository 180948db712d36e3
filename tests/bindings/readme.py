"""The code of the package's README, by section."""

from harness import readme
from harness.readme import PYTHON, ROOT, blocks


def section(title):
    return readme.section(title, PYTHON)


def recipe(name):
    """The blocks of a recipe, up to the next."""
    return blocks(section("Recipes").split(f"\n**{name}**")[1].split("\n\n**")[0])
