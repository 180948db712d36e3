"""The embedded database, as a user meets it: `jobqd run --embedded DIR` and commands with --embedded."""

import os
import pathlib
import pwd
import re
import signal
import subprocess

import psycopg
import pytest

from harness.daemon import clean_environment
from harness.waiting import wait_for

QUEUE = {"default": {"exec": "/bin/true"}}


@pytest.fixture
def embedded(home, jobqd):
    """Starts jobqd on an embedded database: embedded() → the daemon, with its uri. (home comes first: fixtures end in
    reverse order, and a folder is removed only when nobody writes to it any more.)"""
    def start(folder=home / "db", ready=True, **more):
        daemon = jobqd(None, QUEUE, args=["--embedded", str(folder)], ready=False, **more)
        if ready:
            daemon.uri = daemon.wait_ready()
        return daemon
    return start


def as_user(user):
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def value(uri, sql):
    with psycopg.connect(uri, autocommit=True) as conn:
        return conn.execute(sql).fetchone()[0]


def servers(folder):
    """Pids of the server processes whose working directory is the cluster's."""
    data = os.path.realpath(folder / "data")
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == data:
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def postmaster(folder):
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def snapshot(folder):
    """Everything below a folder: what a refused start must not change."""
    return {str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in [folder, *sorted(folder.rglob("*"))]}


@pytest.fixture
def refusal(jobqd_program, tmp_path):
    """What a `jobqd run` that must not start says."""
    conf = tmp_path / "refused.conf"
    conf.write_text("[queue default]\nexec = /bin/true\n")

    def run(folder, **env):
        done = subprocess.run([jobqd_program, "run", "-c", str(conf), "--embedded", str(folder)],
                              env=clean_environment(**env), capture_output=True, text=True, timeout=60)
        assert done.returncode > 0, done.stderr
        return done.stderr
    return run


def test_first_start_makes_a_migrated_database_and_the_second_finds_it_again(embedded, home, cli):
    daemon = embedded()
    assert value(daemon.uri, "SELECT jobq.enqueue('noop')") == 1
    wait_for(lambda: value(daemon.uri, "SELECT state::text FROM jobq.all_jobs") == "completed")
    assert daemon.stop() == 0
    assert servers(home / "db") == []
    again = embedded()
    assert again.uri == daemon.uri == (home / "db" / "uri").read_text().strip()
    assert value(again.uri, "SELECT count(*) FROM jobq.all_jobs") == 1


def test_psql_takes_the_uri_from_root_and_from_the_clusters_user(embedded, home):
    daemon = embedded()
    owner = pwd.getpwuid((home / "db" / "data").stat().st_uid)
    # Pasted into a shell, in an environment that means to lead libpq elsewhere.
    command = f"psql {daemon.uri} -Atc 'SELECT current_user'"
    env = clean_environment(PGPORT="1", PGHOST="/nowhere", PGUSER="nobody", PGDATABASE="none")
    assert subprocess.check_output(["sh", "-c", command], env=env, text=True, cwd="/") == "jobq\n"
    if os.geteuid() != 0:
        return
    assert owner.pw_uid != 0
    as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--init-groups"]
    assert subprocess.check_output([*as_owner, "sh", "-c", command], env=env, text=True, cwd="/") == "jobq\n"
    as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    other = subprocess.run([*as_other, "sh", "-c", command], env=env, text=True, cwd="/", capture_output=True)
    assert other.returncode != 0 and "Permission denied" in other.stderr


@pytest.mark.root
def test_who_called_sudo_can_connect(embedded, home):
    caller, other = pwd.getpwnam("games"), pwd.getpwnam("mail")

    def connects(daemon, user):
        done = subprocess.run([*as_user(user), "psql", daemon.uri, "-Atc", "SELECT current_user"], capture_output=True,
                              text=True, cwd="/", check=False)
        assert (done.returncode == 0) == (done.stdout == "jobq\n"), done.stderr
        return done.returncode == 0

    daemon = embedded(env={"SUDO_UID": str(caller.pw_uid), "SUDO_USER": caller.pw_name})
    assert connects(daemon, caller) and not connects(daemon, other)
    # Through the socket's directory by their group, but the server knows who they are.
    in_group = subprocess.run(["setpriv", f"--reuid={other.pw_uid}", f"--regid={caller.pw_gid}", "--clear-groups", "psql",
                               daemon.uri, "-c", "SELECT 1"], capture_output=True, text=True, cwd="/")
    assert in_group.returncode != 0 and "Peer authentication failed" in in_group.stderr
    assert daemon.stop() == 0
    again = embedded(env={"SUDO_UID": "0x5"})
    assert not connects(again, caller) and value(again.uri, "SELECT 1") == 1


@pytest.mark.root
def test_started_by_an_ordinary_user_root_can_connect_too(jobqd_program, for_anyone, home):
    user, other = pwd.getpwnam("games"), pwd.getpwnam("mail")
    jobqd_program = for_anyone(jobqd_program)
    (home / "db").mkdir()
    os.chown(home / "db", user.pw_uid, user.pw_gid)
    command = [jobqd_program, "enqueue", "noop", "--embedded", str(home / "db")]
    env = clean_environment(HOME=str(home))
    assert subprocess.check_output([*as_user(user), *command], env=env, text=True, cwd="/") == "1\n"
    conf = home / "jobqd.conf"
    conf.write_text("[queue other]\nexec = /bin/true\n")
    with subprocess.Popen([*as_user(user), jobqd_program, "run", "-c", str(conf), "--embedded", str(home / "db")], env=env,
                          cwd="/", stderr=subprocess.PIPE, text=True) as daemon:
        try:
            uri = next(line for line in daemon.stderr if " ready database=" in line).split("database=")[1].strip()
            assert (home / "db" / "data").stat().st_uid == user.pw_uid
            psql = ["psql", uri, "-Atc", "SELECT count(*) FROM jobq.jobs"]
            assert subprocess.check_output(psql, text=True, cwd="/") == "1\n"
            assert subprocess.check_output([*as_user(user), *psql], text=True, cwd="/") == "1\n"
            assert subprocess.run([*as_user(other), *psql], capture_output=True, cwd="/", check=False).returncode != 0
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)
    assert daemon.returncode == 0


def test_a_second_signal_hurries_the_server(embedded, home):
    """A checkpoint may take long; the log has all that it would write."""
    daemon = embedded()
    server = postmaster(home / "db")
    assert value(daemon.uri, "SELECT jobq.enqueue('later', scheduled_at => now() + interval '1 day')") == 1
    os.kill(server, signal.SIGSTOP)
    try:
        daemon.signal(signal.SIGTERM)
        daemon.wait_log("draining: ")

        def hurried():
            daemon.signal(signal.SIGTERM)
            return "stopping the embedded database now" in daemon.log()
        wait_for(hurried)
    finally:
        os.kill(server, signal.SIGCONT)
    assert daemon.wait() == 0
    assert "received immediate shutdown request" in (home / "db" / "postgres.log").read_text()
    again = embedded()
    assert value(again.uri, "SELECT count(*) FROM jobq.jobs") == 1


def test_the_environment_of_another_server_does_not_matter(embedded):
    env = {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "/nowhere", "PGUSER": "nobody", "PGOPTIONS": "-c jit=on"}
    daemon = embedded(env=env)
    assert value(daemon.uri, "SELECT 1") == 1


def test_a_killed_server_is_started_again_and_no_job_is_lost(embedded, home):
    daemon = embedded()
    for jobs in (100, 200, 300):
        value(daemon.uri, "SELECT count(jobq.enqueue('noop')) FROM generate_series(1, 100)")
        os.kill(postmaster(home / "db"), signal.SIGKILL)
        wait_for(lambda: daemon.log().count("is up in") == jobs // 100 + 1)

        def all_done():
            try:
                return value(daemon.uri, "SELECT count(*) FROM jobq.all_jobs WHERE state = 'completed'") == jobs
            except psycopg.OperationalError:
                return False
        wait_for(all_done, 60)
    daemon.wait_log(r"was killed by signal 9 \(Killed\)")


def test_kill_9_of_jobqd_leaves_no_server_and_the_next_starts_at_once(embedded, home):
    for count in range(1, 4):
        daemon = embedded()
        assert value(daemon.uri, "SELECT jobq.enqueue('noop')") == count
        assert len(servers(home / "db")) > 1
        daemon.kill()
    wait_for(lambda: not servers(home / "db"))
    last = embedded()
    wait_for(lambda: value(last.uri, "SELECT count(*) FROM jobq.all_jobs WHERE state = 'completed'") == 3, 60)


def test_kill_9_while_it_is_being_made(embedded, home):
    daemon = embedded(ready=False)
    daemon.wait_log("creating a new PostgreSQL")
    daemon.kill()
    assert not (home / "db" / "data").exists()
    again = embedded()
    assert value(again.uri, "SELECT 1") == 1
    assert not (home / "db" / "data.new").exists()


def test_a_second_jobqd_on_the_same_directory_is_refused(embedded, home, refusal):
    daemon = embedded()
    said = refusal(home / "db")
    assert f"another jobqd (process {daemon.pid}) is running this database" in said
    assert value(daemon.uri, "SELECT 1") == 1


def test_foreign_directories_are_refused_and_not_touched(home, refusal):
    folder = home / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("meow")
    before = snapshot(folder)
    assert "not empty (it holds cat.jpg) and not created by jobqd" in refusal(folder)
    assert snapshot(folder) == before

    (folder / "PG_VERSION").write_text("15\n")
    before = snapshot(folder)
    assert "a Postgres data directory that jobqd did not create" in refusal(folder)
    assert snapshot(folder) == before
    assert "not a directory" in refusal(folder / "cat.jpg")
    assert "cannot use its parent folder" in refusal(home / "no" / "such")


def test_a_broken_cluster_is_refused_and_not_touched(embedded, home, refusal):
    folder = home / "db"
    assert embedded().stop() == 0
    (folder / "data" / "global" / "pg_control").rename(folder / "data" / "global" / "away")
    before = snapshot(folder)
    assert "is not a complete cluster (no global/pg_control); nothing was changed" in refusal(folder)
    assert snapshot(folder) == before
    (folder / "data" / "global" / "away").rename(folder / "data" / "global" / "pg_control")
    assert value(embedded().uri, "SELECT 1") == 1


def test_a_cluster_of_another_major_version_is_refused_and_not_touched(embedded, home, refusal):
    folder = home / "db"
    assert embedded().stop() == 0
    (folder / "data" / "PG_VERSION").write_text("12\n")
    before = snapshot(folder)
    said = refusal(folder, JOBQ_PG_BINDIR="")  # which would be the only place that is looked at
    assert "no server binaries of PostgreSQL 12, which the cluster needs" in said
    assert "install postgresql-12" in said and "never upgrades a cluster by itself" in said
    assert snapshot(folder) == before


def test_without_server_binaries_it_says_what_to_install(home, refusal, tmp_path):
    said = refusal(home / "db", JOBQ_PG_BINDIR=str(tmp_path))
    assert f"JOBQ_PG_BINDIR={tmp_path} does not contain initdb and postgres" in said
    assert not (home / "db").exists()


@pytest.mark.root
def test_a_folder_that_the_unprivileged_user_may_not_enter(home, refusal):
    home.chmod(0o700)
    assert "are the folders above it open to everyone?" in refusal(home / "db")


def test_commands_start_the_database_for_themselves_and_stop_it(cli, home):
    args = ["--embedded", home / "db"]
    assert cli("enqueue", "noop", *args).stdout == "1\n"
    assert servers(home / "db") == []
    assert "available" in cli("jobs", *args).stdout
    assert servers(home / "db") == []


def test_commands_beside_each_other_take_turns(jobqd_program, home):
    started = [subprocess.Popen([jobqd_program, "enqueue", "noop", "--embedded", str(home / "db")],
                                env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(6)]
    outcomes = [process.communicate(timeout=120) for process in started]
    assert sorted(out for out, _ in outcomes) == [f"{n}\n" for n in range(1, 7)], "".join(err for _, err in outcomes)
    assert servers(home / "db") == []


def test_commands_use_the_database_of_a_running_jobqd(embedded, home, cli):
    daemon = embedded()
    assert cli("enqueue", "noop", "--embedded", home / "db").stdout == "1\n"
    assert value(daemon.uri, "SELECT 1") == 1
    assert daemon.log().count("is up in") == 1


def test_ctrl_c_in_the_terminal_reaches_jobqd_first(embedded, home):
    daemon = embedded()
    group = {os.getpgid(pid) for pid in servers(home / "db")}
    assert os.getpgid(daemon.pid) not in group
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert not re.search(r"went down", daemon.log())
