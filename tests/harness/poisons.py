"""What can be wrong about one row, for the table of poisons and statements (arena.py, fault/test_poison.py): objects that a
user added to our tables and that refuse a write of one row, locks on one row, and content that is hard to write or send.

A poison belongs to a family, which says what it refuses. A statement (statements.py) names the families that concern it and
what is to become of the poisoned job then; LEFT_OUT there says why the other pairs are left out."""

import secrets
from dataclasses import dataclass, field
from typing import Callable

# What each family refuses. Mute ones refuse it without an error, harmless ones are not in the way, slow ones take a second.
FAMILIES = {
    "nothing": "nothing: what the others are compared with",
    "update": "an UPDATE of the job's row",
    "update-mute": "the same, without an error",
    "update-slow": "nothing, after a second",
    "delete": "a DELETE of the job's row",
    "delete-mute": "the same, without an error",
    "delete-slow": "nothing, after a second",
    "delete-harmless": "nothing",
    "insert": "an INSERT of the job's row",
    "history": "the job's row in the history",
    "history-mute": "the same, without an error",
    "entry": "a row with an entry in errors",
    "result": "a row with a result",
    "cancels": "a DELETE of the request to cancel the job",
    "node": "a DELETE of the row of the job's dead node",
    "lock": "nothing, but has the job's row locked",
    "wait": "nothing, but a write of the job's row waits for a lock of the user's own",
    "lock-weak": "nothing, but has the job's row locked so that only its key may not change",
    "lock-node": "nothing, but has the row of the job's dead node locked",
    "content": "nothing by itself: the row's own content is hard to write or to send",
    "errors": "nothing by itself: what stands in errors is no array of objects",
    "answer": "nothing by itself: the worker's answer is hard to write",
    "beside": "a row or a table beside the jobs, or has it locked",
    "cron": "a cron's row, or its job",
    "declare": "a cron's row, when a configuration declares it",
    "undeclare": "a cron's row, when a configuration does not have it any more",
    "progress": "a row of progress",
    "sweep": "a DELETE of a row of progress",
    "past": "a DELETE of the job's row in the history",
    "past-mute": "the same, without an error",
    "partition": "the DROP of a partition",
    "stray": "an INSERT of a node's row that was deleted",
}


@dataclass(frozen=True)
class Poison:
    name: str
    family: str
    script: str = ""  # SQL; {id} is the job's, {node} its dead node's, {anchor} another job's, which nothing touches
    arm: str = ""     # SQL that comes when all scripts are through: from then on it is poisoned
    undo: str = ""
    says: str = ""    # a regular expression for what the database says; the same names in it
    args: Callable = field(default=dict)  # more of the job's args
    columns: dict = field(default_factory=dict)  # of the job's row; SQL in a list of one
    locks: bool = False  # the script is run in a transaction that stays open, or hold is
    hold: str = ""
    fence: tuple = ()    # the queues whose jobs may wait for as long as it is locked: it defeats the fence, or the table
    door: bool = False   # it is enqueueing that waits for as long as it is locked, and nothing else
    long: bool = False   # takes long, or much: not in the short form
    delay_s: float = 0   # each statement on the job's row takes that long, and with it all that are in its batch


def trigger(name, family, when, table="jobs", row="OLD.id", body=None, constraint=False, value="{id}",
            says="", delay_s=0):
    """A trigger that raises for one row, or does what body says."""
    says = says if body else f"the trigger {name} says no to {{id}}"
    body = body or f"RAISE EXCEPTION '{says}'"
    kind = "CONSTRAINT TRIGGER" if constraint else "TRIGGER"
    late = " DEFERRABLE INITIALLY DEFERRED" if constraint else ""
    return Poison(name, family, script=f"""
        CREATE FUNCTION public.poison_{{id}}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {body}; RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
        CREATE {kind} zz_poison_{{id}} {when} ON jobq.{table}{late} FOR EACH ROW WHEN ({row} = {value})
            EXECUTE FUNCTION public.poison_{{id}}();""",
        undo="DROP FUNCTION IF EXISTS public.poison_{id}() CASCADE;", says=says, delay_s=delay_s)


def foreign_key(name, family, more, column="job_id bigint", to="jobs (id)", value="{id}"):
    """A table of the user's that refers to the row."""
    return Poison(name, family, script=f"CREATE TABLE public.exports_{{id}} ({column} CONSTRAINT exports_{{id}}_fkey"
                                       f" REFERENCES jobq.{to} {more}); INSERT INTO public.exports_{{id}} VALUES ({value});",
                  undo="DROP TABLE IF EXISTS public.exports_{id};", says="exports_{id}")


def check(name, family, condition, table="jobs"):
    """A constraint of the user's that the row violates already: NOT VALID, so that it could be added."""
    word = name.replace("-", "_")
    return Poison(name, family, script=f"ALTER TABLE jobq.{table} ADD CONSTRAINT {word}_{{id}}"
                                       f" CHECK (id <> {{id}} OR {condition}) NOT VALID;",
                  undo=f"ALTER TABLE jobq.{table} DROP CONSTRAINT IF EXISTS {word}_{{id}};", says=f"{word}_{{id}}")


def index_expression(name, family, table, column):
    """An index over an expression that fails for the row. It says that it never changes, and does: so that the index could be
    made while the row was there. The column is one that the statement changes: else there is nothing to compute."""
    return Poison(name, family, script=f"""
        CREATE TABLE public.zero_{{id}} (id bigint);
        CREATE FUNCTION public.poison_{{id}}(id bigint, x anyelement) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN RETURN 1 / (SELECT count(*) - 1 FROM public.zero_{{id}} z WHERE z.id = $1); END $$;
        CREATE INDEX poison_{{id}} ON jobq.{table} (public.poison_{{id}}(id, {column}));""",
        arm="INSERT INTO public.zero_{id} VALUES ({id})",
        undo="DROP FUNCTION IF EXISTS public.poison_{id} CASCADE; DROP TABLE IF EXISTS public.zero_{id};",
        says="division by zero")


def lock(name, script, family="lock", **more):
    return Poison(name, family, script=script, locks=True, **more)


def wait(name, how="", family="wait", when="BEFORE UPDATE OR DELETE", **more):
    """A trigger of the user's that wants a row of the user's, which another session has locked."""
    inner = trigger(name, family, when, body=f"PERFORM FROM public.ledger_{{id}} FOR UPDATE{how}", **more)
    return Poison(name, family, script="CREATE TABLE public.ledger_{id} (n int); INSERT INTO public.ledger_{id} VALUES (1);" +
                  inner.script, undo=inner.undo + "DROP TABLE IF EXISTS public.ledger_{id};", locks=True,
                  hold="SELECT FROM public.ledger_{id} FOR UPDATE")


def content(name, family="content", does=None, long=False, **columns):
    """A job's row as it could be there already: nothing has looked at it."""
    return Poison(name, family, args=lambda: does or {}, columns=columns, long=long)


def raw(name, line, **more):
    """The worker answers that line, in which @ stands for the job's id."""
    line = line if isinstance(line, bytes) else line.encode()
    return Poison(name, "answer", args=lambda: {"do": "raw", "value": line.hex()}, **more)


def answer(name, do, **more):
    return Poison(name, "answer", args=lambda: {"do": do, **more})


def pad():
    """More than an index's row may have, however it is compressed."""
    return {"pad": secrets.token_hex(6000)}


# jsonb keeps it in 8 bytes and writes 131,072 digits.
DIGITS = "1e131071"
ALL = ("same", "other", "none", "aged", "single", "exec", "peer")  # the arena's queues
FIRST = ALL[:-1]  # those of its first node
_ROW = "SELECT FROM jobq.jobs WHERE id = {id} "

POISONS = {poison.name: poison for poison in [
    Poison("nothing", "nothing"),
    # ---- an UPDATE of the row ----
    trigger("update-before", "update", "BEFORE UPDATE"),
    trigger("update-after", "update", "AFTER UPDATE"),
    trigger("update-assert", "update", "BEFORE UPDATE", body="ASSERT false, 'the trigger update-assert says no to {id}'",
            says="the trigger update-assert says no to {id}"),
    trigger("update-deferred", "update", "AFTER UPDATE", constraint=True),
    check("update-check", "update", "false"),
    index_expression("update-index", "update", "jobs", "state"),
    *(Poison(f"update-{name}", "update", script=f"""
        CREATE TABLE public.same_{{id}} (id bigint);
        CREATE FUNCTION public.poison_{{id}}(id bigint, state jobq.job_state, n int) RETURNS bigint
            LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                RETURN CASE WHEN EXISTS (SELECT FROM public.same_{{id}} s WHERE s.id = $1) THEN {{anchor}} ELSE $1 END;
            END $$;
        {index};""",
        arm="INSERT INTO public.same_{id} VALUES ({id})",
        undo="ALTER TABLE jobq.jobs DROP CONSTRAINT IF EXISTS same_{id}; DROP INDEX IF EXISTS jobq.same_{id};"
             " DROP FUNCTION IF EXISTS public.poison_{id}; DROP TABLE IF EXISTS public.same_{id};", says="same_{id}")
      for name, index in (
          ("unique", "CREATE UNIQUE INDEX same_{id} ON jobq.jobs (public.poison_{id}(id, state, attempt))"),
          ("exclusion", "ALTER TABLE jobq.jobs ADD CONSTRAINT same_{id} EXCLUDE USING btree"
                        " (public.poison_{id}(id, state, attempt) WITH =)"))),
    Poison("update-generated", "update", script="""
        CREATE TABLE public.zero_{id} (id bigint);
        CREATE FUNCTION public.poison_{id}(id bigint, state jobq.job_state, n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN RETURN 1 / (SELECT count(*) - 1 FROM public.zero_{id} z WHERE z.id = $1); END $$;
        ALTER TABLE jobq.jobs ADD COLUMN poison_{id} int
            GENERATED ALWAYS AS (public.poison_{id}(id, state, attempt)) STORED;""",
        arm="INSERT INTO public.zero_{id} VALUES ({id})",
        undo="ALTER TABLE jobq.jobs DROP COLUMN IF EXISTS poison_{id}; DROP FUNCTION IF EXISTS public.poison_{id};"
             " DROP TABLE IF EXISTS public.zero_{id};", says="division by zero"),
    trigger("update-swallowed", "update-mute", "BEFORE UPDATE", body="RETURN NULL"),
    trigger("update-slow", "update-slow", "BEFORE UPDATE", body="PERFORM pg_sleep(1)", delay_s=1),
    # ---- a DELETE of the row ----
    foreign_key("fk", "delete", ""),
    foreign_key("fk-restrict", "delete", "ON DELETE RESTRICT"),
    foreign_key("fk-deferred", "delete", "DEFERRABLE INITIALLY DEFERRED"),
    foreign_key("fk-set-null-refused", "delete", "ON DELETE SET NULL", column="job_id bigint NOT NULL"),
    foreign_key("fk-cascade", "delete-harmless", "ON DELETE CASCADE"),
    foreign_key("fk-set-null", "delete-harmless", "ON DELETE SET NULL"),
    trigger("delete-before", "delete", "BEFORE DELETE"),
    trigger("delete-after", "delete", "AFTER DELETE"),
    trigger("delete-deferred", "delete", "AFTER DELETE", constraint=True),
    trigger("delete-swallowed", "delete-mute", "BEFORE DELETE", body="RETURN NULL"),
    trigger("delete-slow", "delete-slow", "BEFORE DELETE", body="PERFORM pg_sleep(1)", delay_s=1),
    trigger("delete-assert", "delete", "BEFORE DELETE", body="ASSERT false, 'the trigger delete-assert says no to {id}'",
            says="the trigger delete-assert says no to {id}"),
    # ---- an INSERT of the row ----
    trigger("insert-before", "insert", "BEFORE INSERT", row="NEW.id"),
    trigger("insert-deferred", "insert", "AFTER INSERT", row="NEW.id", constraint=True),
    # ---- the row in the history ----
    trigger("history-before", "history", "BEFORE INSERT", table="finished_jobs", row="NEW.id"),
    trigger("history-after", "history", "AFTER INSERT", table="finished_jobs", row="NEW.id"),
    trigger("history-deferred", "history", "AFTER INSERT", table="finished_jobs", row="NEW.id", constraint=True),
    check("history-check", "history", "false", table="finished_jobs"),
    index_expression("history-index", "history", "finished_jobs", "kind"),
    Poison("history-index-row", "history",
           script="CREATE INDEX wide_{id} ON jobq.finished_jobs ((args ->> 'pad')) WHERE id = {id};",
           undo="DROP INDEX IF EXISTS jobq.wide_{id};", says="index row (requires|size)", args=pad),
    trigger("history-swallowed", "history-mute", "BEFORE INSERT", table="finished_jobs", row="NEW.id", body="RETURN NULL"),
    # ---- what an attempt leaves ----
    Poison("entry-check", "entry",
           script="ALTER TABLE jobq.jobs ADD CONSTRAINT entry_{id} CHECK (id <> {id} OR errors = '[]') NOT VALID;"
                  " ALTER TABLE jobq.finished_jobs ADD CONSTRAINT entry_{id} CHECK (id <> {id} OR errors = '[]') NOT VALID;",
           undo="ALTER TABLE jobq.jobs DROP CONSTRAINT IF EXISTS entry_{id};"
                " ALTER TABLE jobq.finished_jobs DROP CONSTRAINT IF EXISTS entry_{id};", says="entry_{id}"),
    check("result-check", "result", "result IS NULL", table="finished_jobs"),
    Poison("result-index-row", "result",
           script="CREATE INDEX wide_{id} ON jobq.finished_jobs ((result ->> 'pad')) WHERE id = {id};",
           undo="DROP INDEX IF EXISTS jobq.wide_{id};", says="index row (requires|size)"),
    # ---- rows that go with it ----
    trigger("cancels-before", "cancels", "BEFORE DELETE", table="_cancels", row="OLD.job_id"),
    foreign_key("node-fk", "node", "", to="nodes (id)", value="{node}"),
    trigger("node-before", "node", "BEFORE DELETE", table="nodes", value="{node}"),
    # ---- locks on the row ----
    lock("lock-update", _ROW + "FOR UPDATE"),
    lock("lock-share", _ROW + "FOR SHARE"),
    lock("lock-key-share", _ROW + "FOR KEY SHARE", family="lock-weak"),
    lock("lock-no-key-update", "UPDATE jobq.jobs SET tags = tags WHERE id = {id}"),
    lock("lock-delete", "DELETE FROM jobq.jobs WHERE id = {id}"),
    lock("lock-node", "SELECT FROM jobq.nodes WHERE id = {node} FOR UPDATE", family="lock-node"),
    lock("lock-node-share", "SELECT FROM jobq.nodes WHERE id = {node} FOR KEY SHARE", family="lock-node"),
    wait("wait-trigger"),
    wait("wait-trigger-nowait", " NOWAIT"),
    # ---- content of the row ----
    content("digits", args='{"a": %s}' % DIGITS),
    content("digits-300", args='{"a": [%s]}' % ", ".join([DIGITS] * 300)),
    content("digits-300-of-meta", meta='{"a": [%s]}' % ", ".join([DIGITS] * 300)),
    content("digits-9000", args='{"a": [%s]}' % ", ".join([DIGITS] * 9000), long=True),
    content("args-6-mb", args=["jsonb_build_object('a', (SELECT string_agg(md5(n::text), '')"
                               " FROM generate_series(1, 190000) n))"]),
    content("args-6-mb-in-70-kb", args=["jsonb_build_object('a', repeat('x', 6000000))"]),
    content("args-200-mb", args=["jsonb_build_object('a', repeat('x', 200000000))"], long=True),
    content("meta-6-mb", meta=["jsonb_build_object('a', repeat('x', 6000000))"]),
    content("args-array", args="[1, 2]"),
    content("args-null", args="null"),
    content("meta-no-object", meta="5"),
    content("attempt-greatest", attempt=2147483647),
    content("attempt-all-used", attempt=1000, max_attempts=1000),
    content("position-0", position=0, long=True),  # found by the look over the whole line, once a minute
    content("position-negative", position=-5, long=True),
    content("position-greatest", position=9223372036854775807),
    content("id-2-to-the-62", id=4611686018427387904),
    content("id-greatest", id=9223372036854775807),
    content("timeout-greatest", timeout_ms=2147483647),
    content("scheduled-infinity", scheduled_at="infinity"),
    content("scheduled-minus-infinity", scheduled_at="-infinity"),
    content("inserted-infinity", inserted_at="infinity"),
    content("inserted-minus-infinity", inserted_at="-infinity"),
    content("expires-infinity", expires_at="infinity"),
    content("attempted-infinity", attempted_at="infinity"),
    content("kind-control", kind="a\x01\x1b[31m\n\u202eb"),
    content("kind-128-bytes", kind="\u00e9" * 64),
    content("tags-null", tags=["ARRAY[NULL, 'a']::text[]"]),
    content("tags-of-tags", tags=["'{{a,b},{c,d}}'::text[]"]),
    content("tags-100000", tags=["ARRAY(SELECT n::text FROM generate_series(1, 100000) n)"]),
    content("key-long", key="k" * 100_000),
    *(content(f"errors-{name}", "errors", does={"do": "error", "times": 1}, errors=text) for name, text in (
        ("object", "{}"), ("object-full", '{"kind": "crash", "attempt": 1}'), ("null", "null"), ("number", "5"),
        ("text", '"none"'), ("mixed", '[null, 1, "x", [], {}, {"kind": 5, "attempt": "x", "at": [], "error": {}}]'),
        ("digits", '[{"kind": "crash", "attempt": 1e131071}]'),
        ("1000", "[%s]" % ", ".join(['{"kind": "error", "attempt": 1}'] * 1000)))),
    # ---- what workers answer ----
    raw("answer-nul", b'{"t":"ok","id":@,"result":"\\u0000"}'),
    raw("answer-surrogate", b'{"t":"ok","id":@,"result":"\\ud800"}'),
    raw("answer-surrogate-as-key", b'{"t":"ok","id":@,"result":{"\\ud800":1}}'),
    raw("answer-no-utf8", b'{"t":"ok","id":@,"result":"\xff\xfe"}'),
    raw("answer-overlong-utf8", b'{"t":"ok","id":@,"result":"\xc0\x80 \xed\xa0\x80"}'),
    raw("answer-1e131071", b'{"t":"ok","id":@,"result":[' + b",".join([b"1e131071"] * 300) + b"]}"),
    raw("answer-1e131072", b'{"t":"ok","id":@,"result":1e131072}'),
    raw("answer-1e-16383", b'{"t":"ok","id":@,"result":[1e-16383,1e-16384,1e-99999]}'),
    raw("answer-1e999999999", b'{"t":"ok","id":@,"result":1e999999999999}'),
    raw("answer-200000-digits", b'{"t":"ok","id":@,"result":' + b"9" * 200_000 + b"}"),
    raw("answer-deep", b'{"t":"ok","id":@,"result":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    raw("answer-deep-objects", b'{"t":"ok","id":@,"result":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}"),
    raw("answer-long-key", b'{"t":"ok","id":@,"result":{"' + b"k" * 1_000_000 + b'":1}}'),
    answer("answer-3-mb", "ok", value='"' + "x" * 3_000_000 + '"'),
    answer("answer-error-3-mb", "error", value='"' + "x" * 3_000_000 + '"', ms=3600000),
    raw("answer-error-nul", b'{"t":"error","id":@,"error":"a\\u0000b","detail":"\\u0000","retry_in_ms":3600000}'),
    raw("answer-error-surrogate", b'{"t":"error","id":@,"error":"a\\udc00b","retry_in_ms":3600000}'),
    raw("answer-error-no-utf8", b'{"t":"error","id":@,"error":"a\xffb","retry_in_ms":3600000}'),
    raw("answer-error-detail-1-mb",
        b'{"t":"error","id":@,"error":"x","detail":"' + b"\\u0001" * 200_000 + b'","retry_in_ms":3600000}'),
    raw("answer-discard-surrogate", b'{"t":"discard","id":@,"reason":"a\\ud800b"}'),
    raw("answer-cancel-nul", b'{"t":"cancel","id":@,"reason":"a\\u0000b"}'),
    answer("answer-snooze-greatest", "snooze", ms=9223372036854775807),
    answer("answer-snooze-year-300000", "snooze", ms=9300000000000000),
    answer("answer-retry-greatest", "error", ms=9223372036854775807),
    # ---- what stands beside the jobs ----
    *(lock(f"lock-{table.lstrip('_')}-{word}", f"LOCK TABLE jobq.{table} IN {mode} MODE", "beside", fence=fence, door=(table, word) == ("queues", "ax"))  # where max_attempts of a queue is
      for table, mode, word, fence in (
          ("jobs", "SHARE", "s", ALL), ("jobs", "EXCLUSIVE", "x", ALL), ("jobs", "ACCESS EXCLUSIVE", "ax", ALL),
          ("_finished_completed", "EXCLUSIVE", "x", ALL), ("finished_jobs", "ACCESS EXCLUSIVE", "ax", ALL),
          ("nodes", "SHARE", "s", ()), ("nodes", "EXCLUSIVE", "x", ALL), ("nodes", "ACCESS EXCLUSIVE", "ax", ALL),
          ("_cancels", "EXCLUSIVE", "x", ALL), ("_idle", "EXCLUSIVE", "x", ()), ("_progress", "EXCLUSIVE", "x", ()),
          ("_progress", "ACCESS EXCLUSIVE", "ax", ()), ("queues", "EXCLUSIVE", "x", ()),
          ("queues", "ACCESS EXCLUSIVE", "ax", ()), ("queue_nodes", "ACCESS EXCLUSIVE", "ax", ()),
          ("_hooks", "EXCLUSIVE", "x", ()), ("_hooks", "ACCESS EXCLUSIVE", "ax", ()),
          ("crons", "ACCESS EXCLUSIVE", "ax", ()), ("_leader", "EXCLUSIVE", "x", ()),
          ("_uniques", "ACCESS EXCLUSIVE", "ax", ()), ("_pruning", "ACCESS EXCLUSIVE", "ax", ()),
          ("refusals", "ACCESS EXCLUSIVE", "ax", ALL))),
    lock("lock-own-row", "SELECT FROM jobq.nodes WHERE id = {node} FOR UPDATE", "beside", fence=FIRST),
    lock("lock-own-row-no-key", "SELECT FROM jobq.nodes WHERE id = {node} FOR NO KEY UPDATE", "beside"),
    lock("lock-own-row-share", "SELECT FROM jobq.nodes WHERE id = {node} FOR SHARE", "beside"),
    lock("lock-leader-row", "SELECT FROM jobq._leader FOR UPDATE", "beside"),
    lock("lock-pruning-row", "SELECT FROM jobq._pruning FOR UPDATE", "beside"),
    *(Poison(f"refused-{table.lstrip('_')}-{event.lower()}", "beside", script=f"""
        CREATE FUNCTION public.poison_{{id}}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'the trigger on {table} says no'; END $$;
        CREATE TRIGGER zz_poison_{{id}} BEFORE {event} ON jobq.{table} FOR EACH ROW EXECUTE FUNCTION public.poison_{{id}}();""",
        undo="DROP FUNCTION IF EXISTS public.poison_{id}() CASCADE;",
        says=f"the trigger on {table} says no" if table == "_leader" else "")  # marks are hints; the pruner may sleep
      for table, event in (("_idle", "INSERT"), ("_idle", "DELETE"), ("_pruning", "UPDATE"), ("_leader", "UPDATE"))),
    # ---- crons ----
    trigger("cron-update", "cron", "BEFORE UPDATE", table="crons", row="OLD.name", value="'{name}'"),
    trigger("cron-update-deferred", "cron", "AFTER UPDATE", table="crons", row="OLD.name", value="'{name}'", constraint=True),
    trigger("cron-job", "cron", "BEFORE INSERT", row="NEW.meta ->> 'cron'", value="'{name}'"),
    trigger("cron-job-deferred", "cron", "AFTER INSERT", row="NEW.meta ->> 'cron'", value="'{name}'", constraint=True),
    trigger("cron-update-swallowed", "cron", "BEFORE UPDATE", table="crons", row="OLD.name", value="'{name}'", body="RETURN NULL"),
    trigger("cron-job-swallowed", "cron", "BEFORE INSERT", row="NEW.meta ->> 'cron'", value="'{name}'", body="RETURN NULL"),
    lock("cron-lock", "SELECT FROM jobq.crons WHERE name = '{name}' FOR UPDATE", "cron"),
    lock("cron-lock-share", "SELECT FROM jobq.crons WHERE name = '{name}' FOR KEY SHARE", "cron"),
    wait("cron-job-waits", family="cron", when="BEFORE INSERT", row="NEW.meta ->> 'cron'", value="'{name}'"),
    wait("cron-update-waits", family="cron", when="BEFORE UPDATE", table="crons", row="OLD.name", value="'{name}'"),
    *(Poison(f"cron-{name}", "cron", script="SET LOCAL session_replication_role = replica; UPDATE jobq.crons SET " + change +
             " WHERE name = '{name}'; SET LOCAL session_replication_role = origin;") for name, change in (
        ("schedule", "schedule = 'never'"), ("timezone", "timezone = 'Mars/Olympus'"), ("args", "args = '[]'"),
        ("meta", "meta = '5'"), ("kind", "kind = ''"), ("priority", "priority = 77"), ("attempts", "max_attempts = 0"),
        ("tags", "tags = ARRAY[NULL]::text[]"), ("next-minus-infinity", "next_at = '-infinity'"),
        ("next-year-290000", "next_at = '290000-01-01'"), ("last-infinity", "last_at = 'infinity'"),
        ("declared-by", "declared_by = '[1]'"), ("declared-by-scalar", "declared_by = '5'"))),
    trigger("declare-insert", "declare", "BEFORE INSERT", table="crons", row="NEW.name", value="'{name}'"),
    trigger("declare-deferred", "declare", "AFTER INSERT", table="crons", row="NEW.name", value="'{name}'", constraint=True),
    trigger("declare-swallowed", "declare", "BEFORE INSERT", table="crons", row="NEW.name", value="'{name}'", body="RETURN NULL"),
    trigger("undeclare-delete", "undeclare", "BEFORE DELETE", table="crons", row="OLD.name", value="'{name}'"),
    trigger("undeclare-deferred", "undeclare", "AFTER DELETE", table="crons", row="OLD.name", value="'{name}'", constraint=True),
    trigger("undeclare-swallowed", "undeclare", "BEFORE DELETE", table="crons", row="OLD.name", value="'{name}'",
            body="RETURN NULL"),
    foreign_key("undeclare-fk", "undeclare", "", column="name text", to="crons (name)", value="'{name}'"),
    lock("undeclare-lock", "SELECT FROM jobq.crons WHERE name = '{name}' FOR UPDATE", "undeclare"),
    wait("undeclare-waits", family="undeclare", when="BEFORE DELETE", table="crons", row="OLD.name", value="'{name}'"),
    # ---- progress ----
    trigger("progress-before", "progress", "BEFORE INSERT OR UPDATE", table="_progress", row="NEW.job_id"),
    trigger("progress-deferred", "progress", "AFTER INSERT OR UPDATE", table="_progress", row="NEW.job_id", constraint=True),
    lock("progress-lock", "SELECT FROM jobq._progress WHERE job_id = {id} FOR UPDATE", "progress"),
    trigger("sweep-before", "sweep", "BEFORE DELETE", table="_progress", row="OLD.job_id"),
    # ---- the history, in time ----
    trigger("past-before", "past", "BEFORE DELETE", table="finished_jobs"),
    trigger("past-deferred", "past", "AFTER DELETE", table="finished_jobs", constraint=True),
    trigger("past-swallowed", "past-mute", "BEFORE DELETE", table="finished_jobs", body="RETURN NULL"),
    lock("past-lock", "SELECT FROM jobq.finished_jobs WHERE id = {id} FOR UPDATE", "past"),
    Poison("partition-view", "partition",
           script="CREATE VIEW public.old_{id} AS SELECT * FROM jobq._finished_completed_p20200101;",
           undo="DROP VIEW IF EXISTS public.old_{id};", says="old_{id}|_finished_completed_p20200101"),
    Poison("partition-fk", "partition", script="CREATE UNIQUE INDEX old_{id} ON jobq._finished_completed_p20200101 (id);"
           " CREATE TABLE public.old_{id} (job_id bigint REFERENCES jobq._finished_completed_p20200101 (id));",
           undo="DROP TABLE IF EXISTS public.old_{id}; DROP INDEX IF EXISTS jobq.old_{id};",
           says="old_{id}|_finished_completed_p20200101"),
    trigger("stray-insert", "stray", "BEFORE INSERT", table="nodes", row="NEW.id", value="{node}"),
    # ---- nodes ----
    Poison("node-renewed-infinity", "beside", script="""
        INSERT INTO jobq.nodes (name, host, pid, pid_start, version, renewed_at, expires_at)
        VALUES ('never-{id}', '-', 1, 1, '0', 'infinity', 'infinity');""",
        undo="DELETE FROM jobq.nodes WHERE name = 'never-{id}';"),
    Poison("node-renewed-year-294276", "beside", script="""
        INSERT INTO jobq.nodes (name, host, pid, pid_start, version, renewed_at, expires_at)
        VALUES ('never-{id}', '-', 1, 1, '0', '294276-12-31', '294276-12-31');""",
        undo="DELETE FROM jobq.nodes WHERE name = 'never-{id}';"),
    Poison("node-queues-array", "beside", script="""
        INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues)
        VALUES ('odd-{id}', '-', 1, 1, '0', now() + interval '1 hour', '[1]');""",
        undo="DELETE FROM jobq.nodes WHERE name = 'odd-{id}';"),
    Poison("node-queues-odd", "beside", script="""
        INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues)
        VALUES ('odd-{id}', '-', 1, 1, '0', now() + interval '1 hour',
                '{{"same": {{"wanted": "x", "keep": 5}}, "other": 7}}');""",
        undo="DELETE FROM jobq.nodes WHERE name = 'odd-{id}';"),
]}


def of_families(*families):
    return [poison for poison in POISONS.values() if poison.family in families]
