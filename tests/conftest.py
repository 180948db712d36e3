"""Fixtures of the integration and fault tests. What they do is in harness/; README.md shows their use."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import uuid

import pytest

from harness import schema, trap
from harness.daemon import SANITIZER_REPORT, Daemon, clean_environment
from harness.pg import Cluster, Database, in_memory
from harness.timelimit import limited


def pytest_addoption(parser):
    parser.addoption("--keep-dirs", action="store_true", help="leave the private servers' directories behind")


# Under nohup, or in the background of a script, these are ignored, by all that the tests start as well.
for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# Their own queries fall into the trap.
FRAMEWORKS = re.compile("sqlalchemy|asyncpg")


def pytest_collection_modifyitems(config, items):
    """What needs root is left out for an ordinary user, and not skipped: a test that is skipped counts as failed."""
    left_out = {name for name, wanted in (("root", os.geteuid() != 0), ("untrapped", trap.WANTED)) if wanted}
    out = [item for item in items if any(item.get_closest_marker(name) for name in left_out)
           or (trap.WANTED and FRAMEWORKS.search(item.name.partition("[")[2]))]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the log of each daemon and of the server."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name, log in getattr(item, "jobq_logs", []):
            text = log()
            report.sections.append((name, text if len(text) < 40000 else "...\n" + text[-40000:]))


def show_on_failure(request, name, log):
    if not hasattr(request.node, "jobq_logs"):
        request.node.jobq_logs = []
    request.node.jobq_logs.append((name, log))


@pytest.fixture(autouse=True)
def time_limit(request):
    """No test hangs the run: 300 s, or what @pytest.mark.limit(seconds) says."""
    marker = request.node.get_closest_marker("limit")
    with limited(marker.args[0] if marker else 300):
        yield


@pytest.fixture(scope="session")
def build():
    """The build tree under test: JOBQ_BUILD_DIR, else build/ of the checkout."""
    folder = schema.build_folder()
    assert folder.is_dir(), f"JOBQ_BUILD_DIR: {folder} is no directory"
    return folder


@pytest.fixture(scope="session")
def programs(build):
    """Path of a test program by name: programs("noop_worker")."""
    def path(name):
        program = build / "tests" / name
        assert program.exists(), f"{program} is not built"
        return str(program)
    return path


@pytest.fixture(scope="session")
def jobqd_program(build):
    program = build / "jobqd" / "jobqd"
    assert program.exists(), f"{program} is not built"
    return str(program)


@pytest.fixture(scope="session")
def jobqd_next(build):
    """jobqd as its next release may be: with the step of tests/migrations."""
    return str(build / "tests" / "jobqd_next")


@pytest.fixture
def for_anyone():
    """for_anyone(program): a copy where every user may run it. The checkout may be closed to others, as root's home is."""
    with tempfile.TemporaryDirectory(prefix="jobq-open-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield lambda program: shutil.copy(program, pathlib.Path(folder))


@pytest.fixture
def home():
    """A short path that the unprivileged user may enter, for an embedded database (pytest's own folders are closed to it)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-emb-", dir=in_memory()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(request):
    """The session's private server, fsync off."""
    cluster = Cluster(where=in_memory()).start()
    yield cluster
    cluster.stop() if request.config.getoption("--keep-dirs") else cluster.remove()


@pytest.fixture(scope="session")
def template(postgres):
    """A migrated database that nobody connects to: copying it takes 30 ms, migrating takes longer."""
    database = postgres.create_database("jobq_template")
    schema.migrate(database)
    postgres.check_trap()
    return database


@pytest.fixture
def empty_db(request, postgres):
    """A fresh database without the schema."""
    yield from fresh_database(request, postgres, "template1")


@pytest.fixture
def db(request, postgres, template):
    """A fresh, migrated database."""
    yield from fresh_database(request, postgres, template.name)


def fresh_database(request, postgres, template):
    start = postgres.log_size()
    show_on_failure(request, "postgres log", lambda: postgres.log(start))
    database = postgres.create_database(f"t_{uuid.uuid4().hex[:12]}", template)
    yield database
    database.drop()
    postgres.check_trap(start)


@pytest.fixture
def cluster(request):
    """A private server for this test alone, with fsync on, to be stopped, killed and started: cluster.db is a
    migrated database on it. @pytest.mark.postgres(setting="value") sets what the server starts with."""
    marker = request.node.get_closest_marker("postgres")
    server = Cluster(fsync=True, where=in_memory(), settings=marker.kwargs if marker else None)
    try:
        show_on_failure(request, "postgres log", server.log)
        server.start()
        server.db = server.create_database("jobq_test")
        schema.migrate(server.db)
        yield server
        server.check_trap()
    finally:
        server.remove()


@pytest.fixture
def cli(jobqd_program):
    """Runs a jobqd command to its end: cli("enqueue", "resize", "{}", db=db). Returns subprocess's result, with
    stdout and stderr as text; the exit code must be `code` (None: any)."""
    def run(*args, db=None, code=0, env=None, input="", timeout=120, cwd=None, preexec=None, program=jobqd_program):
        database = ["--database", db.uri] if isinstance(db, Database) else []
        done = subprocess.run([program, *map(str, args), *database], input=input, capture_output=True, text=True,
                              timeout=timeout, env=clean_environment(**(env or {})), cwd=cwd, preexec_fn=preexec)
        assert not SANITIZER_REPORT.search(done.stderr), done.stderr
        assert code is None or done.returncode == code, \
            f"jobqd {' '.join(map(str, args))}: exit {done.returncode}, expected {code}\n{done.stdout}{done.stderr}"
        return done
    return run


def as_daemon(database):
    """The address that daemons are given: the superuser's, or that of a mere member of jobq_daemon, JOBQ_TEST_DAEMON_ROLE."""
    name = os.environ.get("JOBQ_TEST_DAEMON_ROLE")
    if not name:
        return database.uri
    if not database.value("SELECT count(*) FROM pg_roles WHERE rolname = %s", [name]):
        database.query(f"CREATE ROLE {name} LOGIN IN ROLE jobq_daemon")
    return database.uri.replace("//admin@", f"//{name}@")


@pytest.fixture
def jobqd(request, jobqd_program, tmp_path):
    """Starts daemons: jobqd(db, {"default": {"command": programs("noop_worker")}}, lease="2s"). Keyword
    arguments are keys of [jobqd]; node is the name node1, node2, … unless given; env adds to the environment, args
    to the command line, program is another jobqd than the tree's, output (a function of the log's path) gives what its log
    is written to, ready=False does not wait. Each is stopped at the end of the test (unless the test did)
    and must have exited with its expected_exit (0), without a process left."""
    started = []

    def start(database, queues, env=None, args=(), ready=True, program=jobqd_program, output=None, **settings):
        folder = tmp_path / f"node{len(started) + 1}"
        folder.mkdir()
        uri = as_daemon(database) if isinstance(database, Database) else database
        daemon = Daemon(program, folder, uri, queues, settings, env, args)
        show_on_failure(request, f"log of {folder.name}", daemon.log)
        started.append(daemon)
        return daemon.start(ready, output=output(daemon.logfile) if output else None)

    yield start
    faults = []
    for daemon in started:
        try:
            daemon.finish()
        except AssertionError as fault:
            faults.append(str(fault))
            daemon.abandon()
    assert not faults, "\n".join(faults)
