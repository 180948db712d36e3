"""Fixtures of the integration and fault tests. What they do is in harness/; README.md shows their use."""

import signal
import subprocess
import uuid

import pytest

from harness import schema
from harness.daemon import SANITIZER_REPORT, Daemon, clean_environment
from harness.pg import Cluster, Database


def pytest_addoption(parser):
    parser.addoption("--keep-dirs", action="store_true", help="leave the private servers' directories behind")


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
    seconds = marker.args[0] if marker else 300

    def on_alarm(number, frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


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
def postgres(request):
    """The session's private server, fsync off."""
    cluster = Cluster().start()
    yield cluster
    cluster.stop() if request.config.getoption("--keep-dirs") else cluster.remove()


@pytest.fixture(scope="session")
def template(postgres):
    """A migrated database that nobody connects to: copying it takes 30 ms, migrating takes longer."""
    database = postgres.create_database("jobq_template")
    schema.migrate(database)
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


@pytest.fixture
def cluster(request):
    """A private server for this test alone, with fsync on, to be stopped, killed and started: cluster.db is a
    migrated database on it. @pytest.mark.postgres(setting="value") sets what the server starts with."""
    marker = request.node.get_closest_marker("postgres")
    server = Cluster(fsync=True, settings=marker.kwargs if marker else None)
    try:
        show_on_failure(request, "postgres log", server.log)
        server.start()
        server.db = server.create_database("jobq_test")
        schema.migrate(server.db)
        yield server
    finally:
        server.remove()


@pytest.fixture
def cli(jobqd_program):
    """Runs a jobqd command to its end: cli("enqueue", "resize", "{}", db=db). Returns subprocess's result, with
    stdout and stderr as text; the exit code must be `code` (None: any)."""
    def run(*args, db=None, code=0, env=None, input="", timeout=120, cwd=None):
        database = ["--database", db.uri] if isinstance(db, Database) else []
        done = subprocess.run([jobqd_program, *map(str, args), *database], input=input, capture_output=True, text=True,
                              timeout=timeout, env=clean_environment(**(env or {})), cwd=cwd)
        assert not SANITIZER_REPORT.search(done.stderr), done.stderr
        assert code is None or done.returncode == code, \
            f"jobqd {' '.join(map(str, args))}: exit {done.returncode}, expected {code}\n{done.stdout}{done.stderr}"
        return done
    return run


@pytest.fixture
def jobqd(request, jobqd_program, tmp_path):
    """Starts daemons: jobqd(db, {"default": {"command": programs("noop_worker")}}, lease="2s"). Keyword
    arguments are keys of [jobqd]; node is the name node1, node2, … unless given; env adds to the environment, args
    to the command line, program is another jobqd than the tree's, ready=False does not wait. Each is stopped at the end of the test (unless the test did)
    and must have exited with its expected_exit (0), without a process left."""
    started = []

    def start(database, queues, env=None, args=(), ready=True, program=jobqd_program, **settings):
        folder = tmp_path / f"node{len(started) + 1}"
        folder.mkdir()
        uri = database.uri if isinstance(database, Database) else database
        daemon = Daemon(program, folder, uri, queues, settings, env, args)
        show_on_failure(request, f"log of {folder.name}", daemon.log)
        started.append(daemon)
        return daemon.start(ready)

    yield start
    faults = []
    for daemon in started:
        try:
            daemon.finish()
        except AssertionError as fault:
            faults.append(str(fault))
            daemon.abandon()
    assert not faults, "\n".join(faults)
