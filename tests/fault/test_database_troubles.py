"""The database is there, but refuses writes, or does not let us in. jobqd stays up, says why in so many words, and goes
on by itself when the trouble is over. Running jobs do not notice."""

import re
import signal
import urllib.parse

import psycopg
import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.pg import SUPERUSER, Cluster, Database
from harness.waiting import wait_for

JOBS = 1500


def work(programs, ledger, most_us=8000):
    return {"default": {"command": ledger.command(programs("ledger_worker"), 100, most_us), "concurrency": 4}}


def address(db, user=SUPERUSER, password="", hosts=None, **more):
    """The database's address with more than Database.uri says."""
    options = {"host": ",".join(map(str, hosts or [db.cluster.dir])), **more}
    secret = f":{urllib.parse.quote(password)}" if password else ""
    return f"postgresql://{user}{secret}@/{db.name}?{urllib.parse.urlencode(options)}"


def check_unharmed(db, ledger, ids, node):
    """Each job ran once, under one and the same node: the lease was kept, and no attempt was counted that did not run."""
    wait_all_finished(db, len(ids))
    assert not check_completed(db, ledger, ids)
    assert len(ledger.runs) == len(ids)
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 1
    assert node.running


def end_connections(db):
    """Ends jobqd's backends; returns when they are gone."""
    sql = "FROM pg_stat_activity WHERE application_name LIKE 'jobqd %%'"
    db.query(f"SELECT pg_terminate_backend(pid) {sql}")
    wait_for(lambda: not db.value(f"SELECT count(*) {sql}"))


# ---- read only ----

def set_read_only(db, word):
    db.query(f"ALTER SYSTEM SET default_transaction_read_only = {word}")
    db.query("SELECT pg_reload_conf()")


def test_a_server_turns_read_only_and_takes_writes_again(cluster, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    node = jobqd(db, work(programs, ledger), lease="60s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 200)
    set_read_only(db, "on")
    node.wait_log("running jobs continue\\): .*session is read-only")
    set_read_only(db, "off")
    check_unharmed(db, ledger, ids, node)


@pytest.mark.postgres(log_connections="on")
def test_a_server_is_read_only_for_longer_than_the_lease(cluster, jobqd, programs, ledger):
    """The lease cannot be renewed, and no new one had. It tries on, at its pace, and says it once."""
    db = cluster.db
    watch_nodes(db)
    node = jobqd(db, work(programs, ledger), lease="1s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 200)
    set_read_only(db, "on")
    node.wait_log("must stop its jobs: the lease could not be renewed in time")
    start, said = cluster.log_size(), node.log().count("database: ")

    def tries():
        return cluster.log(start).count("application_name=jobqd control")
    wait_for(lambda: tries() >= 5)
    assert node.log().count("database: ") - said <= 1, "a line a try"
    node.wait_log("database: unavailable.*read-only")
    set_read_only(db, "off")
    wait_all_finished(db, JOBS)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}
    assert node.log().count("available again") == node.log().count("database: unavailable (")
    assert node.running


def test_a_standby_takes_over_when_the_primary_s_host_dies(cluster, jobqd, programs, ledger):
    """Replication is synchronous, so that what was confirmed is there. The standby is found by the address alone."""
    db = cluster.db
    watch_nodes(db)
    standby = Cluster(fsync=True, standby_of=cluster)
    try:
        standby.start()
        db.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        db.query("SELECT pg_reload_conf()")
        wait_for(lambda: db.value("SELECT sync_state FROM pg_stat_replication") == "sync")
        node = jobqd(address(db, hosts=[cluster.dir, standby.dir]), work(programs, ledger), lease="60s")
        ids = enqueue_crowd(db, JOBS)
        wait_ended(ledger, 300)
        cluster.kill_all()
        node.wait_log("database: unavailable \\(running jobs continue")
        node.wait_log("database: .*session is read-only")
        assert ledger.read().ended < JOBS
        standby.promote()
        check_unharmed(Database(standby, db.name), ledger, ids, node)
        node.wait_log("database: available again")
    finally:
        standby.remove()


# ---- no connection to be had ----

@pytest.fixture
def role(cluster):
    """A role that is no superuser but may do all that the schema's owner may: reserved connections are not for it."""
    cluster.db.query(f"CREATE ROLE limited LOGIN IN ROLE {SUPERUSER}")
    return "limited"


NO_ROOM = "connection slots are reserved|too many clients"


def take_all_connections(db, role):
    held = []
    try:
        while True:
            held.append(db.connect(user=role))
    except psycopg.OperationalError as error:
        assert re.search(NO_ROOM, str(error)), error
    return held


@pytest.mark.postgres(max_connections="14")
def test_others_have_taken_all_connections(cluster, role, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    ids = enqueue_crowd(db, JOBS)
    others = take_all_connections(db, role)
    node = jobqd(address(db, role), work(programs, ledger), lease="60s", ready=False)
    node.wait_log(f"database: not reachable.*({NO_ROOM})")
    for other in others:
        other.close()
    node.wait_ready()

    # Its connections are taken while it is not looking.
    wait_ended(ledger, 200)
    node.signal(signal.SIGSTOP)
    end_connections(db)
    others = take_all_connections(db, role)
    node.signal(signal.SIGCONT)
    # Which of the two it is depends on whether it read or wrote first.
    node.wait_log("database: unavailable \\(running jobs continue\\): (terminating connection|server closed the connection)")
    node.wait_log(f"database: still unavailable: .*({NO_ROOM})")
    for other in others:
        other.close()
    check_unharmed(db, ledger, ids, node)


@pytest.mark.parametrize("name", ["work", "maintenance"])
def test_one_of_its_connections_finds_no_room(cluster, role, jobqd, programs, ledger, name):
    """The others go on; what is missing is said."""
    db = cluster.db
    watch_nodes(db)
    node = jobqd(address(db, role), work(programs, ledger), lease="60s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 200)
    backends = "FROM pg_stat_activity WHERE usename = %s"
    wait_for(lambda: db.value(f"SELECT count(*) {backends}", (role,)) == 4)
    db.query(f"ALTER ROLE {role} CONNECTION LIMIT 3")
    db.query(f"SELECT pg_terminate_backend(pid) {backends} AND application_name = %s", (role, f"jobqd {name}"))
    node.wait_log(f"database: without the {name} connection.*running jobs continue\\): .*too many connections for role")
    db.query(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    node.wait_log(f"database: the {name} connection is back")
    check_unharmed(db, ledger, ids, node)
    assert "database: unavailable" not in node.log()


def test_a_leader_without_its_house_connection_gives_way(cluster, role, jobqd, programs, ledger):
    """It cannot stage, so another node has to."""
    db = cluster.db
    leader = "SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id WHERE l.expires_at > now()"
    one = jobqd(address(db, role), work(programs, ledger), lease="2s", node="one")
    wait_for(lambda: db.value(leader) == "one")
    two = jobqd(address(db), work(programs, ledger), lease="2s", node="two")
    db.query(f"ALTER ROLE {role} CONNECTION LIMIT 3")
    db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
             "WHERE usename = %s AND application_name = 'jobqd maintenance'", (role,))
    wait_for(lambda: db.value(leader) == "two")
    one.wait_log("leader: this node is no longer the leader")
    db.query(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    one.wait_log("database: the maintenance connection is back")
    two.stop()
    wait_for(lambda: db.value(leader) == "one")


# ---- the password ----

@pytest.fixture
def secret(cluster, role):
    """Sets the role's password, and from the first time on asks for it."""
    hba = cluster.data / "pg_hba.conf"

    def change(word):
        cluster.db.query("SET password_encryption = 'scram-sha-256'")  # PostgreSQL 13's default is another one
        cluster.db.query(f"ALTER ROLE {role} PASSWORD '{word}'")
        rule = f"local all {role} scram-sha-256\n"
        if rule not in hba.read_text():
            hba.write_text(rule + hba.read_text())
            cluster.db.query("SELECT pg_reload_conf()")
            with pytest.raises(psycopg.OperationalError, match="no password"):
                wait_for(lambda: cluster.db.connect(user=role).close())
    return change


@pytest.mark.parametrize("remedy", ["a new passfile", "the old password"])
def test_the_password_is_changed(cluster, role, secret, jobqd, programs, ledger, tmp_path, remedy):
    """A password file is read at each try; a password in the address is as good as the server's."""
    db = cluster.db
    watch_nodes(db)
    passfile = tmp_path / "passfile"

    def write_passfile(word):
        passfile.touch(mode=0o600)
        passfile.write_text(f"*:*:*:{role}:{word}\n")

    write_passfile("first-secret")
    secret("first-secret")
    by_file = remedy == "a new passfile"
    uri = address(db, role, passfile=passfile) if by_file else address(db, role, password="first-secret")
    node = jobqd(uri, work(programs, ledger), lease="60s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 200)
    secret("second-secret")
    end_connections(db)
    node.wait_log(f'database: still unavailable: .*password authentication failed for user "{role}"')
    if by_file:
        write_passfile("second-secret")
    else:
        secret("first-secret")
    check_unharmed(db, ledger, ids, node)
    node.wait_log("database: available again")
    assert "-secret" not in node.log()
