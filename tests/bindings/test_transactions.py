"""Enqueueing in the application's own transaction, on every kind of connection: what commits is there, what rolls back never
was, and errors are jobq's with the driver's as their cause."""

import contextlib
import datetime
import threading

import psycopg
import psycopg2
import pytest
import sqlalchemy
import sqlalchemy.orm
from psycopg.rows import dict_row
from psycopg2.extras import RealDictCursor

import jobq
from jobq import _connections, _operations

UTC = datetime.timezone.utc


class Way:
    """A kind of connection: what to hand to jobq, and how it commits and rolls back."""

    def __init__(self, connection, commit, rollback, close, execute=None):
        self.connection, self.commit, self.rollback, self.close = connection, commit, rollback, close
        self.execute = execute or (lambda sql: connection.cursor().execute(sql))


def psycopg3(db):
    conn = psycopg.connect(db.uri)
    return Way(conn, conn.commit, conn.rollback, conn.close)


def psycopg3_begun(db):
    way = psycopg3(db)
    way.execute("SELECT 1")
    return way


def psycopg3_dicts(db):
    conn = psycopg.connect(db.uri, row_factory=dict_row)
    return Way(conn, conn.commit, conn.rollback, conn.close)


def psycopg_2(db):
    conn = psycopg2.connect(db.uri)
    return Way(conn, conn.commit, conn.rollback, conn.close)


def psycopg_2_dicts(db):
    conn = psycopg2.connect(db.uri, cursor_factory=RealDictCursor)
    return Way(conn, conn.commit, conn.rollback, conn.close)


def engine(db, **options):
    return sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(db.uri), **options)


def sqlalchemy_session(db):
    source = engine(db)
    session = sqlalchemy.orm.Session(source)

    def close():
        session.close()
        source.dispose()
    return Way(session, session.commit, session.rollback, close, lambda sql: session.execute(sqlalchemy.text(sql)))


def sqlalchemy_scoped(db):
    source = engine(db)
    session = sqlalchemy.orm.scoped_session(sqlalchemy.orm.sessionmaker(source))

    def close():
        session.remove()
        source.dispose()
    return Way(session, session.commit, session.rollback, close, lambda sql: session.execute(sqlalchemy.text(sql)))


def sqlalchemy_connection(db):
    source = engine(db, future=True)
    conn = source.connect()

    def close():
        conn.close()
        source.dispose()
    return Way(conn, conn.commit, conn.rollback, close, lambda sql: conn.execute(sqlalchemy.text(sql)))


def django_connection(db):
    from django.db.backends.postgresql.base import DatabaseWrapper
    conn = DatabaseWrapper({
        "ENGINE": "django.db.backends.postgresql", "NAME": db.name, "USER": "admin", "PASSWORD": "", "HOST": str(db.cluster.dir),
        "PORT": "", "OPTIONS": {}, "TIME_ZONE": None, "CONN_MAX_AGE": 0, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False,
        "TEST": {}, "CONN_HEALTH_CHECKS": False})
    conn.set_autocommit(False)
    return Way(conn, conn.commit, conn.rollback, conn.close)


WAYS = [psycopg3, psycopg3_begun, psycopg3_dicts, psycopg_2, psycopg_2_dicts, sqlalchemy_session, sqlalchemy_scoped,
        sqlalchemy_connection, django_connection]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request, db):
    way = request.param(db)
    yield way
    way.close()


@pytest.fixture
def offline():
    """A client whose own connections would fail."""
    with jobq.Client("host=/nonexistent") as client:
        yield client


def kinds(db):
    return [kind for kind, in db.query("SELECT kind FROM jobq.jobs ORDER BY id")]


def test_a_commit_takes_the_job_along(db, offline, way):
    job = offline.enqueue("one", {"n": 1}, connection=way.connection)
    jobs = offline.enqueue_many([{"kind": "two"}, {"kind": "three", "schedule_in": 60}], connection=way.connection)
    assert kinds(db) == []
    way.commit()
    assert kinds(db) == ["one", "two", "three"]
    assert [int(made) for made in (job, *jobs)] == [id for id, in db.query("SELECT id FROM jobq.jobs ORDER BY id")]


def test_a_rollback_takes_the_job_along(db, offline, way):
    made = offline.enqueue("one", connection=way.connection)
    offline.enqueue_many([{"kind": "two"}], connection=way.connection)
    assert offline.get(made, connection=way.connection).kind == "one"
    way.rollback()
    assert kinds(db) == []
    offline.enqueue("three", connection=way.connection)
    way.commit()
    assert kinds(db) == ["three"]


def test_every_option_is_the_same_on_every_way(db, client, way):
    at = datetime.datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
    options = dict(queue="media", priority=7, max_attempts=3, timeout=1.5, schedule_at=at, expires_at=at + datetime.timedelta(1),
                   key='k "1"', tags=["a", "b,c"], meta={"m": [1, None, "%s"]})
    unique = dict(unique=jobq.Unique(keys=["n"], period=60), on_conflict="replace", replace={"scheduled": ["priority"]})
    jobs = [jobq.NewJob("resize", {"n": n, "path": "/å"}, **options, **unique) for n in range(2)]
    reference = client.enqueue("resize", {"n": 0, "path": "/å"}, **options)
    alone = offline_enqueue(client, jobs[0], way.connection)
    many = client.enqueue_many(jobs, connection=way.connection)
    way.commit()
    assert [job.conflict for job in (alone, *many)] == ["", "replaced", ""]
    assert many[0].id == alone.id
    columns = "state, queue, kind, priority, max_attempts, timeout_ms, scheduled_at, expires_at, key, tags, meta, args->>'path'"
    rows = db.query(f"SELECT DISTINCT {columns} FROM jobq.jobs")
    assert len(rows) == 1 and db.value("SELECT count(*) FROM jobq.jobs") == 3
    assert reference.inserted


def offline_enqueue(client, job, connection):
    members = {name: getattr(job, name) for name in jobq.NewJob.__dataclass_fields__}
    return client.enqueue(**members, connection=connection)


def test_delays_are_the_databases(db, offline, way):
    offline.enqueue("one", schedule_in=600, expires_in=1200, connection=way.connection)
    offline.enqueue_many([{"kind": "two", "schedule_in": 600, "expires_in": 1200}, {"kind": "three"}],
                         connection=way.connection)
    way.commit()
    for left, after in db.query("SELECT scheduled_at - now(), expires_at - now() FROM jobq.jobs WHERE kind <> 'three'"):
        assert 500 < left.total_seconds() <= 600 and 1100 < after.total_seconds() <= 1200
    assert db.value("SELECT scheduled_at <= now() FROM jobq.jobs WHERE kind = 'three'")


def test_everything_else(db, client, offline, way):
    job = client.enqueue("resize", {"n": 1}, queue="media", expires_in=3600)
    conn = way.connection
    assert offline.get(job, connection=conn) == client.get(job)
    assert offline.cancel(job, connection=conn) is True
    assert client.get(job).state == "available"
    way.commit()
    assert offline.get(job, connection=conn) == client.get(job)
    assert offline.retry(job, connection=conn) is True
    assert offline.retry(job, connection=conn) is False
    assert offline.cancel_many(kind="resize", args={"n": 1}, connection=conn) == 1
    assert offline.retry_many(ids=[job], connection=conn) == 1
    assert offline.delete(job, connection=conn) is True
    way.commit()
    client.enqueue_many([{"kind": "mail", "args": {"user": 1}}] * 3)
    assert offline.delete_many(kind="mail", limit=1, connection=conn) == 1
    assert offline.purge({"user": 1}, kind="mail", connection=conn) == 2
    assert offline.pause("mail", connection=conn) is True
    assert offline.scale("mail", 3, node="n1", connection=conn) is True
    assert offline.scale("mail", None, connection=conn) is True
    assert offline.resume("mail", connection=conn) is True
    way.commit()
    with pytest.raises(jobq.NotFoundError, match="no job has the id"):
        offline.get(job, connection=conn)
    way.rollback()
    assert kinds(db) == []


def test_what_a_worker_wrote_reads_the_same_on_every_way(db, client, offline, way, jobqd, programs, tmp_path):
    node = jobqd(db, {"default": {"command": programs("fault_worker")}})
    done = client.enqueue("ok")
    failed = client.enqueue("no_such_kind", max_attempts=1)
    for job in (done, failed):
        mine = client.wait(job, 60)
        assert offline.get(job, connection=way.connection) == mine
    assert [error.kind for error in mine.errors] == ["unhandled"]
    assert mine.attempted_at <= mine.errors[0].at <= mine.finished_at
    way.rollback()
    node.stop()


@pytest.mark.parametrize("break_it,error", [
    (lambda client, conn: client.cancel(4711, connection=conn), jobq.NotFoundError),
    (lambda client, conn: client.enqueue("a", queue="", connection=conn), jobq.InvalidError),
    (lambda client, conn: client.enqueue("a", {"x": "\0"}, connection=conn), jobq.InvalidError),
    (lambda client, conn: client.enqueue("a", unique_key="taken", on_conflict="raise", connection=conn), jobq.ConflictError),
    (lambda client, conn: client.enqueue_many([{"kind": "a", "tags": [""]}, {"kind": ""}], connection=conn), jobq.InvalidError),
    (lambda client, conn: client.delete_many(colour="red", connection=conn), jobq.InvalidError),
], ids=["not_found", "invalid", "nul", "conflict", "many", "filter"])
def test_the_same_error_on_every_way(db, client, offline, way, break_it, error):
    client.enqueue("first", unique_key="taken")
    with pytest.raises(error):
        break_it(offline, way.connection)
    way.rollback()
    offline.enqueue("second", connection=way.connection)
    way.commit()
    assert kinds(db) == ["first", "second"]


def test_a_failed_transaction_is_refused(db, offline, way):
    with pytest.raises(Exception, match="nowhere"):
        way.execute("SELECT FROM nowhere")
    with pytest.raises(Exception) as caught:
        offline.enqueue("one", connection=way.connection)
    assert isinstance(caught.value, jobq.StateError) or "roll" in str(caught.value).lower()
    way.rollback()
    assert kinds(db) == []


@pytest.mark.untrapped
def test_without_a_schema_it_says_so(empty_db, offline):
    for make in WAYS:
        way = make(empty_db)
        with pytest.raises(jobq.SchemaError):
            offline.enqueue("one", connection=way.connection)
        way.rollback()
        way.close()


# ---- what is special with each ----

def test_psycopg_goes_by_pointer_inside_a_transaction_alone(db, offline, monkeypatch):
    by_cursor = []
    monkeypatch.setattr(_connections, "_by_cursor", lambda *args, old=_connections._by_cursor:
                        (by_cursor.append(1), old(*args))[1])
    with psycopg.connect(db.uri) as conn:
        offline.enqueue("first", connection=conn)  # psycopg has not sent BEGIN yet
        assert len(by_cursor) == 1
        offline.enqueue("second", connection=conn)
        assert len(by_cursor) == 1
        with conn.transaction(), conn.pipeline():
            offline.enqueue("third", connection=conn)
        assert len(by_cursor) == 2
        assert kinds(db) == []
    with psycopg.connect(db.uri, autocommit=True) as conn:
        offline.enqueue("fourth", connection=conn)
        assert len(by_cursor) == 2
        with contextlib.suppress(ZeroDivisionError), conn.transaction():
            offline.enqueue("never", connection=conn)
            raise ZeroDivisionError
    assert kinds(db) == ["first", "second", "third", "fourth"]


def test_two_libpqs_in_the_process_mean_the_cursor(db, offline, monkeypatch):
    monkeypatch.setattr(_connections, "one_libpq", lambda: False)
    monkeypatch.setattr(_connections, "_execute", lambda *args, old=_connections._execute: (used.append(1), old(*args))[1])
    used = []
    with psycopg.connect(db.uri) as conn:
        conn.execute("SELECT 1")
        offline.enqueue("first", connection=conn)
    assert used and kinds(db) == ["first"]


def test_savepoints_roll_back(db, offline):
    with psycopg.connect(db.uri) as conn:
        offline.enqueue("kept", connection=conn)
        with contextlib.suppress(ZeroDivisionError), conn.transaction():
            offline.enqueue("lost", connection=conn)
            raise ZeroDivisionError
    assert kinds(db) == ["kept"]


def test_django_atomic(db, offline):
    from django.db import connections, transaction
    way = django_connection(db)
    way.connection.set_autocommit(True)
    connections["default"] = way.connection
    with pytest.raises(jobq.NotFoundError), transaction.atomic():
        offline.enqueue("lost", connection=connections["default"])
        offline.cancel(4711, connection=connections["default"])
    with transaction.atomic():
        offline.enqueue("kept", connection=connections["default"])
        with contextlib.suppress(jobq.NotFoundError), transaction.atomic():
            offline.enqueue("lost", connection=connections["default"])
            offline.cancel(4711, connection=connections["default"])
    offline.enqueue("kept too", connection=connections["default"])
    way.close()
    assert kinds(db) == ["kept", "kept too"]


@pytest.mark.untrapped
def test_a_legacy_sqlalchemy_connection_would_lose_the_job(db, offline):
    source = engine(db)
    with source.connect() as conn:
        with pytest.raises(jobq.StateError, match="begin one with connection.begin"):
            offline.enqueue("lost", connection=conn)
        with conn.begin():
            offline.enqueue("kept", connection=conn)
    with source.begin() as conn:
        offline.enqueue("kept too", connection=conn)
    source.dispose()
    assert kinds(db) == ["kept", "kept too"]


def test_a_legacy_sqlalchemy_connection_of_another_database():
    source = sqlalchemy.create_engine("sqlite://")
    with source.begin() as conn, jobq.Client() as client, pytest.raises(jobq.InvalidError, match="dialect is sqlite"):
        client.enqueue("a", connection=conn)


@pytest.mark.parametrize("wrong", [7, "postgresql:///x", object()])
def test_what_is_no_connection_is_named(offline, wrong):
    with pytest.raises(jobq.InvalidError, match="connection must be a psycopg or psycopg2 connection, a SQLAlchemy"):
        offline.enqueue("a", connection=wrong)


def test_a_closed_connection(db, offline):
    for make in (psycopg3, psycopg_2):
        way = make(db)
        way.close()
        with pytest.raises(Exception, match="closed"):
            offline.enqueue("a", connection=way.connection)


@pytest.mark.parametrize("make", [psycopg3_begun, psycopg_2, sqlalchemy_session, sqlalchemy_connection])
def test_other_threads_run_while_a_connection_waits_for_a_lock(db, client, make):
    """The GIL is not held while the database makes us wait."""
    way = make(db)
    job = client.enqueue("one", unique_key="k")
    counted, ended = 0, threading.Event()
    with psycopg.connect(db.uri) as locker:
        locker.execute("SELECT FROM jobq.jobs WHERE id OPERATOR(pg_catalog.=) %s FOR UPDATE", (job.id,))

        def cancel():
            client.cancel(job, connection=way.connection)
            ended.set()
        thread = threading.Thread(target=cancel)
        thread.start()
        while counted < 10_000 and not ended.is_set():
            counted += 1
        assert not ended.is_set()
    thread.join(60)
    assert ended.is_set() and counted == 10_000
    way.commit()
    assert client.get(job).state == "cancelled"
    way.close()


# ---- conflicts, E2 ----

def test_a_conflict_leaves_the_transaction_as_it_was(client, offline, db, way):
    """What the application has written before commits, and so does what comes after the error."""
    client.enqueue("there", unique_key="taken")
    unique = jobq.Unique(fields=["kind"], keys=[])
    client.enqueue("other", unique=unique)
    conn = way.connection
    offline.enqueue("before", connection=conn)
    for options, same in [({"unique_key": "taken"}, 'unique key, "taken"'), ({"kind": "other", "unique": unique}, "kind")]:
        with pytest.raises(jobq.ConflictError, match=f"^jobq.try_enqueue is not unique: job [12] has the same {same}$"):
            offline.enqueue(options.pop("kind", "a"), on_conflict="raise", connection=conn, **options)
    with pytest.raises(jobq.ConflictError):
        offline.enqueue_many([jobq.NewJob("lost"), jobq.NewJob("b", unique_key="taken", on_conflict="raise")], connection=conn)
    offline.enqueue_many([jobq.NewJob("c", unique_key="new", on_conflict="raise")], connection=conn)
    offline.enqueue("after", unique_key="newer", on_conflict="raise", connection=conn)
    way.commit()
    assert kinds(db) == ["there", "other", "before", "c", "after"]


@pytest.mark.parametrize("broken", [False, True])
def test_an_interrupted_call_is_interrupted(offline, db, broken):
    """Ctrl-C in a driver's call is what the application sees, and not what the driver says of the statements after it; where
    the connection is still good the transaction goes on as it was."""
    way = psycopg_2(db)
    offline.enqueue("before", connection=way.connection)
    jobs = [jobq.NewJob("lost", unique_key="k", on_conflict="raise")]
    operation = _operations.enqueue_many(None, jobs, True)
    with contextlib.closing(way.connection.cursor()) as cursor:
        def execute(sql, params):
            cursor.execute(sql, params)
            if "try_enqueue" in sql:
                if broken:
                    way.close()
                raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            _connections._execute(execute, cursor.fetchall, operation, True)
    if not broken:
        offline.enqueue("after", connection=way.connection)
        way.commit()
        way.close()
    assert kinds(db) == ([] if broken else ["before", "after"])


@pytest.mark.parametrize("autocommit", ["psycopg", "psycopg2", "sqlalchemy", "django"])
def test_a_conflict_without_a_transaction(client, offline, db, autocommit):
    """All or none, as ever; there is no savepoint then."""
    client.enqueue("there", unique_key="taken")
    if autocommit == "sqlalchemy":
        way = sqlalchemy_connection(db)
        conn = way.connection.execution_options(isolation_level="AUTOCOMMIT")
    else:
        way = {"psycopg": psycopg3, "psycopg2": psycopg_2, "django": django_connection}[autocommit](db)
        conn = way.connection
        conn.set_autocommit(True) if autocommit == "django" else setattr(conn, "autocommit", True)
    with pytest.raises(jobq.ConflictError):
        offline.enqueue_many([jobq.NewJob("lost"), jobq.NewJob("b", unique_key="taken", on_conflict="raise")], connection=conn)
    offline.enqueue_many([jobq.NewJob("kept", unique_key="x", on_conflict="raise")], connection=conn)
    way.close()
    assert kinds(db) == ["there", "kept"]


# ---- E6: what stands for a connection, and what does not ----

class Proxy:
    """As tracing libraries wrap connections: isinstance() and every attribute are those of what is within."""

    def __init__(self, inner):
        object.__setattr__(self, "inner", inner)

    @property
    def __class__(self):
        return type(self.inner)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __setattr__(self, name, value):
        setattr(self.inner, name, value)


def test_a_connection_in_a_proxy(offline, db, way):
    offline.enqueue("proxied", connection=Proxy(way.connection))
    offline.enqueue_many([jobq.NewJob("b", unique_key="k", on_conflict="raise")], connection=Proxy(way.connection))
    way.commit()
    assert kinds(db) == ["proxied", "b"]


def test_what_is_near_a_connection_is_named(db, offline):
    conn, other, source = psycopg.connect(db.uri), psycopg2.connect(db.uri), engine(db)
    import django.db
    from django.db import connections
    wrapped = django_connection(db)
    rows = [
        (conn.cursor(), "a psycopg.Cursor: hand over the connection that it is of"),
        (other.cursor(), "a psycopg2.extensions.cursor: hand over the connection that it is of"),
        (source, "a sqlalchemy.*Engine: hand over a connection in a transaction, as `with engine.begin.. as connection` has"),
        (sqlalchemy.orm.sessionmaker(source), "a sqlalchemy.*sessionmaker: hand over a session that it has made"),
        (wrapped.connection.cursor() if wrapped.connection else conn.cursor(), "hand over the connection"),
        (connections, "a django.*ConnectionHandler: hand over one of them"), (psycopg.Transaction(conn), "Transaction: hand over its connection"),
        (psycopg.Connection, "the class psycopg.Connection"), (db.uri, "a str; a client is opened on a connection string"), (7, "got a builtins.int"),
    ]
    for thing, words in rows:
        with pytest.raises(jobq.InvalidError, match=f"connection must be a psycopg or psycopg2 connection, .*{words}"):
            offline.enqueue("a", connection=thing)
    conn.close(), other.close(), wrapped.close()
    assert django.db is not None
