"""What jobq does, in one sitting: the life of jobs of every kind under running nodes, one call of each SQL function, and each
command. For databases that make it hard (test_trap, test_settings): the SQL in here that an application would send holds
nothing that is looked up, but jobq's own names."""

import datetime
import json
import re

from .waiting import wait_for

ROLES = "jobq_enqueuer", "jobq_viewer", "jobq_operator"


# ---- one call of each function ----

def value(conn, sql):
    row = conn.execute(sql).fetchone()
    return row[0] if row is not None else None


def job_of(db, app, state):
    """A job in that state, made without a daemon."""
    job = value(app, "SELECT jobq.enqueue('k', '{\"user\": 7}', queue => 'mail')")
    if state == "executing":
        db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1, attempted_at = now() WHERE id = %s", (job,))
    elif state == "cancelled":
        app.execute(f"SELECT jobq.cancel({job})")
    return job


def state_of(db, job):
    return db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,))


def enqueue(db, app):
    job = value(app, "SELECT jobq.enqueue('k', '{\"n\": 1}', priority => 3, unique_key => 'one', tags => '{a,b}',"
                     " scheduled_at => '2099-01-02T03:04:05Z')")
    assert state_of(db, job) == "scheduled"
    assert value(app, "SELECT jobq.enqueue('k', unique_key => 'one')") == job


def enqueue_many(db, app):
    jobs = [row[0] for row in app.execute("SELECT jobq.enqueue_many('[{\"kind\": \"k\", \"tags\": [\"a\"]},"
                                          " {\"kind\": \"k\", \"scheduled_at\": \"2099-01-02T03:04:05Z\"}]')")]
    assert [state_of(db, job) for job in jobs] == ["available", "scheduled"]


UNIQUE = "unique_by => '{\"fields\": [\"kind\", \"args\"], \"keys\": [\"n\"], \"period\": 60, \"states\": [\"available\", \"completed\"]}'"


def try_enqueue(db, app):
    job, conflict = app.execute(f"SELECT id, conflict FROM jobq.try_enqueue('k', '{{\"n\": 1}}', {UNIQUE})").fetchone()
    assert conflict is None
    again = f"SELECT id, conflict FROM jobq.try_enqueue('k', '{{\"n\": 1}}', {UNIQUE}"
    assert app.execute(again + ")").fetchone() == (job, "ignored")
    assert app.execute(again + ", priority => 7, on_conflict => 'replace', replace => '[\"priority\"]')").fetchone() == (job, "replaced")
    assert db.value("SELECT priority FROM jobq.jobs WHERE id = %s", (job,)) == 7


def try_enqueue_many(db, app):
    rule = "{\"fields\": [\"kind\"]}"
    rows = app.execute("SELECT id, conflict FROM jobq.try_enqueue_many('[{\"kind\": \"k\", \"unique_key\": \"one\"}, {\"kind\": \"k\","
                       f" \"unique_key\": \"one\"}}, {{\"kind\": \"l\", \"unique_by\": {rule}}}, {{\"kind\": \"l\", \"unique_by\": {rule}}}]')").fetchall()
    assert [conflict for _, conflict in rows] == [None, "ignored", None, "ignored"] and len({job for job, _ in rows}) == 2


def insert(db, app):
    """A plain one, with its checks and its wake-up."""
    plain = value(app, "INSERT INTO jobq.jobs (kind, args, tags) VALUES ('k', '{\"n\": 1}', '{a}') RETURNING id")
    later = value(app, "INSERT INTO jobq.jobs (kind, scheduled_at, expires_at) VALUES ('k', '2099-01-02T03:04:05Z',"
                       " '2099-01-03T03:04:05Z') RETURNING id")
    assert (state_of(db, plain), state_of(db, later)) == ("available", "scheduled")


def cancel(db, app):
    job = job_of(db, app, "available")
    assert value(app, f"SELECT jobq.cancel({job})") is True and state_of(db, job) == "cancelled"
    running = job_of(db, app, "executing")
    assert value(app, f"SELECT jobq.cancel({running})") is False
    assert db.query("SELECT job_id FROM jobq._cancels") == [(running,)]


def retry(db, app):
    job = job_of(db, app, "cancelled")
    assert value(app, f"SELECT jobq.retry({job})") is True and state_of(db, job) == "available"


def complete(db, app):
    job = job_of(db, app, "executing")
    app.execute(f"SELECT jobq.complete({job}, 1, '{{\"done\": true}}')")
    assert db.query("SELECT state::text, result FROM jobq.finished_jobs WHERE id = %s", (job,)) == [("completed", {"done": True})]


def delete(db, app):
    job = job_of(db, app, "cancelled")
    assert value(app, f"SELECT jobq.delete({job})") is True and state_of(db, job) is None


def of_many(db, app):
    """cancel_many, retry_many and delete_many, with each member that a filter may have, and purge."""
    job, running = job_of(db, app, "available"), job_of(db, app, "executing")
    which = {"ids": [job, running], "queue": ["mail"], "kind": "k", "args": {"user": 7}, "priority": [0, 1],
             "inserted_after": "2001-01-01T00:00:00Z", "scheduled_before": "2099-01-01T00:00:00Z"}
    assert value(app, f"SELECT jobq.cancel_many('{json.dumps(which)}')") == 2
    assert value(app, f"SELECT jobq.retry_many('{json.dumps({**which, 'state': ['cancelled'], 'finished_after': '2001-01-01T00:00:00Z'})}')") == 1
    assert (state_of(db, job), state_of(db, running)) == ("available", "executing")
    app.execute(f"SELECT jobq.cancel({job})")
    assert value(app, f"SELECT jobq.delete_many('{json.dumps({'ids': [job], 'limit': 5})}')") == 1
    tagged = value(app, "SELECT jobq.enqueue('k', '{\"user\": 8}', tags => '{a,b}', meta => '{\"m\": 1}', key => 'x')")
    assert value(app, "SELECT jobq.delete_many('{\"tags\": [\"a\"], \"meta\": {\"m\": 1}, \"key\": \"x\", \"state\": \"available\"}')") == 1
    assert state_of(db, job) is state_of(db, tagged) is None
    job = job_of(db, app, "cancelled")
    assert value(app, "SELECT jobq.purge('{\"user\": 7}', 'k', 'mail')") >= 1 and state_of(db, job) is None


def queues(db, app):
    """pause, resume and scale, on all nodes and on one."""
    for one in ("", ", 'n1'"):
        assert value(app, f"SELECT jobq.pause('mail'{one})") is True and value(app, f"SELECT jobq.resume('mail'{one})") is True
        assert value(app, f"SELECT jobq.scale('mail', 7{one})") is True and value(app, f"SELECT jobq.scale('mail', NULL{one})") is True


def wait(db, app):
    job = job_of(db, app, "cancelled")
    assert app.execute(f"CALL jobq.wait({job}, '1 s')").fetchone()[0] == "cancelled"
    waits = job_of(db, app, "available")
    assert app.execute(f"CALL jobq.wait({waits}, '50 ms')").fetchone()[0] == "available"
    assert value(app, f"SELECT state FROM jobq._standing({waits})") == "available"


def crons(db, app):
    """cron_next, and cron_set, pause, resume, run and delete."""
    for schedule, zone, following in [
            ("30 2 * * *", "Europe/Stockholm", "2026-03-29T01:00:00+00:00"), ("*/20 1-3,5 1,15 jan-apr *", "UTC", "2026-04-01T01:00:00+00:00"),
            ("0 9 * * 5L", "UTC", "2026-04-24T09:00:00+00:00"), ("0 0 L * *", "UTC", "2026-03-31T00:00:00+00:00"),
            ("0\t12 * * mon-fri", "UTC", "2026-03-30T12:00:00+00:00"), ("@hourly", "UTC", "2026-03-29T01:00:00+00:00"),
            ("@every 90s", "UTC", "2026-03-29T00:01:30+00:00")]:
        found = app.execute(f"SELECT jobq.cron_next('{schedule}', '2026-03-29T00:00:00Z', '{zone}')", binary=True).fetchone()[0]
        assert found.astimezone(datetime.timezone.utc).isoformat() == following, schedule
    app.execute("SELECT jobq.cron_set('nightly', '0 3 * * *', 'k', timezone => 'Europe/Stockholm', args => '{\"a\": 1}')")
    assert db.value("SELECT next_at > now() FROM jobq.crons") is True
    assert value(app, "SELECT jobq.cron_pause('nightly')") is True and value(app, "SELECT jobq.cron_resume('nightly')") is True
    job = value(app, "SELECT jobq.cron_run('nightly')")
    assert state_of(db, job) == "available"
    app.execute("INSERT INTO jobq.crons (name, schedule, kind) VALUES ('plain', '5 4 * * 1-5', 'k')")
    app.execute("UPDATE jobq.crons SET schedule = '@daily'")
    app.execute("SELECT jobq.cron_delete('nightly')")
    assert db.query("SELECT name, schedule FROM jobq.crons") == [("plain", "@daily")]


def faults(db, app):
    """What is refused is refused in words."""
    for call, words in [("jobq.enqueue('')", "kind must be text of 1 to 128 bytes"),
                        ("jobq.enqueue('k', '[]')", "args must be a JSON object"),
                        ("jobq.enqueue('k', tags => ARRAY['a', NULL])", "tags must be an array of texts without nulls"),
                        ("jobq.enqueue_many('[{\"kind\": \"k\", \"scheduled_at\": \"soon\"}]')", "scheduled_at must be"),
                        ("jobq.cancel(9)", "9"), ("jobq.pause('q', 'a b')", "node must be"),
                        ("jobq.cancel_many('{\"queue\": 1}')", "filter.queue must be"),
                        ("jobq.cron_set('x', '61 * * * *', 'k')", "61")]:
        try:
            app.execute(f"SELECT {call}")
        except Exception as error:  # noqa: BLE001
            assert words in str(error), (call, error)
        else:
            raise AssertionError(f"{call} was not refused")


def look(db, app):
    """What an application reads."""
    job_of(db, app, "cancelled")
    for name in ("all_jobs", "jobs", "finished_jobs", "queues", "crons", "nodes", "_leader", "_progress", "_uniques", "schema_version"):
        app.execute(f"SELECT * FROM jobq.{name}")  # not read: psycopg does not know each DateStyle
    assert value(app, "SELECT jobq.version()") > 0
    assert value(app, "SELECT jobq._readable(args) FROM jobq.all_jobs LIMIT 1") is not None
    assert value(app, "SELECT h FROM jobq._unique_hash('k', 'q', '{}', '{}', '{}') h") is not None


CALLS = {call.__name__: call for call in [enqueue, enqueue_many, try_enqueue, try_enqueue_many, insert, cancel, retry, complete, delete,
                                          of_many, queues, wait, crons, faults, look]}
CALLED = {"enqueue", "enqueue_many", "try_enqueue", "try_enqueue_many", "cancel", "retry", "complete", "delete", "cancel_many",
          "retry_many", "delete_many", "purge", "pause", "resume", "scale", "wait", "_standing", "_unique_hash", "_next_position",
          "cron_next", "cron_set", "cron_pause", "cron_resume", "cron_run", "cron_delete", "version", "_readable",
          "_queue_attempts", "_default_attempts", "_utc", "_ago", "_in_zone", "_time_of"}


def not_called(db):
    """Functions that one of our roles may call and that no call above calls: none."""
    return {name for name, in db.query(
        "SELECT DISTINCT p.proname FROM pg_proc p, pg_roles r WHERE p.pronamespace = 'jobq'::regnamespace"
        " AND r.rolname = ANY (%s) AND has_function_privilege(r.oid, p.oid, 'EXECUTE')", (list(ROLES),))} - CALLED


def call_all(db, app):
    for call in CALLS.values():
        call(db, app)
        db.query("TRUNCATE jobq.jobs, jobq.finished_jobs, jobq._cancels, jobq.crons, jobq._uniques")


# ---- each command ----

def command_all(cli, db, uri, tmp_path):
    def run(*args, **options):
        return cli(*args, "--database", uri, **options).stdout
    run("delete", "--all", "--yes")
    job = run("enqueue", "k", '{"n": 1}', "--queue", "mail", "--in", "1h", "--tags", "a,b", "--unique-by", '{"fields": ["kind"]}').strip()
    assert run("enqueue", "-", input='{"kind": "k"}\n{"kind": "k", "unique_key": "u"}\n').count("\n") == 2
    assert len(json.loads(run("jobs", "--json"))) == 3
    assert len(json.loads(run("jobs", "--state", "scheduled", "--queue", "mail", "--kind", "k", "--limit", "5", "--json"))) == 1
    run("jobs")
    assert json.loads(run("job", job, "--json"))["state"] == "scheduled"
    run("cancel", job)
    run("job", job)
    run("retry", job)
    for words in (["pause", "mail"], ["pause", "mail", "--node", "n1"], ["resume", "mail"], ["scale", "mail", "3"],
                  ["queues", "--json"], ["queues", "--history"], ["scale", "mail", "default"], ["migrate", "status"]):
        run(*words)
    run("cron", "set", "nightly", "--schedule", "0 3 * * *", "--kind", "k", "--timezone", "Europe/Stockholm", "--tags", "a,b")
    assert "nightly" in run("cron", "list") and json.loads(run("cron", "list", "--json"))[0]["next_at"]
    for words in ("pause", "resume", "run", "delete"):
        run("cron", words, "nightly")
    run("delete", job)
    user = run("enqueue", "other", '{"user": 7}').strip()
    run("purge", "--args", '{"user": 7}', "--yes")
    cli("job", user, "--database", uri, code=66)
    run("cancel", "--kind", "k", "--before", "2099-01-01T00:00:00Z")
    run("retry", "--kind", "k")
    run("delete", "--kind", "k", "--yes")
    assert db.states() == {}
    said = json.loads(cli("doctor", "--json", "--database", uri, code=None).stdout)
    assert [f for f in said["findings"] if "could not check" in f["found"]] == [] and said["skipped"] == 0, said
    run("migrate", "down", "0", "--force")
    assert run("migrate", "up").count("applied") == json.loads(run("migrate", "status", "--json"))["version"]
    return said


# ---- the life of jobs ----

def life(db, uri, app, jobqd, programs, cli, tmp_path, lease="3s", clean_log=True):
    """Under two nodes, until one is killed. uri: where nodes and commands find the database."""
    worker = {"command": programs("fault_worker"), "concurrency": 2, "backoff": "constant(0s)", "max_crashes": 0}
    script = tmp_path / "hook.sh"
    script.write_text("#!/bin/sh\nread -r args\nexit 0\n")
    script.chmod(0o755)
    made = {"default": worker, "mail": worker, "shell": {"exec": script, "concurrency": 1, "keep": "none"},
            "crowd": {**worker, "keep_completed": "1h"}}
    settings = {"lease": lease, "poll_interval": "200ms", "shutdown_grace": "500ms"}
    # The history that the queue keeps is over: who takes the lead looks at once.
    old = db.value("INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority,"
                   " queue, kind, args, meta, tags, errors) VALUES (-1, now(), now(), now() - interval '1 day', 'completed', 1, 20, 0,"
                   " 'crowd', 'k', '{}', '{}', '{}', '[]') RETURNING id")
    nodes = [jobqd(uri, made, **settings) for _ in range(2)]
    node = nodes[0]

    def ended(job, state="completed"):
        wait_for(lambda: state_of(db, job) == state, what=lambda: f"job {job} to be {state}, it is {state_of(db, job)}\n{node.log()[-3000:]}")

    crowd = json.dumps([{"kind": "echo", "args": {"n": n}, "priority": n % 10, "queue": "crowd"} for n in range(300)])
    app.execute(f"SELECT jobq.enqueue_many('{crowd}')")
    by_command = int(cli("enqueue", "echo", '{"by": "command"}', "--database", uri).stdout)
    app.execute("BEGIN")
    together = [value(app, "SELECT jobq.enqueue('ok', '{\"result\": {\"a\": \"\u00e9\"}}')"),
                value(app, "INSERT INTO jobq.jobs (kind, args) VALUES ('fail', '{\"times\": 2}') RETURNING id")]
    app.execute("COMMIT")
    for call in ("'segfault', '{\"times\": 1}'", "'progress', '{\"steps\": 3, \"ms\": 60}'", "'big', '{\"bytes\": 300000}'",
                 "'stderr', '{\"lines\": 3}'", "'ok', queue => 'shell'", "'snooze', '{\"ms\": 300, \"unless\": \"/\"}'",
                 f"'ok', scheduled_at => '{db.value('SELECT to_json(clock_timestamp() + %s::interval)', ('700 ms',))}'"):
        together.append(value(app, f"SELECT jobq.enqueue({call})"))
    gone = together.pop(6)  # the shell's leaves no trace
    for job in [by_command, *together]:
        ended(job)
    ended(gone, None)
    assert db.value("SELECT result FROM jobq.finished_jobs WHERE id = %s", (together[0],)) == {"a": "\u00e9"}
    ended(value(app, "SELECT jobq.enqueue('discard', '{\"error\": \"bad\"}')"), "discarded")
    ended(value(app, "SELECT jobq.enqueue('fail', max_attempts => 2)"), "discarded")
    ended(value(app, "SELECT jobq.enqueue('cancel', '{\"error\": \"no\"}')"), "cancelled")

    # Running ones: cancelled, deleted, completed by a transaction of the application's.
    running = [value(app, f"SELECT jobq.enqueue('sleep', '{{\"ms\": 3600000}}', queue => '{queue}')") for queue in ("default", "mail", "mail")]
    wait_for(lambda: [state_of(db, job) for job in running] == ["executing"] * 3)
    assert value(app, f"SELECT jobq.cancel({running[0]})") is False
    assert value(app, f"SELECT jobq.delete({running[1]})") is False
    app.execute(f"SELECT jobq.complete({running[2]}, 1)")
    for job, state in zip(running, ["cancelled", None, "completed"]):
        ended(job, state)

    # What the operator does, what the clock does.
    app.execute("SELECT jobq.pause('mail')")
    for one in nodes:
        one.wait_log("queue mail: paused")
    soon = db.value("SELECT to_json(clock_timestamp() + %s::interval)", ("300 ms",))
    late = value(app, f"SELECT jobq.enqueue('ok', queue => 'mail', expires_at => '{soon}')")
    ended(late, "cancelled")
    app.execute("SELECT jobq.resume('mail')")
    app.execute("SELECT jobq.scale('mail', 1)")
    app.execute("SELECT jobq.cron_set('tick', '@every 1s', 'cron')")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.all_jobs WHERE kind = 'cron'") >= 2)
    app.execute("SELECT jobq.cron_delete('tick')")
    rule = "unique_by => '{\"period\": 3600}'"
    once = [value(app, f"SELECT jobq.enqueue('ok', '{{\"once\": 1}}', {rule})") for _ in range(2)]
    assert once[0] == once[1]
    ended(once[0])
    assert db.value("SELECT count(*) FROM jobq.finished_jobs WHERE queue = 'crowd' AND state = 'completed' AND id > 0") == 300
    ended(old, None)

    # A node that is gone: the other one takes its job.
    held = value(app, "SELECT jobq.enqueue('sleep', '{\"ms\": 3600000}')")
    name = wait_for(lambda: db.value("SELECT n.name FROM jobq.jobs j JOIN jobq.nodes n ON n.id = j.attempted_by WHERE j.id = %s", (held,)))
    lost = nodes[int(name[-1]) - 1]
    lost.kill()
    wait_for(lambda: db.value("SELECT attempt FROM jobq.jobs WHERE id = %s AND state = 'executing'", (held,)) == 2, 120)
    app.execute(f"SELECT jobq.cancel({held})")
    ended(held, "cancelled")
    left = next(one for one in nodes if one is not lost)
    assert left.stop() == 0
    for one in nodes:
        bad = [line for line in one.log().splitlines() if re.search(r"refused|\berror\b.*database|database.*\berror\b", line)]
        assert not clean_log or bad == [], "\n".join(bad)
