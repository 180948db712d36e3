"""What comes of a cron's slot while a job of that cron is live (overlap), how long its jobs may wait (expires), which
other job stands in their way (unique_by), and how many attempts they have (max_attempts, also that of a queue)."""

import datetime
import json
import threading

import psycopg
import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

LIVE = ["scheduled", "available", "executing", "retryable", "suspended"]


def fire(db):
    return db.query("SELECT * FROM jobq._cron_fire()")[0]


def cron(db, name="tick", schedule="@every 1h", **options):
    sets = "".join(f", {key} => %({key})s" for key in options)
    db.query(f"SELECT jobq.cron_set(%(name)s, %(schedule)s, 'k'{sets})", {"name": name, "schedule": schedule, **options})


def slot(db, name="tick"):
    """The cron's next slot comes now. How many jobs it brought."""
    db.query("UPDATE jobq.crons SET next_at = clock_timestamp() - interval '10 ms' WHERE name = %s", (name,))
    return fire(db)[0]


def jobs(db, name="tick"):
    """The live jobs of a cron: (id, state)."""
    return db.query("SELECT j.id, j.state::text FROM jobq.jobs j JOIN jobq._cron_jobs c ON c.job_id = j.id WHERE c.cron = %s"
                    " ORDER BY j.id", (name,))


def begin(db, job):
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_at = now(), attempted_by = 1 WHERE id = %s",
             (job,))


def end(db, job):
    db.query("DELETE FROM jobq.jobs WHERE id = %s", (job,))


def put(db, job, state):
    if state == "executing":
        begin(db, job)
    elif state != "available":
        db.query("UPDATE jobq.jobs SET state = %s::jobq.job_state, position = NULL, scheduled_at = now() + interval '1 h'"
                 " WHERE id = %s", (state, job))


@pytest.mark.parametrize("state", LIVE)
def test_skip_enqueues_nothing_while_a_job_is_live(db, state):
    cron(db, overlap="skip")
    assert slot(db) == 1
    [(first, _)] = jobs(db)
    put(db, first, state)
    assert slot(db) == 0
    assert jobs(db) == [(first, state)]
    last, skipped = db.query("SELECT last_job_id, skipped_at > last_at FROM jobq.crons")[0]
    assert (last, skipped) == (first, True)
    end(db, first)
    assert slot(db) == 1
    assert len(jobs(db)) == 1


def test_allow_enqueues_whatever_is_live(db):
    cron(db)
    assert [slot(db) for _ in range(3)] == [1, 1, 1]
    assert len(jobs(db)) == 3


@pytest.mark.parametrize("state", ["executing", "retryable"])
def test_wait_lets_one_wait_behind_the_running_one(db, state):
    cron(db, overlap="wait")
    assert slot(db) == 1
    [(first, _)] = jobs(db)
    begin(db, first)
    put(db, first, state)
    assert [slot(db) for _ in range(3)] == [1, 0, 0]
    (_, _), (second, waits) = jobs(db)
    assert waits == "suspended"
    assert fire(db)[1] <= 200, "it is looked at soon whether the running one has ended"
    end(db, first)
    assert fire(db)[0] == 1
    assert jobs(db) == [(second, "available")]
    assert db.value("SELECT position IS NOT NULL FROM jobq.jobs WHERE id = %s", (second,))


def test_wait_enqueues_none_behind_one_that_has_not_begun(db):
    cron(db, overlap="wait")
    assert [slot(db) for _ in range(3)] == [1, 0, 0]
    assert [state for _, state in jobs(db)] == ["available"]


@pytest.mark.parametrize("how", ["DELETE FROM jobq.crons", "UPDATE jobq.crons SET overlap = 'allow'"])
def test_what_waits_goes_on_when_nothing_tells_it_to_wait(db, how):
    cron(db, overlap="wait")
    slot(db)
    begin(db, jobs(db)[0][0])
    slot(db)
    db.query(how)
    fire(db)
    assert [state for _, state in jobs(db)] == ["executing", "available"]


def test_what_waits_and_is_cancelled_makes_room_for_another(db):
    cron(db, overlap="wait")
    slot(db)
    begin(db, jobs(db)[0][0])
    slot(db)
    db.query("SELECT jobq.cancel(%s)", (jobs(db)[1][0],))
    assert slot(db) == 1
    assert [state for _, state in jobs(db)] == ["executing", "suspended"]


def test_a_job_that_is_retried_by_hand_counts_as_live(db):
    cron(db, overlap="skip")
    slot(db)
    [(first, _)] = jobs(db)
    db.query("SELECT jobq.cancel(%s)", (first,))
    db.query("SELECT jobq._cron_sweep()")
    db.query("SELECT jobq.retry(%s)", (first,))
    assert slot(db) == 0


def test_a_job_that_has_expired_is_in_no_slot_s_way(db):
    cron(db, overlap="skip", expires="1 ms")
    slot(db)
    wait_for(lambda: db.value("SELECT clock_timestamp() > expires_at FROM jobq.jobs"))
    assert slot(db) == 1


def test_meta_that_an_enqueuer_writes_stops_no_cron(db):
    cron(db, overlap="skip")
    db.query("""SELECT jobq.enqueue('k', meta => '{"cron": "tick"}')""")
    assert slot(db) == 1


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_missed_all_brings_no_second_job(db, overlap):
    cron(db, schedule="@every 1s", overlap=overlap, missed="all")
    db.query("UPDATE jobq.crons SET next_at = next_at - interval '1 day'")
    assert fire(db)[0] == 1
    assert db.value("SELECT next_at > clock_timestamp() - interval '2 s' FROM jobq.crons"), "it has caught up"
    assert len(jobs(db)) == 1


@pytest.mark.parametrize("overlap", ["skip", "wait"])
def test_by_hand_it_is_refused_in_words(db, cli, overlap):
    cron(db, overlap=overlap)
    slot(db)
    [(first, _)] = jobs(db)
    done = cli("cron", "run", "tick", "--database", db.uri, code=None)
    assert done.returncode != 0
    assert f'cron "tick" cannot enqueue a job now: overlap is {overlap}, and job {first} is available' in done.stderr
    assert len(jobs(db)) == 1


@pytest.mark.parametrize("overlap, most", [("skip", 1), ("wait", 2)])
def test_callers_at_once_and_one_by_hand(db, overlap, most):
    """Leaders that do not know of each other, and an operator: never more live jobs than there may be."""
    cron(db, schedule="@every 1s", overlap=overlap)
    over, faults = threading.Event(), []

    def call(statement):
        with db.connect() as conn:
            while not over.is_set():
                try:
                    conn.execute(statement)
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    pass
                except psycopg.Error as fault:
                    faults.append(fault)
                    return

    callers = [threading.Thread(target=call, args=(statement,)) for statement in
               ["SELECT jobq._cron_fire()"] * 3 + ["SELECT jobq.cron_run('tick')"]]
    for caller in callers:
        caller.start()
    try:
        for _ in range(60):
            db.query("UPDATE jobq.crons SET next_at = clock_timestamp()")
            live = jobs(db)
            assert len(live) <= most, live
            assert len([1 for _, state in live if state in ("available", "executing")]) <= 1, live
            if live and live[0][1] != "suspended":
                (end if live[0][1] == "executing" else begin)(db, live[0][0])
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert not faults


def test_one_whose_waiting_job_is_locked_or_refused_stops_no_other(db):
    for name in ("a", "b", "c"):
        cron(db, name, overlap="wait")
        slot(db, name)
        begin(db, jobs(db, name)[0][0])
        slot(db, name)
    for name in ("a", "b", "c"):
        end(db, jobs(db, name)[0][0])
    locked, refused = jobs(db, "a")[0][0], jobs(db, "b")[0][0]
    db.query(f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;"
             f" CREATE TRIGGER no BEFORE UPDATE ON jobq.jobs FOR EACH ROW WHEN (NEW.id = {refused}) EXECUTE FUNCTION no()")
    cron(db, "plain")
    with db.connect(autocommit=False) as other:
        other.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", (locked,))
        slot(db, "plain")
        assert [state for name in "abc" for _, state in jobs(db, name)] == ["suspended", "suspended", "available"]
        assert len(jobs(db, "plain")) == 1
    db.query("DROP TRIGGER no ON jobq.jobs; UPDATE jobq._cron_jobs SET again_at = NULL")
    fire(db)
    assert [state for name in "abc" for _, state in jobs(db, name)] == ["available"] * 3


CLOCKS = [("2026-03-29", "30 2 * * *"), ("2026-03-29", "*/10 * * * *"), ("2026-10-25", "30 2 * * *"),
          ("2026-10-25", "*/10 * * * *")]


@pytest.mark.parametrize("overlap", ["allow", "skip", "wait"])
@pytest.mark.parametrize("day, schedule", CLOCKS)
def test_on_the_day_on_which_the_clocks_change(db, day, schedule, overlap):
    """The whole day in steps of ten minutes, with jobs that take 25 minutes: what is enqueued, and when it starts."""
    cron(db, schedule=schedule, timezone="Europe/Stockholm", overlap=overlap, missed="all")
    start = datetime.datetime.fromisoformat(day + "T00:00:00+00:00") - datetime.timedelta(hours=2)
    db.query("UPDATE jobq.crons SET next_at = jobq.cron_next(schedule, %s, timezone)", (start,))
    slots, at = [], start
    while at < start + datetime.timedelta(hours=26):
        at = db.value("SELECT jobq.cron_next(%s, %s, 'Europe/Stockholm')", (schedule, at))
        slots.append(at)
    step, now = datetime.timedelta(minutes=5), start
    ends = {}
    enqueued = most = 0
    while now < start + datetime.timedelta(hours=26):
        for job in [job for job, over in ends.items() if over <= now]:
            end(db, job)
            del ends[job]
        db.query("SELECT jobq._cron_promote()")
        enqueued += db.value("SELECT jobq._cron_fire_one(c, %s, 10) FROM jobq.crons c WHERE c.next_at <= %s", (now, now)) or 0
        for job, state in jobs(db):
            if state == "available":
                begin(db, job)
                ends[job] = now + 5 * step
        most = max(most, len(ends))
        now += step
    came = [one for one in slots if one < now]
    if schedule == "30 2 * * *":
        assert enqueued == len([one for one in came]) == 1
    elif overlap == "allow":
        assert enqueued == len(came) and most == 3
    else:
        assert most == 1
        assert len(came) / 3 - 2 <= enqueued <= len(came) / 2 + 2


def intervals(db, name):
    """When each job of a cron ran, in order: (start, end), in seconds."""
    return db.query("SELECT extract(epoch FROM attempted_at)::float, extract(epoch FROM finished_at)::float"
                    "  FROM jobq._finished_completed WHERE meta ->> 'cron' = %s ORDER BY attempted_at", (name,))


def test_a_cron_of_each_second_whose_job_takes_four(db, jobqd):
    """Two nodes, each of which may lead; each has the three crons in its configuration."""
    queue = {"default": {"exec": "/bin/sleep 4", "concurrency": 16}}
    sections = "".join(f"[cron {name}]\nschedule = @every 1s\nkind = {name}\noverlap = {name}\n"
                       for name in ("allow", "skip", "wait"))
    for _ in range(2):
        node = jobqd(db, queue, lease="2s")
        node.conf.write_text(node.conf.read_text(encoding="utf-8") + sections, encoding="utf-8")
        node.reload()
    wait_for(lambda: len(intervals(db, "wait")) >= 3 and len(intervals(db, "skip")) >= 2)
    db.query("UPDATE jobq.crons SET paused = true")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0)
    allowed, skipped, waited = (intervals(db, name) for name in ("allow", "skip", "wait"))
    assert any(start < over for (_, over), (start, _) in zip(allowed, allowed[1:])), "they overlap"
    for told in (skipped, waited):
        assert all(over <= start for (_, over), (start, _) in zip(told, told[1:])), told
    gaps = [start - over for (_, over), (start, _) in zip(waited[:3], waited[1:3])]
    assert min(gaps) < 0.8, f"what waits starts when the running one ends, not with the next slot: {gaps}"
    assert db.value("SELECT count(*) FROM jobq.crons WHERE skipped_at IS NOT NULL") == 2


# ---- expires, unique_by, max_attempts ----

def test_expires_counts_from_when_the_job_is_enqueued(db):
    cron(db, expires="10 min")
    slot(db)
    assert db.value("SELECT expires_at - inserted_at BETWEEN interval '9 min' AND interval '11 min' FROM jobq.jobs")


def test_unique_by_keeps_a_slot_from_a_second_job(db):
    cron(db, unique_by="{}")
    assert [slot(db), slot(db)] == [1, 0]
    assert db.value("SELECT skipped_at IS NOT NULL FROM jobq.crons")
    db.query("UPDATE jobq.crons SET args = '{\"other\": 1}'")
    assert slot(db) == 1


@pytest.mark.parametrize("change, message", [
    ("overlap = 'never'", 'overlap must be allow, skip or wait, got "never"'),
    ("overlap = NULL", "overlap must be allow, skip or wait, got null"),
    ("expires = '0'", 'expires must be null or an interval of 1 millisecond to 3650 days, got "00:00:00"'),
    ("expires = '11 years'", 'expires must be null or an interval of 1 millisecond to 3650 days, got "11 years"'),
    ("unique_by = '[]'", "unique_by must be null or a JSON object, got []"),
    ("unique_by = '{\"key\": 1}'", 'unique_by has an unknown member "key": allowed are fields, keys, period and states'),
    ("max_attempts = 0", "max_attempts must be 1 to 1000, got 0"),
])
def test_what_a_row_may_not_say(db, change, message):
    cron(db)
    with pytest.raises(psycopg.Error) as caught:
        db.query("UPDATE jobq.crons SET " + change)
    assert caught.value.diag.message_primary == "jobq.crons: " + message


@pytest.mark.parametrize("rule", [
    "{}", '{"fields": ["kind", "meta"], "keys": ["a"], "period": 60.0, "states": ["available", "discarded"]}', '{"period": "infinity"}',
    '{"period": 1e3}', '{"period": "1h", "period": 60}', '{"key": 1}', '{"fields": []}', '{"fields": "kind"}', '{"fields": ["tags"]}',
    '{"fields": [1]}', '{"keys": []}', '{"keys": [null]}', '{"keys": ["a"], "fields": ["kind"]}', '{"period": "1h"}', '{"period": 0}',
    '{"period": 1.5}', '{"period": 2147483648}', '{"period": null}', '{"states": ["gone"]}', '{"states": {}}', '{"": 1}'])
def test_configuration_and_database_agree_on_unique_by(db, cli, tmp_path, rule):
    """What is refused without a database is refused by it, and the other way round."""
    fault = db.value("SELECT jobq._conflict_fault(NULL, %s::jsonb, '\"ignore\"', NULL)", (rule,))
    config = tmp_path / "jobqd.conf"
    config.write_text(f"[cron x]\nschedule = @daily\nkind = k\nunique_by = {rule}\n")
    done = cli("config", "check", "-c", config, code=None)
    assert (done.returncode == 78) == (fault is not None), (fault, done.stderr)
    args = ["--schedule", "@daily", "--kind", "k", "--unique-by", rule, "--database", db.uri]
    done = cli("cron", "set", "x", *args, code=None)
    assert (done.returncode == 64) == (fault is not None), (fault, done.stderr)
    assert not fault or "--unique-by" in done.stderr


@pytest.mark.parametrize("args, message", [
    (["--overlap", "never"], "overlap must be allow, skip or wait"),
    (["--expires", "0"], "--expires: \"0\" is not allowed: 1ms to 3650d"),
    (["--unique-by", "[]"], "--unique-by must be a JSON object"),
])
def test_what_the_command_refuses(db, cli, args, message):
    done = cli("cron", "set", "x", "--schedule", "@daily", "--kind", "k", *args, "--database", db.uri, code=None)
    assert done.returncode in (64, 65) and message in done.stderr


def test_the_command_sets_all_of_it(db, cli):
    cli("cron", "set", "x", "--schedule", "@daily", "--kind", "k", "--overlap", "wait", "--expires", "90s", "--unique-by",
        '{"period": 60}', "--max-attempts", "3", "--database", db.uri)
    [listed] = json.loads(cli("cron", "list", "--json", "--database", db.uri).stdout)
    assert (listed["overlap"], listed["expires_ms"], listed["unique_by"], listed["max_attempts"]) == (
        "wait", 90000, {"period": 60}, 3)
    cli("cron", "set", "x", "--schedule", "@daily", "--kind", "k", "--database", db.uri)
    assert db.query("SELECT overlap, expires, unique_by, max_attempts FROM jobq.crons") == [("allow", None, None, None)]


@pytest.mark.parametrize("text, message", [
    ("overlap = never", 'overlap: "never" is not allowed: allow, skip or wait'),
    ("expires = soon", 'expires: "soon"'),
    ("unique_by = []", "unique_by: "),
    ('unique_by = {"period": "1h"}', 'unique_by.period must be whole seconds, 1 to 2147483647, or "infinity", got "1h"'),
    ("max_attempts = 0", 'max_attempts: "0" is not allowed: 1 to 1000'),
])
def test_what_a_section_may_not_say(cli, tmp_path, text, message):
    config = tmp_path / "jobqd.conf"
    config.write_text(f"[cron x]\nschedule = @daily\nkind = k\n{text}\n")
    done = cli("config", "check", "-c", config, code=None)
    assert done.returncode != 0 and f"{config}:4: [cron x] {message}" in done.stderr


def attempts(db, sql):
    with db.connect() as conn:
        row = conn.execute(sql).fetchone()
        return conn.execute("SELECT max_attempts FROM jobq.all_jobs WHERE id = %s", (row[0],)).fetchone()[0]


WAYS = {
    "enqueue": "SELECT jobq.enqueue('k', queue => 'mail')",
    "try_enqueue": "SELECT id FROM jobq.try_enqueue('k', queue => 'mail')",
    "unique": "SELECT jobq.enqueue('k', queue => 'mail', unique_by => '{}')",
    "many": """SELECT jobq.enqueue_many('[{"kind": "k", "queue": "mail"}]')""",
    "many null": """SELECT jobq.enqueue_many('[{"kind": "k", "queue": "mail", "max_attempts": null}]')""",
    "many unique": """SELECT jobq.enqueue_many('[{"kind": "k", "queue": "mail", "unique_key": "u"}]')""",
    "insert": "INSERT INTO jobq.jobs (kind, queue) VALUES ('k', 'mail') RETURNING id",
    "cron": "SELECT jobq.cron_run('x') FROM jobq.cron_set('x', '@daily', 'k', queue => 'mail')",
}


@pytest.mark.parametrize("way", WAYS)
def test_an_enqueue_that_names_no_max_attempts_takes_the_queue_s(db, way):
    db.query("INSERT INTO jobq.queues (name, max_attempts) VALUES ('mail', 3)")
    assert attempts(db, WAYS[way]) == 3
    db.query("DELETE FROM jobq.jobs; DELETE FROM jobq.queues")
    assert attempts(db, WAYS[way]) == 20


def test_an_enqueue_that_names_max_attempts_keeps_it(db):
    db.query("INSERT INTO jobq.queues (name, max_attempts) VALUES ('mail', 3)")
    assert attempts(db, "SELECT jobq.enqueue('k', queue => 'mail', max_attempts => 20)") == 20
    assert attempts(db, """SELECT jobq.enqueue_many('[{"kind": "k", "queue": "mail", "max_attempts": 7}]')""") == 7
    assert attempts(db, "INSERT INTO jobq.jobs (kind, queue, max_attempts) VALUES ('k', 'mail', 20) RETURNING id") == 20


def test_the_command_takes_the_queue_s_max_attempts(db, cli):
    db.query("INSERT INTO jobq.queues (name, max_attempts) VALUES ('mail', 3)")
    cli("enqueue", "k", "--queue", "mail", "--database", db.uri)
    cli("enqueue", "k", "--queue", "mail", "--max-attempts", "5", "--database", db.uri)
    assert db.query("SELECT max_attempts FROM jobq.jobs ORDER BY id") == [(3,), (5,)]


def declared(db):
    return dict(db.query("SELECT name, max_attempts FROM jobq.queues ORDER BY name"))


def declare(db, node, **queues):
    return db.query("SELECT * FROM jobq._queue_declare(%s, %s)", (node, json.dumps(queues)))[0]


def test_a_node_tells_the_database_of_its_queues_max_attempts(db, jobqd, programs):
    def write(node, line):
        text = node.conf.read_text(encoding="utf-8").split("[queue mail]")[0]
        node.conf.write_text(text + f"[queue mail]\ncommand = {programs('noop_worker')}\n{line}\n", encoding="utf-8")
        node.reload()

    node = jobqd(db, {})
    write(node, "max_attempts = 3")
    wait_for(lambda: declared(db) == {"mail": 3})
    assert attempts(db, WAYS["enqueue"]) == 3
    write(node, "max_attempts = 5")
    wait_for(lambda: declared(db) == {"mail": 5})
    node.stop()
    assert declared(db) == {"mail": 5}, "it holds while no node runs, too"
    node.start()
    write(node, "")
    wait_for(lambda: declared(db) == {"mail": None})
    assert attempts(db, WAYS["insert"]) == 20


def test_of_several_nodes_the_greatest_max_attempts_counts(db):
    for name in ("a", "b"):
        db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at) VALUES"
                 " (%s, 'h', 1, 1, '1', now() + interval '1 h')", (name,))
    assert declare(db, "a", mail=3, other=None) == (1, 0)
    assert declare(db, "b", mail=5) == (1, 0)
    assert declared(db) == {"mail": 5}
    assert declare(db, "b", mail=5) == (0, 0)
    assert declare(db, "a", mail=3) == (0, 0)
    # What a node that is gone has said ends when another one that serves the queue has its say.
    db.query("UPDATE jobq.nodes SET expires_at = now() - interval '1 s' WHERE name = 'b'")
    assert declare(db, "a", other=None) == (0, 0)
    assert declared(db) == {"mail": 5}
    assert declare(db, "a", mail=3) == (1, 0)
    assert declared(db) == {"mail": 3}


def test_a_locked_queue_holds_up_no_other(db):
    db.query("INSERT INTO jobq.queues (name) VALUES ('a')")
    with db.connect(autocommit=False) as other:
        other.execute("SELECT FROM jobq.queues WHERE name = 'a' FOR UPDATE")
        assert declare(db, "n", a=3, b=4) == (1, 1)
    assert declared(db) == {"a": None, "b": 4}
    assert declare(db, "n", a=3, b=4) == (1, 0)
    assert declared(db) == {"a": 3, "b": 4}
