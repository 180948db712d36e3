"""What the database refuses of one job, or another session has locked of it, stops no other job."""

import json
import time

import pytest

from harness.waiting import wait_for


def exports(db, timing=""):
    db.query(f"CREATE TABLE exports (job_id bigint REFERENCES jobq.jobs (id) {timing})")


@pytest.mark.parametrize("timing", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_job_that_a_foreign_key_holds_stops_no_other(db, jobqd, programs, cli, timing):
    exports(db, timing)
    db.query("SELECT jobq.pause('default')")
    jobs = [db.enqueue("noop") for _ in range(20)]
    held = jobs[7]
    db.query("INSERT INTO exports VALUES (%s)", [held])
    db.query("SELECT jobq.resume('default')")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") == 19)
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [held]) == "suspended")
    node.wait_log(rf"job {held}, attempt 1: completed, but the database refuses to record it: .*exports")
    assert db.value("SELECT max(attempt) FROM jobq.finished_jobs") == 1
    more = db.enqueue("noop")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", [more]) == 1)
    said = cli("doctor", db=db, code=None).stdout
    assert f"the database refuses to write 1 job (1 of them already ended); job {held} (settle): " in said
    assert "exports" in said
    db.query("DELETE FROM exports")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", [held]) == "completed")
    assert db.value("SELECT attempt FROM jobq.finished_jobs WHERE id = %s", [held]) == 1
    assert db.value("SELECT count(*) FROM jobq.refusals") == 0


def test_a_locked_job_stops_no_other(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1},
                      "slow": {"exec": "/bin/sh -c 'sleep 1'", "concurrency": 1}})
    slow = db.enqueue("slow", queue="slow")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [slow]) == "executing")
    with db.connect(autocommit=False, application_name="forgotten") as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [slow])
        node.wait_log(rf"job {slow}, attempt 1: completed, but another session has locked its row.*application forgotten")
        began = time.monotonic()
        for _ in range(10):
            job = db.enqueue("noop")
            wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", [job]) == 1)
        assert time.monotonic() - began < 20
        conn.rollback()
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", [slow]) == 1)
    assert db.value("SELECT attempt FROM jobq.finished_jobs WHERE id = %s", [slow]) == 1


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind = 'bad' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '{}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION refuse();
"""


# Such as a trigger raises, and one whose own connection to somewhere is lost.
STATES = pytest.mark.parametrize("state", ["P0001", "08006", "57P01", "40001", "40P01", "53300", "25006", "26000", "P0004"])


@STATES
def test_a_job_that_cannot_be_claimed_stops_no_other(db, jobqd, programs, cli, state):
    db.query(REFUSE.format(state))
    bad = db.enqueue("bad")
    jobs = [db.enqueue("noop") for _ in range(20)]
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == len(jobs))
    node.wait_log(rf"job {bad} \(kind bad\) cannot be claimed, because the database refuses it: not this one")
    assert db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [bad]) == "available"
    cli("cancel", str(bad), db=db)
    assert db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", [bad]) == "cancelled"


@STATES
def test_a_job_that_cannot_be_staged_stops_no_other(db, jobqd, programs, state):
    db.query(REFUSE.format(state))
    db.query("SELECT jobq.enqueue('bad', scheduled_at => now() + interval '1 s')")
    db.query("SELECT jobq.enqueue('noop', scheduled_at => now() + interval '1 s') FROM generate_series(1, 20)")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 20)
    node.wait_log(r"job \d+: the database refused to stage it: not this one")


def test_a_node_starts_though_its_predecessors_job_is_locked(db, jobqd, programs):
    queues = {"default": {"exec": "/bin/sh -c 'sleep 600'", "concurrency": 3}}
    first = jobqd(db, queues, node="one")
    jobs = [db.enqueue("noop") for _ in range(3)]
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 3)
    with db.connect(autocommit=False, application_name="forgotten") as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [jobs[0]])
        first.kill()
        second = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, node="one")
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 2)
        second.wait_log("could not be given back yet: job %d: its row is locked by pid .*application forgotten" % jobs[0])
        conn.rollback()
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 3)
    errors = db.value("SELECT errors FROM jobq.finished_jobs WHERE id = %s", [jobs[0]])
    assert [e["kind"] for e in errors] == ["orphaned"], json.dumps(errors)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 1)


def test_a_claim_that_waits_for_a_users_lock_stops_no_other(db, jobqd, programs):
    """A trigger of the application's waits for a row of the application's, which another session has locked."""
    db.query("""
        CREATE TABLE customers (id int PRIMARY KEY, running int NOT NULL DEFAULT 0);
        INSERT INTO customers SELECT generate_series(1, 9);
        CREATE FUNCTION count_running() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE public.customers SET running = running + 1 WHERE id = (NEW.args ->> 'customer')::int;
            RETURN NULL; END $$;
        CREATE TRIGGER count_running AFTER UPDATE ON jobq.jobs FOR EACH ROW
            WHEN (NEW.state = 'executing') EXECUTE FUNCTION count_running()""")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2},
                      "other": {"command": programs("noop_worker"), "concurrency": 2}})
    with db.connect(autocommit=False, application_name="forgotten") as conn:
        conn.execute("SELECT FROM customers WHERE id = 5 FOR UPDATE")
        held = db.enqueue("noop", '{"customer": 5}')
        others = [db.enqueue("noop", json.dumps({"customer": n % 4 + 1})) for n in range(20)]
        began = time.monotonic()
        wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY (%s)", [others]) == 20)
        assert time.monotonic() - began < 20
        for _ in range(5):
            job = db.enqueue("noop", queue="other")
            wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", [job]))
        assert db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [held]) == "available"
        conn.rollback()
    wait_for(lambda: db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", [held]) == "completed", 100)
    assert node.running


def test_what_was_given_back_is_not_given_back_again_while_it_runs(db, jobqd, programs, tmp_path):
    """Two claims whose answer was lost. One can be given back only when a lock is gone, and then runs; the other one still
    cannot, and is asked for again and again."""
    starts = tmp_path / "starts"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2, "stop_grace": "0"}}, shutdown_grace="0")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes"))
    lost = [db.enqueue("hang", json.dumps({"file": str(starts)}), queue="later"), db.enqueue("bad", queue="later")]
    db.query("UPDATE jobq.jobs SET queue = 'default', state = 'executing', attempt = 1, attempted_at = now(),"
             " attempted_by = (SELECT id FROM jobq.nodes) WHERE id = ANY (%s)", [lost])
    db.query(REFUSE.format("P0001"))
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [lost[0]])
        db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobqd work'"
                 " AND datname = current_database()")
        node.wait_log("2 claims whose answer was lost could not be given back yet")
        conn.rollback()
    node.wait_log("gave back 1 more claims whose answer was lost")
    wait_for(starts.exists)
    tried = set()  # each time that the other one is tried, the first one could be given back again
    look = "SELECT tried_at FROM jobq.refusals WHERE job_id = %s"
    wait_for(lambda: tried.update(db.query(look, [lost[1]])) or len(tried) > 3)
    assert len(starts.read_text().splitlines()) == 1
    assert db.query("SELECT state::text, attempt, errors FROM jobq.jobs WHERE id = %s", [lost[0]]) == [("executing", 1, [])]
    assert db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [lost[1]]) == "executing"
    db.query("DROP TRIGGER refuse ON jobq.jobs")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [lost[1]]) != "executing", 100)


def test_a_job_that_no_node_holds_is_given_back(db, jobqd, programs):
    """By an operator's UPDATE. One of them that cannot be changed keeps no other."""
    jobs = [db.enqueue("noop") for _ in range(6)]
    bad = db.enqueue("bad")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_at = now()")
    db.query(REFUSE.format("P0001"))
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}}, lease="2s")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY (%s) AND attempt = 2", [jobs]) == len(jobs))
    node.wait_log(f"job {bad}: the database refused to adopt it: not this one")


def test_a_trigger_that_undoes_a_staging_stops_no_other(db, jobqd, programs):
    db.query("""
        CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.kind = 'bad' THEN NEW.state := 'scheduled'; NEW.position := NULL; END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER later BEFORE UPDATE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION later()""")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    bad = db.value("SELECT jobq.enqueue('bad', scheduled_at => now() + interval '100 ms')")
    db.query("SELECT jobq.enqueue('noop', scheduled_at => now() + interval '100 ms') FROM generate_series(1, 20)")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 20)
    node.wait_log(f"job {bad}: the database refused to stage it: a trigger or rule on jobs keeps its row from being changed")



LEDGER = """
CREATE TABLE public.ledger (n int);
INSERT INTO public.ledger VALUES (1);
CREATE FUNCTION wants() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.kind = 'booked' THEN PERFORM FROM public.ledger FOR UPDATE; END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER wants BEFORE UPDATE OR DELETE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION wants();
"""


@pytest.fixture
def booked(db):
    """A trigger on jobs wants a row of the application's, which another session has locked; the session."""
    db.query(LEDGER)
    with db.connect(autocommit=False) as holder:
        holder.execute("SELECT FROM public.ledger FOR UPDATE")
        yield holder


def node_row(db):
    return db.value("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, session)"
                    " VALUES ('made up', 'elsewhere', 1, 1, '0', now() + interval '1 hour', 7) RETURNING id")


APART = {
    "_claim_these": "SELECT id, refusal IS NOT NULL FROM jobq._claim_apart('default', ARRAY[0], {node}, 7, ARRAY[0],"
                    " ARRAY[9223372036854775807], 1000)",
    "_stage_these": "SELECT staged FROM jobq._stage()",
    "_expire_these": "SELECT jobq._expire_jobs()",
}
BECOMES = {"_claim_these": "state = 'executing'", "_stage_these": "state = 'available'", "_expire_these": "false"}


@pytest.mark.parametrize("what", APART)
def test_a_lock_of_the_application_s_is_waited_for_once(db, booked, what):
    """A statement on five hundred jobs needs it for one. The others are done at once, and that one soon after the lock is gone:
    nothing was refused."""
    node = node_row(db)
    columns = {"_claim_these": "", "_stage_these": ", state = 'scheduled', position = NULL, scheduled_at = now()",
               "_expire_these": ", expires_at = now() - interval '1 s'"}[what]
    db.query("INSERT INTO jobq.jobs (kind) SELECT CASE n WHEN 250 THEN 'booked' ELSE 'a' END FROM generate_series(1, 500) n")
    if columns:
        db.query(f"ALTER TABLE jobq.jobs DISABLE TRIGGER wants; UPDATE jobq.jobs SET kind = kind {columns};"
                 " ALTER TABLE jobq.jobs ENABLE TRIGGER wants")
    left = f"SELECT count(*) FROM jobq.jobs WHERE NOT ({BECOMES[what]})"
    with db.connect(autocommit=True) as conn:
        conn.execute("SET lock_timeout = '250ms'")
        began = time.monotonic()
        rows = conn.execute(APART[what].format(node=node)).fetchall()
        took = time.monotonic() - began
        assert took < 1, f"{took:.1f} s"  # nine halvings with the whole of it take longer
        assert db.value(left) == 1
        assert conn.execute("SHOW lock_timeout").fetchone() == ("250ms",)
    if what == "_claim_these":
        assert len(rows) == 500 and [row[1] for row in rows].count(True) == 1
    assert db.query("SELECT sqlstate, again_at < now() + interval '2 s' FROM jobq.refusals") == [("55P03", True)]
    booked.rollback()
    began = time.monotonic()
    wait_for(lambda: [db.query(APART[what].format(node=node)), db.value(left) == 0][1])
    assert time.monotonic() - began < 2
    db.query("SELECT jobq._sweep()")


def test_a_lock_does_not_hide_what_was_refused(db, booked):
    """What the database said of a job before another session's lock was in the way stays as it was noted."""
    node = node_row(db)
    db.query("SELECT jobq._refuse(1, 'claim', 'P0001', 'the ledger is closed', pause => '-1 s')")
    db.query("INSERT INTO jobq.jobs (id, kind) OVERRIDING SYSTEM VALUE VALUES (1, 'booked')")
    db.query(APART["_claim_these"].format(node=node))
    assert db.query("SELECT doing, sqlstate, message, again_at > now() FROM jobq.refusals") == [
        ("claim", "P0001", "the ledger is closed", True)]


def test_thousands_of_jobs_wait_for_one_lock(db, booked, jobqd, programs):
    """A whole kind's jobs are due, and the row is locked that each of them wants: those behind them are staged all the same, and
    none of them are held for long."""
    db.query("INSERT INTO jobq.jobs (kind, state, position, scheduled_at)"
             " SELECT 'booked', 'scheduled', NULL, now() - interval '1 minute' FROM generate_series(1, 3000)")
    jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    job = db.value("SELECT jobq.enqueue('noop', queue => 'other', scheduled_at => now() + interval '1 ms')")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [job]) == "available", 30)
    booked.rollback()
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'scheduled'") == 0)


def refuse_kind(db, kind, event="UPDATE OR DELETE", timing="BEFORE"):
    db.query(f"""
        CREATE FUNCTION public.closed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.kind = '{kind}' THEN RAISE EXCEPTION 'the books are closed'; END IF;
            RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
        END $$;
        CREATE TRIGGER closed {timing} {event} ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION public.closed();""")


def test_one_of_many_that_expired_cannot_be_ended(db, jobqd, programs):
    """The others go batch upon batch, without a pause of a minute."""
    db.query("INSERT INTO jobq.jobs (kind, queue, expires_at) SELECT CASE n WHEN 1 THEN 'closed' ELSE 'a' END, 'nobodys',"
             " now() - interval '1 hour' + n * interval '1 ms' FROM generate_series(1, 3500) n")
    refuse_kind(db, "closed")
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") == 3499, 30)


def test_a_note_goes_when_its_job_goes_on(db, cli):
    """It stayed for an hour, and the doctor cried on."""
    node = node_row(db)
    refuse_kind(db, "closed", "UPDATE")
    claimed, gone, still = (db.enqueue("closed") for _ in range(3))
    staged = db.value("SELECT jobq.enqueue('closed', scheduled_at => now() + interval '1 day')")
    db.query("ALTER TABLE jobq.jobs DISABLE TRIGGER closed")
    db.query("UPDATE jobq.jobs SET scheduled_at = now() WHERE id = %s", [staged])
    db.query("ALTER TABLE jobq.jobs ENABLE TRIGGER closed")
    db.query("SELECT jobq._stage()")
    db.query(APART["_claim_these"].format(node=node))
    assert {row[0] for row in db.query("SELECT job_id FROM jobq.refusals")} == {claimed, gone, still, staged}
    db.query("ALTER TABLE jobq.jobs DISABLE TRIGGER closed")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 5, attempted_at = now() WHERE id = %s", [claimed])
    db.query("UPDATE jobq.jobs SET state = 'available', position = jobq._next_position() WHERE id = %s", [staged])
    db.query("SELECT jobq.cancel(%s)", [gone])
    db.query("SELECT jobq._sweep()")
    assert db.query("SELECT job_id FROM jobq.refusals") == [(still,)]
    assert f"the database refuses to write 1 job (0 of them already ended); job {still} (claim): the books are closed" in \
        cli("doctor", db=db, code=None).stdout


def test_a_lock_is_not_noted_as_the_reason_of_an_end_that_was_refused(db, jobqd, programs):
    """The job is parked, since a table refers to it. Then another session has locked its row: what stands in the note is why it
    was parked, not that."""
    exports(db)
    node = jobqd(db, {"default": {"command": programs("noop_worker")}})
    db.query("SELECT jobq.pause('default')")
    job = db.enqueue("noop")
    db.query("INSERT INTO exports VALUES (%s)", [job])
    db.query("SELECT jobq.resume('default')")
    node.wait_log(rf"job {job}, attempt 1: completed, but the database refuses to record it: .*exports")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [job])
        tried = db.value("SELECT tried_at FROM jobq.refusals")
        wait_for(lambda: db.value("SELECT tried_at FROM jobq.refusals") > tried)
        assert db.query("SELECT sqlstate, message ~ 'exports', outcome IS NOT NULL FROM jobq.refusals") == [("23503", True, True)]
    db.query("DELETE FROM exports")


@pytest.mark.parametrize("many, told, more", [(30, 30, 0), (240, 100, 140)])
def test_a_claim_names_those_that_it_could_not_claim(db, many, told, more):
    node = node_row(db)
    refuse_kind(db, "closed", "UPDATE")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'closed' FROM generate_series(1, %s)", [many])
    rows = db.query(f"SELECT refusal, fresh FROM ({APART['_claim_these'].format(node=node).replace('id, refusal IS NOT NULL', '*')}"
                    ") c")
    assert len(rows) == told and all(fresh for _, fresh in rows)
    suffix = f" (and {more} more jobs)" if more else ""
    assert rows[-1][0] == f"the books are closed{suffix}" and rows[0][0] == "the books are closed"


def test_a_rescue_tells_what_it_left_for_want_of_room(db):
    """Every eighth one of a dead node's jobs cannot be ended: more than one call may try."""
    node = node_row(db)
    db.query("UPDATE jobq.nodes SET session = -1")
    db.query("INSERT INTO jobq.jobs (kind) SELECT CASE n % 8 WHEN 0 THEN 'closed' ELSE 'a' END FROM generate_series(1, 400) n")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 20, max_attempts = 20, attempted_by = %s, attempted_at = now()",
             [node])
    refuse_kind(db, "closed", "DELETE")
    removed, remaining, note = db.query("SELECT removed, remaining, note FROM jobq._rescue()")[0]
    assert removed == 0 and remaining > 0 and note.endswith(": left for the next call")


def hold_by(db, node, kinds, count=1):
    """Jobs that the node runs, `count` of each kind; their ids by kind."""
    jobs = {kind: [db.enqueue(kind) for _ in range(count)] for kind in kinds}
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = %s, attempted_at = now()", [node])
    return jobs


def test_requests_to_cancel_that_are_refused_stop_no_other(db):
    """More of them than a command would take, and locks on rows that go with a job."""
    db.query("INSERT INTO jobq.jobs (kind, queue, state, position) SELECT CASE WHEN n <= 300 THEN 'closed' ELSE 'a' END, 'q',"
             " 'suspended', NULL FROM generate_series(1, 320) n")
    refuse_kind(db, "closed", "DELETE")
    db.query("CREATE TABLE exports (job_id bigint REFERENCES jobq.jobs (id) ON DELETE CASCADE)")
    locked = db.value("INSERT INTO exports SELECT max(id) FROM jobq.jobs RETURNING job_id")
    db.query("INSERT INTO jobq._cancels (job_id, attempt, node_id, forget) SELECT id, 0, -1, id % 2 = 0 FROM jobq.jobs")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM exports FOR UPDATE")
        wait_for(lambda: [db.query("SELECT jobq._cancel_again()"),
                          db.query("SELECT id FROM jobq.jobs WHERE kind = 'a'") == [(locked,)]][1])
        assert db.value("SELECT count(*) FROM jobq._cancels") == 301
    db.query("DROP FUNCTION public.closed() CASCADE")
    wait_for(lambda: [db.query("SELECT jobq._cancel_again()"), db.value("SELECT count(*) FROM jobq.jobs") == 0][1])
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0
    assert db.query("SELECT state::text, count(*) FROM jobq.finished_jobs GROUP BY 1") == [("cancelled", 160)]


@pytest.mark.parametrize("how", ["refused", "locked", "waits"])
def test_jobs_that_ended_and_cannot_be_forgotten_stop_no_other(db, how):
    jobs = [db.enqueue("noop") for _ in range(300)]
    db.query("SELECT jobq.cancel_many('{\"all\": true}')")
    bad = jobs[:150] if how == "refused" else jobs[7:8]
    db.query("CREATE TABLE public.ledger (n int); INSERT INTO public.ledger VALUES (1);"
             "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " +
             {"refused": "RAISE EXCEPTION 'no';", "locked": "", "waits": "PERFORM FROM public.ledger FOR UPDATE;"}[how] +
             " RETURN OLD; END $$; CREATE TRIGGER refuse BEFORE DELETE ON jobq.finished_jobs FOR EACH ROW"
             f" WHEN (OLD.id <= {bad[-1]} AND OLD.id >= {bad[0]}) EXECUTE FUNCTION public.refuse()")
    db.query("INSERT INTO jobq._cancels (job_id, attempt, node_id, forget) SELECT id, 0, -1, true FROM jobq.finished_jobs")
    left = "SELECT array_agg(id ORDER BY id) FROM jobq.finished_jobs"
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM public.ledger FOR UPDATE")
        if how == "locked":
            conn.execute("SELECT FROM jobq.finished_jobs WHERE id = %s FOR UPDATE", bad)
        wait_for(lambda: [db.query("SELECT jobq._cancel_again()"), db.value(left) == bad][1])
        assert [row[0] for row in db.query("SELECT job_id FROM jobq._cancels ORDER BY 1")] == bad
    db.query("DROP FUNCTION public.refuse() CASCADE")
    wait_for(lambda: [db.query("SELECT jobq._cancel_again()"), db.value(left) is None][1])
    assert db.value("SELECT count(*) FROM jobq._cancels") == 0


@pytest.mark.parametrize("how", ["refused", "locked"])
def test_progress_of_one_that_cannot_be_written_drops_no_other(db, how):
    """Of two hundred, wherever it stands."""
    node = node_row(db)
    jobs = hold_by(db, node, ["a"], 200)["a"]
    note = ("SELECT jobq._note_progress(%s, %s, ARRAY(SELECT 1 FROM generate_series(1, 200)),"
            " ARRAY(SELECT %s::bigint FROM generate_series(1, 200)), array_fill(NULL::text, ARRAY[200]))")
    db.query(note, (node, jobs, 1))
    bad = jobs[3]
    if how == "refused":
        db.query("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
                 " CREATE TRIGGER refuse BEFORE UPDATE ON jobq._progress FOR EACH ROW"
                 f" WHEN (OLD.job_id = {bad}) EXECUTE FUNCTION public.refuse()")
    with db.connect(autocommit=False) as conn:
        if how == "locked":
            conn.execute("SELECT FROM jobq._progress WHERE job_id = %s FOR UPDATE", [bad])
        began = time.monotonic()
        db.query(note, (node, jobs, 500000))
        assert time.monotonic() - began < 2
        assert db.query("SELECT job_id FROM jobq._progress WHERE done < 0.5") == [(bad,)]


def test_what_is_left_of_a_dead_node_is_not_looked_for_all_of_the_time(db, jobqd, programs):
    """One of its jobs is locked, and the table is large: it is not read through by each node several times a second. The others
    are given back at once, that one after its lock is gone: the next look is twenty times as far off as the last one took."""
    db.query(f"ALTER DATABASE {db.name} SET track_functions = 'pl'")
    db.query("INSERT INTO jobq.jobs (kind, queue, state, position) SELECT 'a', 'nobodys', 'suspended', NULL"
             " FROM generate_series(1, 300000)")
    db.query("ANALYZE jobq.jobs")
    node = node_row(db)
    jobs = [db.enqueue("noop") for _ in range(5)]
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = %s, attempted_at = now() WHERE id = ANY(%s)",
             (node, jobs))
    db.query("UPDATE jobq.nodes SET expires_at = now()")
    looks = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = '_rescue'"
    ended = "SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY(%s)"
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.jobs WHERE id = %s FOR UPDATE", [jobs[0]])
        nodes = [jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, lease="1s") for _ in range(3)]
        wait_for(lambda: db.value(ended, [jobs]) == 4)
        before, renewal = db.value(looks), "SELECT renewed_at FROM jobq.nodes WHERE name = %s"
        for _ in range(15):  # five seconds
            renewed = db.value(renewal, [nodes[0].folder.name])
            wait_for(lambda: db.value(renewal, [nodes[0].folder.name]) != renewed)
        assert db.value(looks) - before < 15  # once it were ninety
        conn.rollback()
    wait_for(lambda: db.value(ended, [jobs]) == 5)


def test_a_node_starts_though_its_predecessor_s_row_has_odd_times(db, jobqd, programs):
    """Somebody has set them by hand. It is taken for a node that was silent for a minute, and its jobs are given back."""
    node = node_row(db)
    job = db.enqueue("noop")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = %s, attempted_at = now()", [node])
    db.query("UPDATE jobq.nodes SET name = 'one', renewed_at = 'infinity', expires_at = 'infinity'")
    jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, node="one", lease="2s", ready=False)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", [job]) == 1, 150)


def test_a_database_that_takes_its_time_is_told_of(db, jobqd, programs):
    """After a third of the lease, once; a trigger of the user's may be so slow. The work goes on when the answer has come."""
    db.query("CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
             " $$ BEGIN PERFORM pg_catalog.pg_sleep(4); RETURN old; END $$")
    db.query("CREATE TRIGGER slow BEFORE DELETE ON jobq.jobs FOR EACH ROW WHEN (old.kind = 'slow') EXECUTE FUNCTION public.slow()")
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}}, lease="6s")
    db.enqueue("slow")
    node.wait_log(r"WARNING queue default: the database has not answered for \d\.\d s; waiting for it to confirm 1 answer \(0 KiB\)")
    db.wait_for_states({"completed": 1})
    db.enqueue("noop")
    db.wait_for_states({"completed": 2})
    assert len(node.complaints()) == 1 and node.running
