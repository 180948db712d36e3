"""The history's partitions: made ahead, filled from the default ones, dropped when they are past their time."""

import threading

import psycopg
import pytest

from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

CLASSES = {"completed": "_finished_completed", "cancelled": "_finished_failed", "discarded": "_finished_failed"}


def put(db, state, days_ago, count=1):
    """Ended jobs, so many days old, by the way that an ack takes."""
    db.query("""INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts,
                       priority, queue, kind, args, meta, tags, errors)
                SELECT nextval('jobq.jobs_id_seq'), now(), now(), now() - %s * interval '1 day', %s::jobq.job_state, 1, 20, 0,
                       'default', 'a', '{}', '{}', '{}', '[]' FROM generate_series(1, %s)""", [days_ago, state, count])


def day(db, days_ago):
    return db.value("SELECT to_char((now() - %s * interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD')", [days_ago])


def where(db):
    """{partition: rows}"""
    return dict(db.query("SELECT tableoid::regclass::text, count(*) FROM jobq.finished_jobs GROUP BY 1"))


def partitions(db):
    return {row[0] for row in db.query("""SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('jobq._finished_completed'::regclass, 'jobq._finished_failed'::regclass)
          AND c.relname !~ 'default$'""")}


def create(db, days_ago, days):
    return db.value("SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date - %s, %s)", [days_ago, days])


def test_a_migrated_schema_has_partitions_for_today_and_the_days_to_come(db):
    expected = {f"{parent}_p{day(db, -n)}" for parent in CLASSES.values() for n in range(4)}
    assert partitions(db) == expected


def test_making_partitions_is_idempotent(db):
    assert create(db, 0, 4) == 0
    assert create(db, 0, 6) == 4


@pytest.mark.parametrize("state", CLASSES)
def test_ended_jobs_go_to_their_day(db, state):
    put(db, state, 0)
    put(db, state, 40)
    assert where(db) == {f"jobq.{CLASSES[state]}_p{day(db, 0)}": 1, f"jobq.{CLASSES[state]}_default": 1}


@pytest.mark.parametrize("state", CLASSES)
def test_a_new_partition_takes_its_rows_from_the_default_one(db, state):
    put(db, state, 40, 3)
    put(db, state, 41, 2)
    assert create(db, 40, 1) == 2
    assert where(db) == {f"jobq.{CLASSES[state]}_p{day(db, 40)}": 3, f"jobq.{CLASSES[state]}_default": 2}


def test_partitions_have_the_index_that_finds_a_job(db):
    bare = db.query("""SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = 'jobq'::regnamespace AND c.relname ~ '^finished_.*_p[0-9]+$' AND c.relkind = 'r'
          AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                                   JOIN pg_inherits h ON h.inhrelid = x.oid
                           WHERE i.indrelid = c.oid AND pg_get_indexdef(x.oid) LIKE '%USING brin (id)%')""")
    assert bare == []


def test_the_days_are_utc_whatever_the_session_says(db):
    with db.connect() as conn:
        conn.execute("SET timezone = 'Pacific/Kiritimati'")
        conn.execute("SET datestyle = 'German'")
        conn.execute("SELECT jobq._create_partitions('2031-05-06', 1)")
    assert db.value("""SELECT pg_get_expr(relpartbound, oid) = $$FOR VALUES FROM ('2031-05-06 00:00:00+00') TO $$
                              || $$('2031-05-07 00:00:00+00')$$
                         FROM (SELECT set_config('timezone', 'UTC', false)) s, pg_class
                        WHERE relname = '_finished_completed_p20310506'""")


def test_old_partitions_are_dropped_one_a_call_oldest_first(db):
    create(db, 40, 41)
    drop = "SELECT jobq._drop_partitions('7 days', '30 days')"
    before = partitions(db)
    assert db.value(drop) == 1
    assert before - partitions(db) == {f"_finished_completed_p{day(db, 40)}"}
    calls = 1
    while db.value(drop) == 1:
        calls += 1
    assert db.value(drop) == 0
    # A day is past its time when its end is: of 7 days ago, a part is younger.
    kept = partitions(db)
    assert {name for name in kept if "completed" in name} == {f"_finished_completed_p{day(db, n)}" for n in range(-3, 8)}
    assert {name for name in kept if "failed" in name} == {f"_finished_failed_p{day(db, n)}" for n in range(-3, 31)}
    assert calls == len(before) - len(kept) - 1


def test_old_rows_of_the_default_partitions_are_deleted_in_batches(db):
    put(db, "completed", 10, 25000)
    put(db, "discarded", 10, 5)
    put(db, "discarded", 50, 5)
    answers = []
    while not answers or answers[-1] == 1:
        answers.append(db.value("SELECT jobq._drop_partitions('7 days', '30 days')"))
    assert answers == [1, 1, 0]
    assert where(db) == {"jobq._finished_failed_default": 5}


def test_a_reader_in_the_way_is_not_waited_for(db):
    """It fails soon, so that acks, which queue up behind a waiting lock, go on."""
    with db.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM jobq.finished_jobs")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            db.query("SELECT jobq._create_partitions('2031-01-01', 1)")
        put(db, "completed", 0)
    db.query("SELECT jobq._create_partitions('2031-01-01', 1)")


def test_a_partition_that_is_read_is_dropped_later(db):
    """The reader keeps neither the others nor what is in the default partition."""
    create(db, 42, 3)
    put(db, "completed", 50, 7)
    drop = "SELECT jobq._drop_partitions('7 days', '7 days')"
    with db.connect(autocommit=False) as reader:
        reader.execute(f"SELECT count(*) FROM ONLY jobq._finished_completed_p{day(db, 42)}")
        answers = [db.value(drop)]
        while answers[-1] == 1:
            answers.append(db.value(drop))
        put(db, "completed", 0)
        assert answers == [1, 1, 1, 1, -1]
        assert db.value(drop) == -1
        assert f"_finished_completed_p{day(db, 42)}" in partitions(db)
        assert f"_finished_completed_p{day(db, 41)}" not in partitions(db)
        assert where(db) == {f"jobq._finished_completed_p{day(db, 0)}": 1}
    assert db.value(drop) == 0
    assert f"_finished_completed_p{day(db, 42)}" not in partitions(db)


def test_what_cannot_be_deleted_from_the_default_partition_keeps_nothing_else(db):
    """One of a batch that is full."""
    put(db, "completed", 50, 12000)
    db.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
             f" CREATE TRIGGER refuse BEFORE DELETE ON jobq._finished_completed_default FOR EACH ROW"
             f" WHEN (OLD.id = {db.value('SELECT min(id) FROM jobq.finished_jobs')}) EXECUTE FUNCTION public.refuse()")
    drop = "SELECT jobq._drop_partitions('7 days', '7 days')"
    assert [db.value(drop), db.value(drop)] == [1, 0]
    assert where(db) == {"jobq._finished_completed_default": 1}


def test_acks_go_on_beside_the_making_of_partitions(db):
    """An ack in an open transaction holds up no maker, and the maker no ack: they meet on the parent alone."""
    with db.connect(autocommit=False) as acker:
        acker.execute("""INSERT INTO jobq._finished_completed (id, inserted_at, scheduled_at, finished_at, state, attempt,
                                max_attempts, priority, queue, kind, args, meta, tags, errors)
                         VALUES (1, now(), now(), now(), 'completed', 1, 20, 0, 'default', 'a', '{}', '{}', '{}', '[]')""")
        assert create(db, -10, 2) == 4
        with db.connect(autocommit=False) as maker:
            maker.execute("SELECT jobq._create_partitions('2031-01-01', 1)")
            put(db, "completed", 0)
        acker.commit()
    assert where(db) == {f"jobq._finished_completed_p{day(db, 0)}": 2}


def test_two_makers_at_once(db):
    with db.connect(autocommit=False) as first, db.connect() as second:
        first.execute("SELECT jobq._create_partitions('2031-01-01', 1)")
        answer = []

        def make():
            try:
                answer.append(second.execute("SELECT jobq._create_partitions('2031-01-01', 1)").fetchone()[0])
            except psycopg.errors.LockNotAvailable:
                answer.append("busy")
        thread = threading.Thread(target=make)
        thread.start()
        wait_for(lambda: answer or db.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s",
                                            [second.info.backend_pid]), what="the second maker to wait")
        first.commit()
        thread.join()
    assert answer[0] in (0, "busy")
    assert {"_finished_completed_p20310101", "_finished_failed_p20310101"} <= partitions(db)


@pytest.mark.parametrize("sql,message", [
    ("_create_partitions(NULL, 1)", "jobq._create_partitions: from_day must be a date, got null"),
    ("_create_partitions('infinity', 1)", "jobq._create_partitions: from_day must be a date, got infinity"),
    ("_create_partitions('2031-01-01', -1)", "jobq._create_partitions: days must be 0 to 366, got -1"),
    ("_create_partitions('2031-01-01', 367)", "jobq._create_partitions: days must be 0 to 366, got 367"),
    ("_create_partitions('2031-01-01', NULL)", "jobq._create_partitions: days must be 0 to 366, got null"),
    ("_drop_partitions(NULL, '1 day')",
     "jobq._drop_partitions: keep_completed must be an interval of 0 or more, got null"),
    ("_drop_partitions('1 day', '-1 day')",
     "jobq._drop_partitions: keep_failed must be an interval of 0 or more, got -1 days"),
])
def test_wrong_arguments(db, sql, message):
    with pytest.raises(psycopg.Error) as caught:
        db.query(f"SELECT jobq.{sql}")
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == ("22023", message)
