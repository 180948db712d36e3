#!/usr/bin/python3
"""No row stops another: the long form of fault/test_poison.py. Each poison meets each statement that it concerns, by itself,
and the table of the longest waits of a neighbour is printed.

    JOBQ_BUILD_DIR=$PWD/build /usr/bin/python3 tests/soak/poison.py [--statement REGEX] [--poison REGEX] [--limit S]

Exits with 1 when a cell failed. A failed cell prints what was wrong; --logs prints the nodes' logs and the server's, too.
Cells with a * hold a lock that defeats the fence, or that of a whole table: those whose lock it is may wait for as long.
"""

import argparse
import pathlib
import re
import shutil
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from harness import schema  # noqa: E402
from harness.arena import QUIET, Arena, Cell, Limits  # noqa: E402
from harness.pg import Cluster  # noqa: E402
from harness.poisons import POISONS  # noqa: E402
from harness.statements import STATEMENTS  # noqa: E402


def cells(wanted):
    for statement in STATEMENTS.values():
        if not re.search(wanted.statement, statement.name):
            continue
        poisons = [p for p in POISONS.values() if statement.takes(p) and re.search(wanted.poison, p.name)
                   and (wanted.long or not p.long)]
        if wanted.together:
            for some in statement.together():
                some = [poison for poison in some if poison in poisons]
                yield from [(statement, some)] if some else []
        else:
            yield from ((statement, [poison]) for poison in poisons)


def table(waits):
    """A row a poison, a column a statement."""
    columns = [name for name in STATEMENTS if any(name == statement for statement, _ in waits)]
    rows = [name for name in POISONS if any(name == poison for _, poison in waits)]
    width = max(map(len, rows), default=0)
    lines = [f"{number:>3}  {name}" for number, name in enumerate(columns, 1)]
    lines.append(" " * width + "".join(f"{number:>7}" for number in range(1, len(columns) + 1)))
    for row in rows:
        lines.append(f"{row:<{width}}" + "".join(f"{waits.get((column, row), '·'):>7}" for column in columns))
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--statement", default="", metavar="REGEX")
    options.add_argument("--poison", default="", metavar="REGEX")
    options.add_argument("--limit", type=float, default=QUIET.neighbour_s, metavar="S", help="how long a neighbour may wait")
    options.add_argument("--rest", type=float, default=10, metavar="S", help="until the poisoned job is named and rests")
    options.add_argument("--long", action="store_true", help="what takes long, or a gigabyte of the server's memory, too")
    options.add_argument("--together", action="store_true", help="all poisons of a statement at once")
    options.add_argument("--logs", action="store_true", help="show the logs of a cell that failed")
    options.add_argument("--log-level", default="info")
    wanted = options.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-poison."))
    cluster = Cluster().start()
    limits = Limits(wanted.limit, QUIET.command_s, wanted.rest)
    template = cluster.create_database("poison_template")
    schema.migrate(template)
    arena = Arena(cluster, template, str(schema.build_folder() / "jobqd" / "jobqd"), folder, limits, wanted.log_level)
    waits, failed, began = {}, 0, time.monotonic()
    try:
        arena.start()
        for statement, poisons in cells(wanted):
            cell, cell_began = Cell(arena, statement, poisons), time.monotonic()
            try:
                longest, fault = cell.run(), None
            except AssertionError as caught:
                longest, fault = cell.longest_s, str(caught)
            took = time.monotonic() - cell_began
            name = f"{statement.name} x {', '.join(p.name for p in poisons)}"
            print(f"{'FAIL' if fault else 'ok  '} {longest:6.2f} s  {name}  ({took:.1f} s)", flush=True)
            for poison in poisons:
                mark = "*" if poison.fence or poison.family == "lock-node" else ""
                waits[statement.name, poison.name] = "FAIL" if fault else f"{longest:.2f}{mark}"
            if fault:
                failed += 1
                print("     " + fault.replace("\n", "\n     "), flush=True)
                if wanted.logs:
                    print("--- log of the nodes\n" + cell.new_log() + "\n--- log of the server\n" + arena.server_log()[-5000:]
                          + "\n--- state\n" + arena.state())
                arena.renew()
        print(table(waits))
        print(f"{len(waits)} cells in {time.monotonic() - began:.0f} s, longest wait of a neighbour in each, in s;"
              f" {failed} failed; limit {limits.neighbour_s} s")
        if failed == 0:
            arena.close()
        return 1 if failed else 0
    finally:
        arena.drop()
        cluster.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
