"""Runs a command beside a private server with a migrated database, for the unit tests:

    JOBQ_BUILD_DIR=build python3 tests/harness/with_database.py -- ctest --test-dir build

The schema is made by that tree's jobqd. The database's connection string is in JOBQ_TEST_DATABASE. Exits with the command's exit code.
"""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import schema  # noqa: E402
from harness.daemon import clean_environment  # noqa: E402
from harness.pg import Cluster, in_memory  # noqa: E402


def main(arguments):
    if len(arguments) < 2 or arguments[0] != "--":
        sys.exit("usage: with_database.py -- COMMAND [ARGUMENT...]")
    cluster = Cluster(where=in_memory())
    try:
        cluster.start()
        database = cluster.create_database("jobq_unit")
        schema.migrate(database)
        # The sanitizers' options are the caller's business: a unit test is meant to be caught by them.
        environment = {k: v for k, v in clean_environment().items() if k not in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}
        environment |= {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ}
        environment["JOBQ_TEST_DATABASE"] = database.conninfo
        start = cluster.log_size()
        code = subprocess.run(arguments[1:], env=environment).returncode
        cluster.check_trap(start)
        return code
    finally:
        cluster.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
