"""jobq.Client on connections of its own: every function and option."""

import datetime
import decimal
import json
import os
import pathlib
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass

import pytest

import jobq
from harness.waiting import wait_for

UTC = datetime.timezone.utc


def row(db, job, columns):
    return db.query(f"SELECT {columns} FROM jobq.all_jobs WHERE id = %s", (int(job),))[0]


# ---- enqueue ----

def test_the_plain_job_has_the_defaults(db, client):
    job = client.enqueue("resize")
    assert (job.conflict, job.inserted) == ("", True)
    columns = ("state::text, queue, kind, args, meta, tags, priority, max_attempts, key, unique_key, timeout_ms, expires_at,"
               " attempt, scheduled_at = inserted_at")
    by_sql = db.value("SELECT jobq.enqueue('resize')")
    assert row(db, job, columns) == row(db, by_sql, columns)
    assert row(db, job, columns)[:5] == ("available", "default", "resize", {}, {})


def test_every_option_arrives(db, client):
    at = datetime.datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    job = client.enqueue("resize", {"path": "/å"}, queue="media", priority=7, max_attempts=3, key="k",
                         timeout=datetime.timedelta(seconds=90), schedule_at=at, expires_at=at + datetime.timedelta(hours=1),
                         unique_key="u", tags=["a", "b"], meta={"m": [1]})
    assert row(db, job, "state::text, queue, kind, args, priority, max_attempts, key, timeout_ms, scheduled_at, expires_at,"
                        " unique_key, tags, meta") == \
        ("scheduled", "media", "resize", {"path": "/å"}, 7, 3, "k", 90_000, at, at + datetime.timedelta(hours=1), "u",
         ["a", "b"], {"m": [1]})


@pytest.mark.parametrize("given", [600, 600.0, datetime.timedelta(minutes=10)])
def test_delays_count_by_the_databases_clock(db, client, given):
    job = client.enqueue("resize", schedule_in=given, expires_in=1200)
    left, after = row(db, job, "scheduled_at - inserted_at, expires_at - scheduled_at")
    assert abs(left.total_seconds() - 600) < 5
    assert abs(after.total_seconds() - 600) < 5


def test_what_a_python_program_has_becomes_json(db, client):
    @dataclass
    class Point:
        x: int
        y: decimal.Decimal

    some_id = uuid.uuid4()
    job = client.enqueue("resize", {
        "at": datetime.datetime(2031, 1, 1, tzinfo=UTC), "day": datetime.date(2031, 1, 1), "took": datetime.timedelta(minutes=1),
        "price": decimal.Decimal("12.30"), "id": some_id, "point": Point(1, decimal.Decimal("0.1")), "set": {3, 1, 2},
        "path": pathlib.Path("/tmp/a"), "big": 2**70, "tuple": (1, 2), "none": None, "text": "\x00€"[1:]})
    assert row(db, job, "args")[0] == {
        "at": "2031-01-01T00:00:00+00:00", "day": "2031-01-01", "took": 60.0, "price": "12.30", "id": str(some_id),
        "point": {"x": 1, "y": "0.1"}, "set": [1, 2, 3], "path": "/tmp/a", "big": 2**70, "tuple": [1, 2], "none": None,
        "text": "€"}


@pytest.mark.parametrize("options,message", [
    ({"kind": ""}, "kind must"),
    ({"kind": "x" * 129}, "kind must"),
    ({"kind": 7}, "kind must be a str, got 7"),
    ({"kind": "a\0b"}, "kind must not hold a NUL"),
    ({"kind": "\ud800"}, "kind must be text that UTF-8 can hold"),
    ({"args": [1]}, "args must be a JSON object"),
    ({"args": {"x": float("nan")}}, "args.x is nan: JSON has no NaN"),
    ({"args": {"a": {"b": [1, float("-inf")]}}}, r"args\.a\.b\[1\] is -inf: JSON has no infinity"),
    ({"args": {"x": b"bytes"}}, "args.x cannot be written as JSON: bytes b'bytes' has no JSON form"),
    ({"args": {"x": object}}, "args.x cannot be written as JSON"),
    ({"args": {"a": [{"b c": ({1: object()},)}]}}, r"args\.a\[0\]\['b c'\]\[0\]\[1\] cannot be written as JSON: object <object"),
    ({"args": {"a": ["x\0"]}}, r"args\.a\[0\] cannot be written as JSON: it holds a NUL character"),
    ({"args": {"a": {1: 2, "1": 3}}}, "args.a cannot be written as JSON: two members of an object have the name '1'"),
    ({"args": {"a": {"b": {("a", "b"): 1}}}}, r"args\.a\.b cannot be written as JSON: keys must be str"),
    ({"args": {"a": {float("nan"): 1}}}, "args.a cannot be written as JSON: nan is no name of a member"),
    ({"meta": {"a": [[float("nan")]]}}, r"meta\.a\[0\]\[0\] is nan"),
    ({"args": {"x": "\0"}}, "args"),
    ({"args": {"x": "\ud800"}}, "args.x cannot be written as JSON: it is no text: .*surrogates not allowed"),
    ({"args": {("a", "b"): 1}}, "args cannot be written as JSON: keys must be str"),
    ({"meta": "{}"}, "meta must be a JSON object"),
    ({"queue": ""}, "queue must"),
    ({"priority": 10}, "priority must be a whole number from 0 to 9, got 10"),
    ({"priority": 1.5}, "priority must be a whole number"),
    ({"priority": True}, "priority must be a whole number"),
    ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 1000"),
    ({"timeout": 0}, "timeout must be from 0.001"),
    ({"timeout": "1s"}, "timeout must be a timedelta or a number of seconds, got '1s'"),
    ({"schedule_in": -1}, "schedule_in must be from 0"),
    ({"schedule_at": datetime.datetime(2031, 1, 1)}, "schedule_at must have a time zone"),
    ({"schedule_at": "2031-01-01"}, "schedule_at must be a datetime"),
    ({"schedule_in": 1, "schedule_at": datetime.datetime(2031, 1, 1, tzinfo=UTC)}, "schedule_in and schedule_at cannot both be set"),
    ({"expires_in": 1, "schedule_in": 5}, "expires_"),
    ({"key": ""}, "key must"),
    ({"unique_key": "k" * 513}, "unique_key must"),
    ({"tags": "abc"}, "tags must be a sequence of str"),
    ({"tags": [1]}, r"tags\[0\] must be a str"),
    ({"tags": 7}, "tags must be a sequence of str"),
    ({"unique": "yes"}, "unique must be a jobq.Unique, True or None"),
    ({"unique": True, "unique_key": "k"}, "unique"),
    ({"on_conflict": "explode"}, "on_conflict must be one of ignore, replace, raise, got 'explode'"),
    ({"on_conflict": "replace", "unique": True, "replace": ["id"]}, "replace"),
])
@pytest.mark.parametrize("road", ["own", "connection"])
def test_a_wrong_argument_is_named(db, client, options, message, road):
    with db.connect() as conn:
        with pytest.raises(jobq.InvalidError, match=message):
            client.enqueue(**{"kind": "resize", **options}, connection=conn if road == "connection" else None)
    assert db.value("SELECT count(*) FROM jobq.all_jobs") == 0


@pytest.mark.parametrize("rule,message", [
    ({"fields": "kind"}, "unique.fields must be a sequence of kind, queue, args, meta"),
    ({"fields": ["colour"]}, "unique.fields must be"),
    ({"fields": []}, "unique.fields must name one"),
    ({"states": ["open"]}, "unique.states must be"),
    ({"keys": "path"}, "unique.keys must be"),
    ({"period": 0}, "unique.period must be more than 0"),
    ({"period": "1"}, "unique.period must be a timedelta"),
])
def test_a_wrong_rule_is_named(rule, message):
    with pytest.raises(jobq.InvalidError, match=message):
        jobq.Unique(**rule)


# ---- unique jobs ----

def test_unique_keys(db, client):
    first = client.enqueue("sync", unique_key="one")
    second = client.enqueue("sync", {"n": 2}, unique_key="one")
    assert (second.id, second.conflict, second.inserted) == (first.id, "ignored", False)
    third = client.enqueue("sync", {"n": 3}, unique_key="one", on_conflict="replace", replace=["args"])
    assert (third.id, third.conflict) == (first.id, "replaced")
    assert client.get(first).args == {"n": 3}
    with pytest.raises(jobq.ConflictError, match="is not unique"):
        client.enqueue("sync", unique_key="one", on_conflict=jobq.OnConflict.RAISE)


def test_unique_rules(db, client):
    rule = jobq.Unique(keys=["path"], period=datetime.timedelta(hours=1), states=["scheduled", "available"])
    first = client.enqueue("resize", {"path": "/a", "width": 1}, unique=rule)
    assert client.enqueue("resize", {"path": "/a", "width": 2}, unique=rule).id == first.id
    assert client.enqueue("resize", {"path": "/b", "width": 1}, unique=rule).inserted
    by_sql = db.query("""SELECT id, conflict FROM jobq.try_enqueue('resize', '{"path": "/a"}', unique_by =>
                         '{"keys": ["path"], "period": 3600, "states": ["scheduled", "available"]}')""")
    assert by_sql == [(first.id, "ignored")]
    client.cancel(first)
    assert client.enqueue("resize", {"path": "/a"}, unique=rule).inserted


def test_unique_true_is_by_kind_queue_and_args(client):
    first = client.enqueue("resize", {"a": 1}, unique=True)
    assert client.enqueue("resize", {"a": 1}, unique=True).id == first.id
    assert client.enqueue("resize", {"a": 1}, queue="other", unique=True).inserted
    assert client.enqueue("resize", {"a": 2}, unique=True).inserted


def test_replace_by_state(client):
    first = client.enqueue("resize", {"n": 1}, unique_key="k", schedule_in=3600)
    again = client.enqueue("resize", {"n": 2}, unique_key="k", priority=5, on_conflict="replace",
                           replace={"scheduled": ["priority"]})
    assert again.conflict == "replaced"
    job = client.get(first)
    assert (job.args, job.priority) == ({"n": 1}, 5)


# ---- many ----

def test_enqueue_many(db, client):
    jobs = [jobq.NewJob("a", {"n": i}, priority=i % 10, schedule_in=5 if i == 3 else None) for i in range(2500)]
    made = client.enqueue_many(job if i % 2 else {"kind": "a", "args": {"n": i}} for i, job in enumerate(jobs))
    assert [job.inserted for job in made] == [True] * 2500
    assert [job.id for job in made] == sorted(job.id for job in made)
    assert db.query("SELECT (args->>'n')::int, priority, state::text FROM jobq.jobs ORDER BY id LIMIT 4") == \
        [(0, 0, "available"), (1, 1, "available"), (2, 0, "available"), (3, 3, "scheduled")]


def test_enqueue_many_is_all_or_none(db, client):
    client.enqueue("a", unique_key="k")
    with pytest.raises(jobq.ConflictError, match="not unique"):
        client.enqueue_many([jobq.NewJob("a"), jobq.NewJob("a", unique_key="k", on_conflict="raise")])
    with pytest.raises(jobq.InvalidError, match=r"jobs\[1\].priority must be"):
        client.enqueue_many([jobq.NewJob("a"), jobq.NewJob("a", priority=11)])
    assert db.value("SELECT count(*) FROM jobq.jobs") == 1


def test_enqueue_many_with_conflicts(client):
    made = client.enqueue_many([jobq.NewJob("a", unique_key="x"), jobq.NewJob("a", unique_key="x"), jobq.NewJob("a")])
    assert [job.conflict for job in made] == ["", "ignored", ""]
    assert made[0].id == made[1].id != made[2].id


@pytest.mark.parametrize("jobs,message", [
    ({"kind": "a"}, "jobs must be an iterable of jobs"),
    (["a"], r"jobs\[0\] must be a jobq.NewJob or a mapping"),
    ([jobq.NewJob("a"), {"kin": "a"}], r"jobs\[1\] has no member 'kin'; allowed are args,"),
    ([jobq.NewJob("a"), jobq.NewJob("b", {"c": [float("nan")]})], r"jobs\[1\]\.args\.c\[0\] is nan: JSON has no NaN"),
    ([{"kind": "a", "colour": 1}], r"jobs\[0\] has no member 'colour'; allowed are args,"),
    ([{"args": {}}], r"jobs\[0\].kind must be given"),
])
def test_what_is_no_job_is_named(client, jobs, message):
    with pytest.raises(jobq.InvalidError, match=message):
        client.enqueue_many(jobs)


def test_no_jobs_are_none(client):
    assert client.enqueue_many([]) == []


# ---- one job ----

def test_get_tells_all(db, client):
    at = datetime.datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
    made = client.enqueue("resize", {"n": 10**17}, queue="media", priority=7, max_attempts=3, key="k", timeout=1.5,
                          schedule_at=at, expires_at=at + datetime.timedelta(1), unique_key="u", meta={"m": None})
    job = client.get(made)
    assert (job.id, job.state, job.queue, job.kind, job.args, job.meta, job.errors, job.result) == \
        (made.id, "scheduled", "media", "resize", {"n": 10**17}, {"m": None}, [], None)
    assert (job.key, job.unique_key, job.priority, job.attempt, job.max_attempts) == ("k", "u", 7, 0, 3)
    assert (job.timeout, job.scheduled_at, job.expires_at) == \
        (datetime.timedelta(seconds=1.5), at, at + datetime.timedelta(1))
    assert (job.attempted_at, job.finished_at, job.progress, job.progress_note, job.finished) == (None,) * 4 + (False,)
    assert job.inserted_at == db.value("SELECT inserted_at FROM jobq.jobs")
    assert client.get(int(made)) == client.get(job) == job


@pytest.mark.parametrize("road", ["own", "connection"])
def test_an_ended_job(db, client, road):
    made = client.enqueue("resize")
    assert client.cancel(made) is True
    with db.connect() as conn:
        job = client.get(made, connection=conn if road == "connection" else None)
    assert (job.state, job.finished) == ("cancelled", True)
    assert job.finished_at == db.value("SELECT finished_at FROM jobq.finished_jobs")
    assert [error.kind for error in job.errors] == [entry["kind"] for entry in
                                                    db.value("SELECT errors FROM jobq.finished_jobs")]


def test_cancel_retry_delete(client):
    job = client.enqueue("resize")
    assert client.retry(job) is False
    assert client.cancel(job) is True
    assert client.cancel(job) is False
    assert client.retry(job) is True
    assert client.get(job).state == "available"
    assert client.delete(job) is True
    for call in (client.get, client.cancel, client.retry, client.delete, client.wait):
        with pytest.raises(jobq.NotFoundError):
            call(job)


@pytest.mark.parametrize("wrong", [0, -1, 2**63, "7", True, None, 1.0])
def test_a_wrong_id_is_named(client, wrong):
    with pytest.raises(jobq.InvalidError, match="a job id must be a whole number from 1"):
        client.get(wrong)


# ---- wait ----

def test_wait_for_a_result(client, jobqd, db, programs):
    jobqd(db, {"default": {"command": programs("fault_worker")}})
    job = client.enqueue("ok")
    assert client.wait(job, timeout=60).state == "completed"
    assert client.wait(job).state == "completed"


def test_wait_is_late(client):
    job = client.enqueue("ok")
    for timeout in (0, 0.2, datetime.timedelta(milliseconds=5)):
        with pytest.raises(jobq.TimedOutError) as caught:
            client.wait(job, timeout)
        assert isinstance(caught.value, TimeoutError)


def test_the_words_of_a_long_wait(client, db):
    """The main thread's is several of C's."""
    job = client.enqueue("ok", schedule_in=3600)
    with pytest.raises(jobq.TimedOutError, match=rf"^job {job.id} is scheduled after 1.3 s$"):
        client.wait(job, 1.3)
    threading.Timer(1.2, lambda: client.delete(job)).start()
    with pytest.raises(jobq.NotFoundError, match=f"^job {job.id} is gone: it completed in a queue that keeps "):
        client.wait(job, 60)


def test_a_wait_is_interrupted_by_a_signal(client, db):
    """As by Ctrl-C, in the main thread of a program."""
    job = client.enqueue("ok")
    done = subprocess.run([sys.executable, "-c", f"""
import signal
import jobq

def handler(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
with jobq.Client({db.uri!r}) as client:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        client.wait({int(job)}, 250)
    except KeyboardInterrupt:
        print("interrupted")
    print(client.cancel({int(job)}))
"""], capture_output=True, text=True, timeout=200, env={**os.environ, "PYTHONPATH": str(pathlib.Path(jobq.__file__).parents[1])})
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\nTrue\n", "")


def test_a_wait_goes_on_over_lost_connections(db, client):
    job = client.enqueue("ok", schedule_in=3600)
    others = jobq.Client(db.uri)

    def lose_and_end():
        db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobq' "
                 "AND datname = current_database() AND pid <> pg_backend_pid()")
        others.cancel(job)

    threading.Timer(1.2, lose_and_end).start()
    assert client.wait(job, 60).state == "cancelled"
    others.close()


def test_other_threads_run_while_one_waits(client):
    """Each of these calls holds its thread in C; the counter counts on."""
    job = client.enqueue("ok")
    counted, ended = 0, threading.Event()

    def wait():
        with pytest.raises(jobq.TimedOutError):
            client.wait(job, 1)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not ended.is_set():
        counted += 1
    thread.join()
    assert counted > 10_000


# ---- many by filter, queues ----

def test_filters(db, client):
    ids = [client.enqueue("a" if i % 2 else "b", {"n": i}, queue="x", tags=["t"], key="k", priority=i % 3).id
           for i in range(10)]
    assert client.cancel_many(kind="a", args={"n": 1}) == 1
    assert client.cancel_many(ids=[ids[2], client.get(ids[3])]) == 2
    assert client.cancel_many(queue=["x", "y"], tags=["t"], key="k", priority=[0], limit=1) == 1
    assert client.retry_many(state=["cancelled"]) == 4
    soon = datetime.datetime.now(UTC) + datetime.timedelta(hours=1)
    assert client.delete_many(inserted_before=soon, state="available", limit=4) == 4
    assert client.delete_many(all=True) == 6
    with pytest.raises(jobq.InvalidError, match="filter"):
        client.delete_many()
    with pytest.raises(jobq.InvalidError, match="colour"):
        client.delete_many(colour="red")
    with pytest.raises(jobq.InvalidError, match="inserted_before must have a time zone"):
        client.delete_many(inserted_before=datetime.datetime.now())


def test_purge(client):
    for user in (1, 1, 2):
        client.cancel(client.enqueue("mail", {"user": user}, queue="mail"))
        client.enqueue("bill", {"user": user})
    assert client.purge({"user": 1}, kind="mail", queue="mail") == 2
    assert client.purge({"user": 1}) == 2
    with pytest.raises(jobq.InvalidError, match="args"):
        client.purge({})


def test_queues(db, client):
    assert client.pause("mail") is True
    assert client.pause("mail") is False
    assert client.pause("mail", node="n1") is True
    with pytest.raises(jobq.StateError):
        client.resume("mail", node="n1")
    assert client.resume("mail") is True
    assert client.scale("mail", 3) is True
    assert client.scale("mail", 5, node="n1") is True
    assert db.value("SELECT concurrency FROM jobq.queues WHERE name = 'mail'") == 3
    assert client.scale("mail", None) is True
    with pytest.raises(jobq.InvalidError, match="n must be a whole number from 0 to 1000"):
        client.scale("mail", 1001)
    with pytest.raises(jobq.InvalidError, match="queue must"):
        client.pause("")


# ---- connections ----

def test_many_threads_share_a_client(db):
    with jobq.Client(db.uri, max_connections=3) as client:
        made = []

        def work(n):
            for i in range(50):
                made.append(client.enqueue("a", {"n": n, "i": i}).id)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq' AND datname = %s",
                                      (db.name,)))
        assert len(set(made)) == 600 == db.value("SELECT count(*) FROM jobq.jobs")
        assert 1 <= most <= 3


def test_waits_do_not_use_up_the_connections(db):
    with jobq.Client(db.uri, max_connections=1) as client:
        job = client.enqueue("a")
        threads = [threading.Thread(target=client.wait, args=(job,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert client.cancel(job)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("call", [lambda client: client.enqueue("a").inserted, lambda client: client.pause("mail"),
                                  lambda client: client.cancel_many(all=True) == 1], ids=["enqueue", "pause", "cancel_many"])
def test_a_lost_connection_is_made_anew(db, client, call):
    client.enqueue("a")
    ours = db.query("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'jobq' AND datname = current_database()")
    assert len(ours) == 1
    wait_for(lambda: not os.path.exists(f"/proc/{ours[0][0]}"))
    assert call(client) is True


def test_a_child_of_fork_has_connections_of_its_own(db, client):
    first = client.enqueue("a")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if client.enqueue("child").inserted and client.get(first).kind == "a" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert client.enqueue("a").inserted
    assert db.value("SELECT count(*) FROM jobq.jobs") == 3


def test_a_closed_client_says_so(db):
    client = jobq.Client(db.uri)
    client.enqueue("a")
    client.close()
    client.close()
    with pytest.raises(jobq.StateError, match="the client is closed"):
        client.enqueue("a")
    wait_for(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq' AND datname = %s",
                              (db.name,)) == 0)


def test_no_database_is_an_error(tmp_path):
    with jobq.Client(f"postgresql:///x?host={tmp_path}") as client:
        with pytest.raises(jobq.ConnectionLostError) as caught:
            client.enqueue("a")
    assert isinstance(caught.value, ConnectionError)


def test_no_schema_is_an_error(empty_db):
    with jobq.Client(empty_db.uri) as client:
        with pytest.raises(jobq.SchemaError, match="jobqd migrate status"):
            client.enqueue("a")


@pytest.mark.parametrize("options,message", [
    ({"schema": "No"}, "schema must be"), ({"schema": ""}, "schema must be"), ({"dsn": 7}, "dsn must be a str"),
    ({"max_connections": 0}, "max_connections must be a whole number from 1"),
])
def test_wrong_options_of_a_client_are_named(options, message):
    with pytest.raises(jobq.InvalidError, match=message):
        jobq.Client(**options)


def test_another_schema(empty_db, cli):
    cli("migrate", "up", "--schema", "other", db=empty_db)
    with jobq.Client(empty_db.uri, schema="other") as client:
        job = client.enqueue("a", {"n": 1})
        client.enqueue_many([jobq.NewJob("b")])
        assert client.get(job).args == {"n": 1}
        assert client.cancel_many(kind="b") == 1
        with empty_db.connect() as conn:
            assert client.enqueue("c", connection=conn).inserted
        assert client.schema == "other"
    assert empty_db.query("SELECT kind FROM other.jobs ORDER BY id") == [("a",), ("c",)]


def test_environment_names_the_database(db, monkeypatch):
    for name, value in zip(("PGHOST", "PGUSER", "PGDATABASE"), (str(db.cluster.dir), "admin", db.name)):
        monkeypatch.setenv(name, value)
    with jobq.Client() as client:
        assert client.enqueue("a", json.loads("{}")).inserted


def test_a_job_without_max_attempts_has_the_queue_s(db, client):
    db.query("INSERT INTO jobq.queues (name, max_attempts) VALUES ('media', 3)")
    jobs = [client.enqueue("k", queue="media"), client.enqueue("k", queue="media", max_attempts=20), client.enqueue("k")]
    jobs += client.enqueue_many([jobq.NewJob("k", queue="media"), jobq.NewJob("k", queue="media", max_attempts=5)])
    jobs += client.enqueue_many([jobq.NewJob("k", queue="media"), jobq.NewJob("k", queue="media", unique_key="u")])
    jobs += client.enqueue_many([jobq.NewJob("k", queue="media")])
    assert [client.get(job).max_attempts for job in jobs] == [3, 20, 20, 3, 5, 3, 3, 3]


# ---- addresses ----

@pytest.mark.parametrize("dsn,shown", [
    ("postgresq:///app", "postgresq:///app"), ("postgres//app", "postgres//app"), ("host:5432", "host:5432"),
    ("postgresql+psycopg://ann:secret@db/app", "****@db/app"), ("postgresq:///app?sslmode=require", "postgresq:///app"),
    ("ann:secret@db", "****@db"), (lambda: "postgresq:///app", "postgresq:///app")])
def test_what_is_nearly_a_uri_is_refused(dsn, shown):
    """As jobqd's command line does: libpq would look for a database of that name."""
    with pytest.raises(jobq.InvalidError) as caught:
        jobq.Client(dsn)
    assert str(caught.value).startswith(f'dsn: "{shown}') and "is neither a URI such as postgresql://USER@HOST" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dsn", ["app", "dbname=a/b@c:d", "postgres:///app", "postgresql://u:p@h:1/app?a=b://c", "host=/tmp"])
def test_what_libpq_reads_is_taken(dsn):
    jobq.Client(dsn).close()


def test_the_error_of_a_default_that_failed_says_so(monkeypatch):
    from jobq import get_client, set_client
    for name in ("JOBQ_DATABASE", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGHOST", "/nonexistent")
    set_client(None)
    try:
        with pytest.raises(jobq.ConnectionLostError, match="neither JOBQ_DATABASE nor DATABASE_URL is set, so libpq's default was tried"):
            get_client().get(1)
        set_client(None)
        monkeypatch.setenv("DATABASE_URL", "postgresq:///app")
        with pytest.raises(jobq.InvalidError, match='^DATABASE_URL: "postgresq:///app" is neither'):
            get_client()
        monkeypatch.setenv("JOBQ_DATABASE", "host=/nowhere")
        with pytest.raises(jobq.ConnectionLostError) as caught:
            get_client().get(1)
        assert "was tried" not in str(caught.value)
    finally:
        set_client(None)
    with jobq.Client() as client, pytest.raises(jobq.ConnectionLostError, match=r"\(no dsn was given, so libpq's default was tried\)"):
        client.get(1)


# ---- interrupted ----

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jobq'"


def test_a_soft_limit_while_the_client_connects_loses_no_connection(db):
    """In a thread it may come between any two instructions."""
    from jobq import _soft
    client = jobq.Client(db.uri, schema=db.schema, max_connections=1)

    def work():
        while True:
            client.enqueue("child")

    def run():
        for _ in range(40):
            with pytest.raises(jobq.SoftTimeout):
                _soft.in_this_thread(work, 0.001)  # connecting takes longer

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert db.value(CONNECTIONS) <= 1
    client.enqueue("child")  # the one that is allowed is still there
    client.close()
    wait_for(lambda: db.value(CONNECTIONS) == 0)
