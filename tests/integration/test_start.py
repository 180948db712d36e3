"""What stands in jobqd's way at its start, and trying again does not mend, ends it at once, with a code and words for whoever starts
it. While it runs, the same is a state; and so is, at the start too, what passes by itself."""

import re

import pytest

from harness.waiting import wait_for

PERMISSION, UNAVAILABLE = 77, 69


@pytest.fixture
def role(db):
    """A role of a jobqd's, with a password that the server asks for."""
    db.query("CREATE ROLE runner LOGIN PASSWORD 'right'")
    db.query("GRANT jobq_daemon TO runner")
    hba = db.cluster.data / "pg_hba.conf"
    was = hba.read_text()
    hba.write_text("local all runner scram-sha-256\nlocal nowhere stranger trust\nlocal all admin trust\n")
    db.query("SELECT pg_reload_conf()")
    yield "runner"
    hba.write_text(was)
    db.query("SELECT pg_reload_conf()")
    db.query("DROP OWNED BY runner")
    db.query("DROP ROLE runner")


def as_runner(db, password="right"):
    return db.uri.replace("admin@", f"runner:{password}@")


def ends(jobqd, uri, code, words):
    """jobqd ends by itself, with that code, and says so."""
    node = jobqd(uri, {"default": {"exec": "/bin/true"}}, ready=False)
    node.expected_exit = code
    assert node.wait() == code
    assert re.search(rf"ERROR jobqd: {words}", node.log()), node.log()
    return node


CASES = {
    "a wrong password": (lambda db: as_runner(db, "wrong"), PERMISSION,
                         'cannot connect to the database: .*password authentication failed for user "runner": fix the password'),
    "an unknown role": (lambda db: db.uri.replace("admin@", "nobody-here@"), PERMISSION,
                        'cannot connect to the database: .*no pg_hba.conf entry for .*"nobody-here".*: fix the role'),
    "no such database": (lambda db: db.uri.replace(db.name, "nowhere"), UNAVAILABLE,
                         'cannot connect to the database: .*database "nowhere" does not exist: create it'),
}


@pytest.mark.parametrize("case", CASES)
def test_it_ends_at_the_start(db, role, jobqd, case):
    uri, code, words = CASES[case]
    node = ends(jobqd, uri(db), code, words)
    assert not re.search(r"LOCATION|\b(28P01|28000|3D000)\b", node.log())


@pytest.mark.parametrize("case", CASES)
def test_a_command_ends_alike(db, role, cli, case):
    uri, code, words = CASES[case]
    done = cli("queues", "--database", uri(db), code=code)
    assert re.search(words.removeprefix("cannot connect to the database: "), done.stderr), done.stderr
    assert done.stderr.count("\n") == 1 and not re.search(r"LOCATION|\b(28P01|28000|3D000)\b", done.stderr)


def test_a_role_without_connect_ends_it(db, role, jobqd):
    db.query(f'REVOKE CONNECT ON DATABASE "{db.name}" FROM PUBLIC')
    ends(jobqd, as_runner(db), PERMISSION, "cannot connect to the database: .*permission denied for database .*: as its owner: GRANT CONNECT")


def test_a_role_without_rights_ends_it(db, role, jobqd):
    db.query("REVOKE jobq_daemon FROM runner")
    ends(jobqd, as_runner(db), PERMISSION, ".*permission denied for .*: its role lacks privileges; .*jobqd migrate grant")


def test_a_schema_that_is_not_there_ends_it(empty_db, jobqd):
    ends(jobqd, empty_db.uri, UNAVAILABLE, ".*jobqd migrate up")


def test_while_it_runs_it_is_a_state(db, role, jobqd):
    """A password that was changed, a role that was locked out: jobs wait, and go on when it is mended."""
    node = jobqd(as_runner(db), {"default": {"exec": "/bin/true"}})
    db.query("ALTER ROLE runner PASSWORD 'another'")
    db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runner'")
    node.wait_log('database: unavailable.*password authentication failed for user "runner"')
    job = db.enqueue("a")
    db.query("ALTER ROLE runner PASSWORD 'right'")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", (job,)) == 1)
    assert node.running


def test_what_passes_is_waited_for(cluster, jobqd):
    """A server that is down, and one that is read-only."""
    db = cluster.db
    db.query(f'ALTER DATABASE "{db.name}" SET default_transaction_read_only = on')
    cluster.stop()
    node = jobqd(db, {"default": {"exec": "/bin/true"}}, ready=False)
    node.wait_log(r"WARNING database: not reachable \(running no jobs, retrying\): ")
    cluster.start()
    node.wait_log("read-only")
    with db.connect() as conn:
        conn.execute("SET default_transaction_read_only = off")
        conn.execute(f'ALTER DATABASE "{db.name}" RESET default_transaction_read_only')
    node.wait_log("ready database=")


def test_a_database_that_stays_away_is_said_again(cluster, jobqd):
    """At the start and while it runs, as an error once it has lasted; a minute is 100 ms here."""
    minute = {"JOBQ_TEST_AWAY_MS": "100"}
    cluster.stop()
    node = jobqd(cluster.db, {"default": {"exec": "/bin/true"}}, ready=False, env=minute)
    node.wait_log(r"WARNING database: not reachable \(running no jobs, retrying\): ")
    node.wait_log(r"(?s)(ERROR database: not reachable for \d\S* m?s \(running no jobs, retrying\): .*){3}")
    assert "running jobs continue" not in node.log()
    cluster.start()
    node.wait_log("INFO database: reached")
    node.wait_log("ready database=")
    cluster.stop("immediate")
    node.wait_log(r"WARNING database: unavailable \(running jobs continue\): ")
    node.wait_log(r"ERROR database: unavailable for \d\S* m?s \(running jobs continue\): ")
    cluster.start()
    node.wait_log("database: available again")


def test_a_predecessor_without_jobs_is_no_warning(db, jobqd):
    node = jobqd(db, {"default": {"exec": "/bin/true"}}, lease="1s")
    node.kill()
    node.expected_exit = 0
    node.start()
    node.wait_log("INFO node: node1 replaces a dead node of the same name, which held no jobs$")
    assert "dead node" not in "".join(node.complaints())
