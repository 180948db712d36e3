#!/usr/bin/python3
"""Two nodes never run a job at the same time: the long form of fault/test_overlap.py, an hour's worth of leases (240 of the
default 15 s) at one second each.

    JOBQ_BUILD_DIR=$PWD/build /usr/bin/python3 tests/soak/overlap.py [--leases 240] [--lease 1] [--seed N] [--unfenced]

Prints what happened; exits with 1 when two runs of a job overlapped or a job was lost. --unfenced: with the fences down,
which must fail.
"""

import argparse
import pathlib
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from harness import overlap, schema  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.ledger import Ledger  # noqa: E402
from harness.pg import Cluster  # noqa: E402


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--leases", type=float, default=240, help="for how many leases the nodes are in trouble")
    options.add_argument("--lease", type=float, default=1, help="seconds of a lease, at least 1")
    options.add_argument("--seed", type=int, help="of the trouble, to have the same again")
    options.add_argument("--unfenced", action="store_true", help="with the fences down: must fail")
    wanted = options.parse_args()
    build = schema.build_folder()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-overlap."))
    cluster = Cluster().start()
    nodes = []

    def start_node(uri, queues, lease):
        home = folder / f"node{len(nodes) + 1}"
        home.mkdir()
        env = {"JOBQ_TEST_UNFENCED": "1"} if wanted.unfenced else None
        nodes.append(Daemon(build / "jobqd" / "jobqd", home, uri, queues, {"lease": lease}, env, ()))
        return nodes[-1].start()

    try:
        db = cluster.create_database("overlap")
        schema.migrate(db)
        print(overlap.run(db, f"{cluster.dir}/.s.PGSQL.5432", start_node, Ledger(folder / "ledger"),
                          str(build / "tests" / "ledger_worker"), wanted.leases * wanted.lease, wanted.lease, wanted.seed,
                          say=lambda line: print(line, flush=True)))
        return 0
    except AssertionError as fault:
        print(f"FAILED: {fault}\nthe ledger and the logs are in {folder}")
        return 1
    finally:
        for node in nodes:
            node.abandon()
        cluster.remove()


if __name__ == "__main__":
    sys.exit(main())
