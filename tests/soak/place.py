"""What the scripts of this folder share: a private server, daemons, and figures on stdout."""

import argparse
import contextlib
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import schema  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.pg import Cluster  # noqa: E402


def arguments(about, **numbers):
    """The command line: --NAME N for each number, with its default. JOBQ_BUILD_DIR says which tree is tried."""
    parser = argparse.ArgumentParser(description=about)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}")
    return parser.parse_args()


def program(name):
    path = schema.build_folder() / ("jobqd/jobqd" if name == "jobqd" else f"tests/{name}")
    if not path.exists():
        sys.exit(f"{path} is not built")
    return str(path)


def figure(name, value):
    print(f"{name:<44} {value}", flush=True)


class Place:
    """A server of our own, and databases and daemons on it."""

    def __init__(self, folder, cluster):
        self.folder = folder
        self.cluster = cluster
        self._count = 0

    def database(self):
        self._count += 1
        database = self.cluster.create_database(f"soak_{self._count}")
        schema.migrate(database)
        return database

    @contextlib.contextmanager
    def jobqd(self, database, queues, env=None, **settings):
        """A daemon that is ready; it must end with exit code 0, nothing left behind. Its log is shown if it does not."""
        self._count += 1
        folder = self.folder / f"node{self._count}"
        folder.mkdir()
        daemon = Daemon(program("jobqd"), folder, database.uri, queues, settings, env, ()).start()
        try:
            yield daemon
            daemon.finish()
        except BaseException:
            print(daemon.log()[-20000:], file=sys.stderr)
            daemon.abandon()
            raise


@contextlib.contextmanager
def place(fsync=False, settings=None):
    with tempfile.TemporaryDirectory(prefix="jobq-soak-") as folder:
        cluster = Cluster(fsync=fsync, settings=settings).start()
        try:
            yield Place(pathlib.Path(folder), cluster)
        finally:
            cluster.remove()
