"""The Markdown tells the truth: its links lead somewhere, the files, presets and targets that it names exist, each folder's
README names every file of the folder, and no line has more than 100 columns."""

import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Where a path in a README may begin, beside its own folder and those above.
BASES = [ROOT, ROOT / "jobqd", ROOT / "tests", ROOT / "include"]
SUFFIXES = r"(?:c|h|py|sh|sql|scd|cmake|md)"
# What stands for a name of your own.
PLACEHOLDER = re.compile(r"NAME|NNNN|TOPIC")
PATH = re.compile(rf"`([\w.{{}},-]+(?:/[\w.{{}},-]+)+\.(?:{SUFFIXES}|{{c,h}}))`")
NAME = re.compile(rf"`([\w-]+\.(?:{SUFFIXES}|{{c,h}}))`")
LINK = re.compile(r'\]\(([^)\s]+)(?: "[^"]*")?\)')


def pages():
    """All Markdown of the source, relative to its root."""
    found = [file.relative_to(ROOT) for file in ROOT.rglob("*.md")]
    return sorted(file for file in found if not any(part.startswith((".", "build", "venv")) for part in file.parts))


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page):
    """Without blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M)


def rows_of(page):
    return [line for line in prose_of(page).splitlines() if line.startswith("|")]


def expanded(name):
    """worker.{c,h} -> worker.c, worker.h"""
    braces = re.search(r"\{([\w,]+)\}", name)
    return [name] if not braces else [name.replace(braces[0], part) for part in braces[1].split(",")]


def names_of(file):
    """By which a table may call it: in tests without its suffix, a fuzz target without its prefix."""
    stem = file.rsplit(".", 1)[0]
    return {stem, stem.removeprefix("fuzz_")}


def folders():
    """Each folder of C files that has a README for those who work on it, and the tests' own."""
    found = {file.parent for file in pages() if file.name == "README.md"}
    return sorted(folder for folder in found if folder.parts[:1] and folder.parts[0] in ("libjobq", "jobqd", "tests")
                  and folder != pathlib.Path("jobqd/quickstart") and files_of(folder))


def files_of(folder):
    """What its README must name: C, and in tests Python."""
    suffixes = (".c", ".py") if folder.parts[0] == "tests" else (".c",)
    skipped = ("conftest.py", "__init__.py")
    return {file.name for file in (ROOT / folder).iterdir() if file.suffix in suffixes and file.name not in skipped}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_no_line_is_longer_than_100_columns(page):
    """But rows of tables, which Markdown cannot break, and lines that are one long address."""
    long = [f"{page}:{number}: {len(line)}" for number, line in enumerate(text_of(page).splitlines(), 1)
            if len(line) > 100 and not line.startswith("|") and not re.fullmatch(r"\W*\S+://\S+", line)]
    assert long == []


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_each_link_leads_somewhere(page):
    broken = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", prose_of(page))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.relative_to(ROOT))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in pages() if page.name != "CHANGELOG.md"], ids=str)
def test_each_file_that_is_named_is_there(page):
    """A changelog may name what is gone."""
    bases = [ROOT / folder for folder in page.parents] + BASES
    names = {file.name for base in ("libjobq", "jobqd", "include", "tests") for file in (ROOT / base).rglob("*.[ch]")}
    missing = [name for found in PATH.findall(prose_of(page)) for name in expanded(found)
               if not PLACEHOLDER.search(name) and not any((base / name).exists() for base in bases)]
    if page.parts[0] in ("libjobq", "jobqd", "tests") or page.parent == pathlib.Path("."):
        missing += [name for found in NAME.findall(prose_of(page)) for name in expanded(found)
                    if re.search(r"\.[ch]$", name) and name not in names]
    assert missing == []


def in_private_headers(folder, named):
    """A row that names a private header stands for the files of that name that the header lists: producer_private.h for
    producer_….c."""
    headers = [name for name in named if name.endswith("_private.h") and (ROOT / folder / name).exists()]
    return {name for header in headers
            for name in re.findall(rf"\b{header.removesuffix('private.h')}\w+\.c\b", (ROOT / folder / header).read_text())}


@pytest.mark.parametrize("folder", folders(), ids=str)
def test_a_folder_s_readme_names_its_files_and_no_others(folder):
    page = folder / "README.md"
    cells = {row.strip("|").split("|")[0].strip() for row in rows_of(page)}
    words = {word for span in re.findall(r"`([^`]+)`", prose_of(page)) for word in re.split(r"::|/", span)}
    named = {name for found in NAME.findall("\n".join(rows_of(page))) for name in expanded(found)
             if name.endswith((".c", ".h"))}
    told = named | words | cells | in_private_headers(folder, named)
    stems = {file.rsplit(".", 1)[0] for file in files_of(folder)}
    gone = {name for name in named if not (ROOT / folder / name).exists()}
    if folder in map(pathlib.Path, ("tests/unit", "tests/integration", "tests/static")):
        gone |= {word for word in words if re.fullmatch(r"test_\w+", word)} - stems
    assert {"not named": {file for file in files_of(folder) if not {file, *names_of(file)} & told},
            "not there": gone} == {"not named": set(), "not there": set()}


def test_each_room_is_in_the_table_of_rooms():
    linked = re.findall(r"^\| \[(\w+)\]\(\1/README\.md\)", text_of("jobqd/README.md"), re.M)
    rooms = {file.parent.name for file in (ROOT / "jobqd").glob("*/*.c")} - {"quickstart"}
    assert set(linked) == rooms and len(linked) == len(rooms)


def test_each_function_of_the_walk_is_there():
    source = "\n".join(file.read_text(encoding="utf-8") for folder in ("libjobq", "jobqd")
                       for file in (ROOT / folder).rglob("*.c"))
    named = re.findall(r"`(\w+)\(\)`", text_of("ARCHITECTURE.md"))
    assert len(named) > 8
    assert [name for name in named if not re.search(rf"^{name}\(", source, re.M)] == []


def test_architecture_is_a_page():
    assert len(text_of("ARCHITECTURE.md").splitlines()) <= 130


# ---- presets and targets ----

PRESETS = json.loads((ROOT / "CMakePresets.json").read_text())
NAMES = [preset["name"] for preset in PRESETS["configurePresets"] if not preset.get("hidden")]


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """configured(preset) -> what cmake said, and the tree."""
    def configure(preset):
        tree = tmp_path_factory.mktemp(preset)
        done = subprocess.run(["cmake", "--preset", preset, "-B", tree], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return tree
    return configure


def test_the_release_preset_configures(configured):
    configured("release")


def test_the_dev_preset_has_the_targets_of_a_contributor(configured):
    """lint and coverage are there where their programs are."""
    done = subprocess.run(["cmake", "--build", configured("dev"), "--target", "help"], check=True, capture_output=True,
                          text=True)
    targets = set(re.findall(r"^(\w+):", done.stdout, re.M))
    assert {"check", "format", "test_pool_crashes"} <= targets


def test_contributing_names_each_preset():
    assert re.findall(r"^\| `(\w+)` \|", text_of("CONTRIBUTING.md"), re.M) == NAMES
    assert {preset["configurePreset"] for preset in PRESETS["buildPresets"]} <= set(NAMES)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_each_preset_and_target_that_is_named_is_there(page):
    text = text_of(page)
    lists = "\n".join(file.read_text() for file in [ROOT / "CMakeLists.txt", *(ROOT / "tests").rglob("CMakeLists.txt")])
    targets = set(re.findall(r"add_custom_target\((\w+)", lists))
    assert set(re.findall(r"cmake --build .*--target (\w+)", text)) - targets == set()
    assert set(re.findall(r"--preset (\w+)", text)) - set(NAMES) == set()
    assert set(re.findall(r"--build build-(\w+)", text)) - set(NAMES) == set()
