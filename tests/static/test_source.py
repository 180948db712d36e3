"""Rules of the source that a compiler does not check: who may include what, and the house format."""

import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Each room uses only those before it; db and proc, and embedded and pool, stand side by side.
ROOMS = ["pure", "base", "config", "db", "proc", "upgrade", "pool", "actors", "embedded", "cli", "daemon", "commands", "bench"]
APART = [("db", "proc"), ("proc", "db"), ("pool", "db"), ("embedded", "pool"), ("embedded", "actors"), ("bench", "commands"),
         ("bench", "daemon"), ("bench", "actors"), ("bench", "pool")]
# Programs on the installed library, as a user's would be: the rules of layers and includes are not for them.
APPLICATIONS = ROOT / "jobqd" / "quickstart"
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.M)


def sources(*folders, suffixes=(".c", ".h")):
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*"))
            if file.suffix in suffixes and not any(part.startswith("build") for part in file.relative_to(ROOT).parts)]


def includes(file):
    return INCLUDE.findall(file.read_text())


def violations(files, forbidden):
    """`file: include` of each include for which forbidden(file, include) is true."""
    return [f"{file.relative_to(ROOT)} includes {name}" for file in files if APPLICATIONS not in file.parents
            for name in includes(file) if forbidden(file, name)]


def test_each_room_of_jobqd_includes_only_rooms_below_it():
    def goes_up(file, name):
        mine = file.relative_to(ROOT / "jobqd").parts[0]
        target = re.match(r"jobqd/(\w+)/", name)
        return (mine in ROOMS and target is not None and target[1] in ROOMS
                and (ROOMS.index(target[1]) > ROOMS.index(mine) or (mine, target[1]) in APART))
    assert violations(sources("jobqd"), goes_up) == []
    assert {file.parent.name for file in sources("jobqd", suffixes=(".c",)) if APPLICATIONS not in file.parents} - set(ROOMS) == {"jobqd"}


def code_of(file):
    """Its text without comments and literals."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", file.read_text(), flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def circles(arrows):
    """Tarjan's strongly connected components of more than one node."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in arrows.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]
    for node in list(arrows):
        if node not in index:
            visit(node)
    return found


def calls(files):
    """{file: files whose functions it calls, or whose data it names}, of what is not static."""
    texts = {str(file.relative_to(ROOT)): code_of(file) for file in files}
    functions, data = {}, {}
    for file, text in texts.items():
        for match in re.finditer(r"^(?!static\b|extern\b|typedef\b)[a-z][\w ]*[\w*]\n(\w+)\(", text, re.M):
            functions[match[1]] = file
        for match in re.finditer(r"^(?!static\b|extern\b|typedef\b)(?:const )?struct \w+ (\w+)(?:\[\])? = ", text, re.M):
            data[match[1]] = file
    assert len(functions) > 500 and len(data) > 10
    return {file: {functions[word] for word in set(re.findall(r"(?<![\w.>])(\w+)\(", text)) & functions.keys()} - {file}
            | {data[word] for word in set(re.findall(r"(?<![\w.>])\w+", text)) & data.keys()} - {file} for file, text in texts.items()}


@pytest.mark.parametrize("folder", ["libjobq", "jobqd"])
def test_no_two_files_call_each_other_in_a_circle(folder):
    files = [file for file in sources("libjobq", "jobqd", suffixes=(".c",)) if APPLICATIONS not in file.parents and file.name != "main.c"]
    arrows = calls(files)
    assert [circle for circle in circles(arrows) if circle[0].startswith(folder)] == []


def test_the_search_for_circles_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}) == [["a", "b", "c"]]


def test_the_library_knows_nothing_of_the_daemon():
    assert violations(sources("libjobq", "include"), lambda file, name: name.startswith(("jobqd/", "uv"))) == []


def test_the_pure_layer_knows_neither_the_loop_nor_the_database():
    assert violations(sources("jobqd/pure"), lambda file, name: name in ("uv.h", "libpq-fe.h")) == []


def test_every_fork_of_the_daemon_is_noted():
    """Or reaper_reap_orphans would take the end of a child that somebody waits for. Bench runs in no daemon."""
    forks = re.compile(r"^[^*/]*\b(?:fork|vfork|posix_spawnp?|clone|uv_spawn)\(", re.M)
    wrong = [str(file.relative_to(ROOT)) for file in sources("jobqd", suffixes=(".c",))
             if forks.search(file.read_text()) and not file.name.startswith("bench_")
             and APPLICATIONS not in file.parents and "reaper_note(" not in file.read_text()]
    assert wrong == []


# Who builds documents as trees: whole rooms, and single files of those that are also the way of each job.
TREES = ("jobqd/base/jsontree.c", "jobqd/config/", "jobqd/commands/", "jobqd/bench/", "jobqd/daemon/queues_describe.c", "jobqd/pool/pool.c",
         "jobqd/actors/hooks_declare.c", "jobqd/actors/hooks_story.c", "jobqd/actors/settled.c")
# cJSON itself: the one writer, and who reads a tree.
CJSON = {"jobqd/base/jsontree.h", "jobqd/actors/failures.c", "jobqd/config/unique_by.c"}


def test_documents_are_trees_and_the_hot_path_knows_none():
    """A job's args and result are the user's bytes: a double would corrupt them. The library depends on libpq alone."""
    def wrong(file, name):
        where = str(file.relative_to(ROOT))
        return ("cjson" in name.lower() and where not in CJSON
                or name == "jobqd/base/jsontree.h" and not where.startswith(TREES))
    assert violations(sources("libjobq", "include", "jobqd"), wrong) == []
    assert "cjson" not in (ROOT / "libjobq" / "CMakeLists.txt").read_text().lower()


def puts_members(literal):
    """Whether a literal of C holds a piece of a JSON object. A whole object is a constant or an example."""
    def shown(match):
        try:
            json.loads(match[0])
        except ValueError:
            return match[0]
        return ""
    text = re.sub(r"\{[^{}]*\}", shown, literal[1:-1].replace('\\"', '"'))
    return re.search(r'":(?! )|[{,]\s*"\w+":', text) is not None


def test_pieces_of_json_are_told_from_words_and_examples():
    assert all(map(puts_members, [r'"{\"id\":%s}\n"', r'",\"pid\":"', r'"\":"', r'"{\"width\": %u}"', r'",\n\"nodes\":"']))
    assert not any(map(puts_members, [r'"--%s: \"%s\" is no time"', r'"field \"%s\": must be"', r'"\": "', r'"{\"n\": 123}"', r'"as in: \'{\"a\":7}\'"']))


def test_nobody_else_writes_json_by_hand():
    by_hand = {"jobqd/base/log.c",  # a line of the log
               "libjobq/wire_put.c", "libjobq/session.c",  # frames of the protocol
               "libjobq/many.c", "libjobq/unique.c", "libjobq/testing_drain.c"}  # parameters of statements
    strings = by_hand | {"libjobq/buf.c", "libjobq/worker.c", "libjobq/testing_match.c", "jobqd/base/escape.c",
                         "jobqd/daemon/daemon_rollout.c",  # a text by itself is a parameter
                         "jobqd/pure/cron.c"}  # quotes a word in a message
    pieces, quoting = set(), set()
    for file in sources("libjobq", "jobqd", suffixes=(".c",)):
        if APPLICATIONS in file.parents:
            continue
        text = re.sub(r"/\*.*?\*/", " ", file.read_text(), flags=re.S)
        if any(map(puts_members, re.findall(r'"(?:\\.|[^"\\\n])*"', text))):
            pieces.add(str(file.relative_to(ROOT)))
        if re.search(r"\b\w+_(?:put|add)_json_string\(", text):
            quoting.add(str(file.relative_to(ROOT)))
    assert pieces == by_hand
    assert quoting <= strings, quoting - strings


def test_only_the_client_row_and_connection_layers_include_libpq():
    allowed = {"libjobq/" + name for name in ("client.c", "row.h", "sql.h", "array.h")}

    def wrong(file, name):
        where = str(file.relative_to(ROOT))
        return name == "libpq-fe.h" and where not in allowed and not where.startswith(
            ("jobqd/db/", "jobqd/cli/", "jobqd/bench/", "jobqd/commands/"))
    assert violations(sources("libjobq", "include", "jobqd"), wrong) == []


def test_public_headers_include_public_headers_alone():
    def wrong(file, name):
        return not name.startswith("jobq/") and name not in ("stdint.h", "stddef.h", "stdbool.h")
    assert violations(sources("include"), wrong) == []


def test_house_format():
    files = sources("libjobq", "include", "jobqd", "tests", suffixes=(".c", ".h"))
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, files)], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_functions_are_at_most_80_lines():
    long = []
    for file in sources("libjobq", "jobqd", "tests", suffixes=(".c",)):
        start = name = None
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if re.match(r"[a-z_].*\(", line) and not line.rstrip().endswith(";"):
                start, name = number, line
            elif line == "}" and start:
                if number - start > 80:
                    long.append(f"{file.relative_to(ROOT)}:{start}: {number - start} lines: {name}")
                start = None
    assert long == []


def test_a_backslash_stands_in_no_plain_literal_of_sql():
    """What it means there depends on standard_conforming_strings, which is the caller's; in E'' it always means the same."""
    literal = re.compile(r"--[^\n]*|([Ee]?)'((?:[^'\\]|\\.|'')*)'", re.S)
    wrong = [f"{file.relative_to(ROOT)}: '{match[2]}'" for file in sources("migrations", "jobqd/sql", suffixes=(".sql",))
             for match in literal.finditer(file.read_text()) if match[2] and "\\" in match[2] and not match[1]]
    assert wrong == []


def test_a_handler_of_all_errors_names_assert_failure():
    """OTHERS leaves out ASSERT, which a trigger of the user's may say, too."""
    wrong = [f"{file.relative_to(ROOT)}: {match[0]}" for file in sources("migrations", "jobqd/sql", suffixes=(".sql",))
             for match in re.finditer(r"\bWHEN\s+[^;']*?\bTHEN\b", re.sub(r"--.*", "", file.read_text()))
             if re.search(r"\bOTHERS\b", match[0]) and "assert_failure" not in match[0]]
    assert wrong == []


def test_every_folder_tells_what_it_is():
    folders = {file.parent for file in sources("libjobq", "include", "jobqd", "tests")} | {ROOT / "migrations", ROOT / "tests"}
    tops = {ROOT / folder.relative_to(ROOT).parts[0] for folder in folders}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(tops) if not (folder / "README.md").exists()] == []


COMPILERS = {"C99": ["cc", "-std=c99", "-x", "c"], "C++": ["c++", "-std=c++11", "-x", "c++"]}


@pytest.mark.parametrize("language", COMPILERS)
@pytest.mark.parametrize("header", sources("include"), ids=lambda file: file.name)
def test_a_public_header_compiles_alone(language, header):
    done = subprocess.run([*COMPILERS[language], "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I",
                           str(ROOT / "include"), "-"], input=f'#include "{header.relative_to(ROOT / "include")}"\nextern int not_empty;\n',
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
