"""Everything behind pgbouncer in transaction mode: what applications call, what operators call, and a daemon with notify = off.
There, one session is many clients', LISTEN is lost, and what a transaction sets is gone with it."""

import json
import subprocess

import psycopg
import pytest

from harness.daemon import clean_environment
from harness.schema import ROOT
from harness.waiting import wait_for


@pytest.fixture
def pooled(db, pgbouncer):
    """The database's address behind the pooler."""
    return pgbouncer(db)


@pytest.fixture
def app(db, pgbouncer_for_sql):
    """An application's connection through the pooler."""
    with psycopg.connect(pgbouncer_for_sql(db), autocommit=True, prepare_threshold=None) as conn:
        yield conn


def value(conn, sql, params=None):
    row = conn.execute(sql, params).fetchone()
    return row[0] if row is not None else None


def job_of(conn, state):
    """A job in that state, made without a daemon."""
    job = value(conn, "SELECT jobq.enqueue('k', '{\"user\": 7}', queue => 'mail')")
    if state == "executing":
        conn.execute("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1, attempted_at = now()"
                     " WHERE id = %s", (job,))
    elif state == "cancelled":
        conn.execute("SELECT jobq.cancel(%s)", (job,))
    return job


def state_of(conn, job):
    return value(conn, "SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,))


# ---- what is called ----

def enqueue(conn):
    job = value(conn, "SELECT jobq.enqueue('k', '{\"n\": 1}', priority => 3, unique_key => 'one')")
    assert value(conn, "SELECT jobq.enqueue('k', unique_key => 'one')") == job
    return "available", job


def enqueue_many(conn):
    jobs = [row[0] for row in conn.execute("SELECT jobq.enqueue_many('[{\"kind\": \"k\"}, {\"kind\": \"k\", \"priority\": 1}]')")]
    assert len(set(jobs)) == 2
    return "available", jobs[0]


UNIQUE = "unique_by => '{\"fields\": [\"kind\", \"args\"], \"period\": 60}'"


def try_enqueue(conn):
    job, conflict = conn.execute(f"SELECT * FROM jobq.try_enqueue('k', '{{\"n\": 1}}', {UNIQUE})").fetchone()
    assert conflict is None
    assert conn.execute(f"SELECT * FROM jobq.try_enqueue('k', '{{\"n\": 1}}', {UNIQUE})").fetchone() == (job, "ignored")
    assert conn.execute("SELECT * FROM jobq.try_enqueue('k', '{\"n\": 1}', priority => 7, on_conflict => 'replace',"
                        f" replace => '[\"priority\"]', {UNIQUE})").fetchone() == (job, "replaced")
    assert value(conn, "SELECT priority FROM jobq.jobs WHERE id = %s", (job,)) == 7
    return "available", job


def try_enqueue_many(conn):
    (one, _), (other, conflict) = conn.execute(
        "SELECT * FROM jobq.try_enqueue_many('[{\"kind\": \"k\", \"unique_key\": \"one\"},"
        " {\"kind\": \"k\", \"unique_key\": \"one\"}]')").fetchall()
    assert one == other and conflict == "ignored"
    return "available", one


def cancel(conn):
    job = job_of(conn, "available")
    assert value(conn, "SELECT jobq.cancel(%s)", (job,)) is True
    return "cancelled", job


def retry(conn):
    job = job_of(conn, "cancelled")
    assert value(conn, "SELECT jobq.retry(%s)", (job,)) is True
    return "available", job


def complete(conn):
    job = job_of(conn, "executing")
    conn.execute("SELECT jobq.complete(%s, 1, '{\"done\": true}')", (job,))
    assert value(conn, "SELECT result FROM jobq.finished_jobs WHERE id = %s", (job,)) == {"done": True}
    return "completed", job


def pause(conn):
    assert value(conn, "SELECT jobq.pause('mail')") is True
    assert value(conn, "SELECT paused FROM jobq.queues WHERE name = 'mail'") is True


def resume(conn):
    conn.execute("SELECT jobq.pause('mail')")
    assert value(conn, "SELECT jobq.resume('mail')") is True
    assert not value(conn, "SELECT paused FROM jobq.queues WHERE name = 'mail'")


def scale(conn):
    assert value(conn, "SELECT jobq.scale('mail', 7)") is True
    assert value(conn, "SELECT concurrency FROM jobq.queues WHERE name = 'mail'") == 7


def cancel_many(conn):
    job = job_of(conn, "available")
    assert value(conn, "SELECT jobq.cancel_many('{\"queue\": \"mail\"}')") == 1
    return "cancelled", job


def retry_many(conn):
    job = job_of(conn, "cancelled")
    assert value(conn, "SELECT jobq.retry_many('{\"queue\": \"mail\"}')") == 1
    return "available", job


def delete_many(conn):
    job = job_of(conn, "available")
    assert value(conn, "SELECT jobq.delete_many('{\"queue\": \"mail\"}')") == 1
    return None, job


def delete(conn):
    job = job_of(conn, "cancelled")
    assert value(conn, "SELECT jobq.delete(%s)", (job,)) is True
    return None, job


def purge(conn):
    job = job_of(conn, "cancelled")
    assert value(conn, "SELECT jobq.purge('{\"user\": 7}')") == 1
    return None, job


def wait(conn):
    job = job_of(conn, "cancelled")
    assert conn.execute("CALL jobq.wait(%s, '1 s')", (job,)).fetchone()[0] == "cancelled"
    return "cancelled", job


def cron_next(conn):
    assert value(conn, "SELECT jobq.cron_next('30 2 * * *', '2026-03-29T00:00:00Z', 'Europe/Stockholm')"
                       " = '2026-03-29T01:00:00Z'") is True
    assert value(conn, "SELECT current_setting('timezone') = reset_val FROM pg_settings WHERE name = 'TimeZone'") is True


def cron_set(conn):
    conn.execute("SELECT jobq.cron_set('nightly', '0 3 * * *', 'k', timezone => 'Europe/Stockholm')")
    assert value(conn, "SELECT next_at > now() FROM jobq.crons WHERE name = 'nightly'") is True


def cron_pause(conn):
    cron_set(conn)
    assert value(conn, "SELECT jobq.cron_pause('nightly')") is True


def cron_resume(conn):
    cron_pause(conn)
    assert value(conn, "SELECT jobq.cron_resume('nightly')") is True


def cron_delete(conn):
    cron_set(conn)
    conn.execute("SELECT jobq.cron_delete('nightly')")
    assert value(conn, "SELECT count(*) FROM jobq.crons") == 0


def cron_run(conn):
    cron_set(conn)
    return "available", value(conn, "SELECT jobq.cron_run('nightly')")


CALLS = {call.__name__: call for call in [
    enqueue, enqueue_many, try_enqueue, try_enqueue_many, cancel, retry, complete, pause, resume, scale, cancel_many, retry_many,
    delete_many, delete, purge, wait, cron_next, cron_set, cron_pause, cron_resume, cron_delete, cron_run]}
# What one may call only because others of these, or a plain INSERT, do.
WITHIN = {"_queue_attempts", "_default_attempts", "_readable", "_utc", "_ago", "_in_zone", "_time_of", "_next_position", "_standing", "_unique_hash",
          "version"}


def test_each_function_that_a_role_may_call_is_in_the_list(db):
    assert {name for name, in db.query(
        "SELECT DISTINCT p.proname FROM pg_proc p, pg_roles r WHERE p.pronamespace = 'jobq'::regnamespace"
        " AND r.rolname IN ('jobq_enqueuer', 'jobq_worker', 'jobq_viewer', 'jobq_operator')"
        " AND has_function_privilege(r.oid, p.oid, 'EXECUTE')")} == set(CALLS) | WITHIN


@pytest.mark.parametrize("name", CALLS)
def test_a_function(db, app, name):
    """By itself, and within a transaction, which takes it back."""
    with app.transaction(force_rollback=True):
        CALLS[name](app)
    assert db.states() == {} and db.query("SELECT name FROM jobq.queues WHERE paused OR concurrency IS NOT NULL") == []
    made = CALLS[name](app)
    if made is not None:
        state, job = made
        assert state_of(app, job) == state


def test_many_clients_on_few_sessions(db, pgbouncer_for_sql):
    """30 of them, on four sessions, each with transactions of its own."""
    clients = [psycopg.connect(pgbouncer_for_sql(db), prepare_threshold=None) for _ in range(30)]
    ids = []
    for round in range(5):
        for nth, client in enumerate(clients):
            ids.append(value(client, "SELECT jobq.enqueue('k', jsonb_build_object('n', %s::int))", (nth,)))
            client.rollback() if nth % 3 == 0 else client.commit()
    for client in clients:
        client.close()
    assert len(set(ids)) == 150
    assert db.states() == {"available": 100}
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE (args ->> 'n')::int % 3 = 0") == 0


# ---- a daemon ----

@pytest.mark.limit(600)
def test_a_life_behind_a_pooler(db, app, pooled, jobqd, programs, tmp_path):
    """Whatever reaches a daemon reaches it: commands for running jobs, the queues' settings, due jobs, another node's end."""
    queues = {name: {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)", "max_crashes": 0}
              for name in ("default", "mail")}
    nodes = [jobqd(pooled, queues, notify="off", poll_interval="100ms", lease="2s") for _ in range(2)]

    jobs = [row[0] for row in app.execute(
        "SELECT jobq.enqueue('echo', jsonb_build_object('n', n), priority => n % 10) FROM generate_series(1, 500) n")]
    jobs.append(value(app, "INSERT INTO jobq.jobs (kind, args) VALUES ('fail', '{\"times\": 2}') RETURNING id"))
    jobs.append(value(app, "SELECT jobq.enqueue('segfault', '{\"times\": 1}')"))
    jobs.append(value(app, "SELECT jobq.enqueue('ok', scheduled_at => now() + interval '500 ms')"))
    jobs.append(value(app, "SELECT jobq.enqueue('progress', '{\"steps\": 3, \"ms\": 60}')"))
    for job in jobs[-4:]:
        assert app.execute("CALL jobq.wait(%s, '60 s')", (job,)).fetchone()[0] == "completed"
    db.wait_for_states({"completed": len(jobs)})
    assert value(app, "SELECT count(*) FROM jobq.finished_jobs WHERE kind = 'echo' AND result = args AND attempt = 1") == 500

    # Running ones: one is cancelled, one of many is deleted, one is completed by its own transaction.
    running = [value(app, "SELECT jobq.enqueue('sleep', '{\"ms\": 3600000}', queue => %s)", (queue,))
               for queue in ("default", "mail", "mail")]
    wait_for(lambda: value(app, "SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 3)
    assert value(app, "SELECT jobq.cancel(%s)", (running[0],)) is False
    wait_for(lambda: state_of(app, running[0]) == "cancelled")
    assert value(app, "SELECT jobq.delete_many(jsonb_build_object('ids', ARRAY[%s::bigint]))", (running[1],)) == 1
    wait_for(lambda: state_of(app, running[1]) is None)
    app.execute("SELECT jobq.complete(%s, 1)", (running[2],))
    assert state_of(app, running[2]) == "completed"

    app.execute("SELECT jobq.pause('mail')")
    for node in nodes:
        node.wait_log("queue mail: paused")
    waits = value(app, "SELECT jobq.enqueue('ok', queue => 'mail')")
    after = value(app, "SELECT jobq.enqueue('ok')")
    assert app.execute("CALL jobq.wait(%s, '60 s')", (after,)).fetchone()[0] == "completed"
    assert state_of(app, waits) == "available"
    app.execute("SELECT jobq.resume('mail')")
    assert app.execute("CALL jobq.wait(%s, '60 s')", (waits,)).fetchone()[0] == "completed"

    # A node that is gone: the other one, now the leader, gives its job back.
    orphan = value(app, "SELECT jobq.enqueue('sleep', %s)", (json.dumps({"ms": 100, "file": str(tmp_path / "starts")}),))
    assert app.execute("CALL jobq.wait(%s, '60 s')", (orphan,)).fetchone()[0] == "completed"
    held = value(app, "SELECT jobq.enqueue('sleep', '{\"ms\": 3600000}')")
    name = wait_for(lambda: value(app, "SELECT n.name FROM jobq.jobs j JOIN jobq.nodes n ON n.id = j.attempted_by"
                                       " WHERE j.id = %s", (held,)))
    nodes[int(name[-1]) - 1].kill()
    wait_for(lambda: value(app, "SELECT attempt FROM jobq.jobs WHERE id = %s AND state = 'executing'", (held,)) == 2)
    app.execute("SELECT jobq.cancel(%s)", (held,))
    wait_for(lambda: state_of(app, held) == "cancelled")


def test_what_comes_and_goes_by_the_clock_behind_a_pooler(db, app, pooled, jobqd, programs):
    """Crons fire, and what was not begun in time is cancelled: by the leader, which hears of neither by NOTIFY."""
    app.execute("SELECT jobq.pause('mail')")
    late = value(app, "SELECT jobq.enqueue('ok', queue => 'mail', expires_at => now() + interval '500 ms')")
    queues = {name: {"command": programs("fault_worker"), "concurrency": 1} for name in ("default", "mail")}
    jobqd(pooled, queues, notify="off", poll_interval="100ms")
    app.execute("SELECT jobq.cron_set('tick', '@every 1s', 'ok')")
    wait_for(lambda: value(app, "SELECT count(*) FROM jobq.finished_jobs WHERE kind = 'ok' AND state = 'completed'") >= 3)
    app.execute("SELECT jobq.cron_delete('tick')")
    wait_for(lambda: state_of(app, late) == "cancelled")
    assert value(app, "SELECT attempt FROM jobq.all_jobs WHERE id = %s", (late,)) == 0


# ---- the command line ----

def test_commands(cli, db, pooled):
    def run(*args, **options):
        return cli(*args, "--database", pooled, **options).stdout
    job = run("enqueue", "k", '{"n": 1}', "--queue", "mail").strip()
    assert run("enqueue", "-", input='{"kind": "k"}\n{"kind": "k"}\n').count("\n") == 2
    assert len(json.loads(run("jobs", "--json"))) == 3
    assert json.loads(run("job", job, "--json"))["state"] == "available"
    run("cancel", job)
    run("retry", job)
    for words in (["pause", "mail"], ["scale", "mail", "3"], ["resume", "mail"], ["queues", "--json"], ["migrate", "status"]):
        run(*words)
    assert db.query("SELECT paused, concurrency FROM jobq.queues WHERE name = 'mail'") == [(False, 3)]
    run("delete", job)
    user = run("enqueue", "other", '{"user": 7}').strip()
    run("purge", "--args", '{"user": 7}', "--yes")
    cli("job", user, "--database", pooled, code=66)
    assert db.states() == {"available": 2}
    run("cancel", "--kind", "k")
    assert db.states() == {"cancelled": 2}
    run("migrate", "down")
    assert "applied" in run("migrate", "up")


# ---- libjobq ----

@pytest.mark.once  # the other tree's library needs its sanitizers' runtime in the program
def test_a_command_gives_up_on_a_locked_job(cli, db, pooled):
    """Its transaction is one with its settings: behind a pooler, too."""
    job = db.enqueue("k")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", (job,))
        for where in (db.uri, pooled):
            done = cli("cancel", str(job), "--database", where, code=None)
            assert done.returncode != 0
            assert f"job {job}: another session has locked it for more than 10 s; nothing was changed" in done.stderr
            assert "already a transaction" not in done.stderr
        done = cli("cancel", str(job), "--database", db.uri, code=None, env={"PGOPTIONS": "-c lock_timeout=300ms"})
        assert f"job {job}: another session has locked it for more than 300 ms; nothing was changed" in done.stderr
        conn.rollback()
    cli("cancel", str(job), "--database", pooled)
    assert state_of_job(db, job) == "cancelled"


def state_of_job(db, job):
    return db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,))


@pytest.mark.once  # the sanitized library goes into no program that is not
def test_the_c_library(build, pooled, tmp_path):
    """The consumer project's program, which uses every part of it."""
    consumer = ROOT / "tests" / "consumer"
    flags = ["-I", str(ROOT / "include"), "-I", subprocess.check_output(["pg_config", "--includedir"], text=True).strip()]
    version = subprocess.check_output([build / "jobqd" / "jobqd", "version", "--json"], text=True)
    version = json.loads(version)["version"]
    program = str(tmp_path / "consumer")
    subprocess.run(["c++", *flags, "-c", str(consumer / "plus.cpp"), "-o", str(tmp_path / "plus.o")], check=True)
    subprocess.run(["cc", *flags, f'-DPACKAGE_VERSION="{version}"', str(consumer / "main.c"), str(tmp_path / "plus.o"), "-o",
                    program, f"-L{build / 'libjobq'}", f"-Wl,-rpath,{build / 'libjobq'}", "-ljobq", "-lpq", "-lstdc++"],
                   check=True)
    done = subprocess.run([program], env=clean_environment(JOBQ_TEST_DATABASE=pooled), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
