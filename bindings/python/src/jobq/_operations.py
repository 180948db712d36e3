"""What can be asked of the database, each in two languages: a call of libjobq on a libpq connection, and a statement for
whoever else holds the connection. Which of the two it becomes is the business of client.py and _connections.py.
"""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import functools
import operator
import re
import struct
from ctypes import byref, c_char_p, c_int, c_int64, pointer
from typing import Any, Callable, Dict, Generic, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar, cast

from . import _native, encoding, errors
from ._native import lib
from .errors import InvalidError
from .model import (
    FIELDS,
    STATES,
    Enqueued,
    JobId,
    JobInfo,
    NewJob,
    OnConflict,
    Unique,
    errors_of,
    id_of,
    microseconds,
    milliseconds,
    parse_time,
    time_of,
)

T = TypeVar("T")

CONFLICTS = ("", "ignored", "replaced")  # enum jobq_conflict
ON_CONFLICT = {OnConflict.IGNORE: 0, OnConflict.REPLACE: 1, OnConflict.RAISE: 2}

Row = Sequence[Any]


Statement = Tuple[str, Sequence[Any]]


class Operation(Generic[T]):
    """One of them. `on_conn`, `on_client`: calls of libjobq on a PGconn or a jobq_client, by their addresses; without
    `on_client` the client's own PGconn serves. `undo_on_error`: an error that the caller may expect must leave the application's
    transaction usable, so there the statement needs a savepoint. `statement` gives SQL and its parameters (pyformat), `read` takes the rows."""

    def __init__(
        self,
        on_conn: Callable[[int], T],
        statement: Callable[[], Statement],
        read: Callable[[Sequence[Row]], T],
        on_client: Optional[Callable[[int], T]] = None,
        undo_on_error: bool = False,
    ) -> None:
        self.undo_on_error = undo_on_error
        self.on_conn = on_conn
        self.on_client = on_client or (lambda client: on_conn(_conn_of(client)))
        self.statement = statement
        self.read = read


def check(code: int, err: _native.Error) -> None:
    """Raises what a function of libjobq has returned as an error."""
    if code < 0:
        message = err.message.decode("utf-8", "replace")
        raise errors.of_code(code, message, err.sqlstate.decode("ascii", "replace"))


def _conn_of(client: int) -> int:
    """The client's PGconn, made anew if it was lost."""
    err = _native.Error()
    check(lib.jobq_client_reconnect(client, byref(err)), err)
    conn: int = lib.jobq_client_conn(client)
    return conn


def schema_name(schema: Optional[str]) -> str:
    """The schema as it stands in SQL."""
    name = "jobq" if schema is None else schema
    if not isinstance(name, str) or not re.fullmatch("[a-z_][a-z0-9_]{0,62}", name):
        raise InvalidError(f"schema must be [a-z_][a-z0-9_]* of at most 63 bytes, got {name!r:.100}")
    return f'"{name}"'


def text(value: Any, what: str) -> bytes:
    """A text as C has it."""
    if not isinstance(value, str):
        raise InvalidError(f"{what} must be a str, got {value!r:.100}")
    if "\0" in value:
        raise InvalidError(f"{what} must not hold a NUL character, got {value!r:.100}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{what} must be text that UTF-8 can hold, got {ascii(value):.100}") from None


def whole(value: Any, what: str, least: int, most: int) -> int:
    """A whole number within limits."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidError(f"{what} must be a whole number from {least} to {most}, got {value!r:.100}")
    return value


# ---- a job ----


def unique_of(job: NewJob) -> Optional[Unique]:
    """The job's rule, True spelt out."""
    unique = job.unique
    if unique is None or unique is False:
        return None
    if unique is True:
        return Unique()
    if not isinstance(unique, Unique):
        raise InvalidError(f"unique must be a jobq.Unique, True or None, got {unique!r:.100}")
    return unique


def on_conflict_of(job: NewJob) -> OnConflict:
    """The job's word, as one of ours."""
    try:
        return OnConflict(job.on_conflict)
    except ValueError:
        allowed = ", ".join(word.value for word in OnConflict)
        raise InvalidError(f"on_conflict must be one of {allowed}, got {job.on_conflict!r:.100}") from None


def names(values: Any, what: str) -> List[bytes]:
    """A sequence of texts as C has them."""
    if isinstance(values, (str, bytes)):
        raise InvalidError(f"{what} must be a sequence of str, got {values!r:.100}")
    try:
        return [text(value, f"{what}[{i}]") for i, value in enumerate(values)]
    except TypeError:
        raise InvalidError(f"{what} must be a sequence of str, got {values!r:.100}") from None


def string_array(values: List[bytes]) -> Any:
    """char *[], for as long as it is referred to."""
    return (c_char_p * len(values))(*values)


def native_unique(unique: Unique) -> _native.Unique:
    """The rule as C has it."""
    keys = names(unique.keys, "unique.keys")
    return _native.Unique(
        ctypes.sizeof(_native.Unique),
        sum(1 << FIELDS.index(field) for field in set(unique.fields)),
        sum(1 << STATES.index(state) for state in set(unique.states)),
        unique.period_s(),
        string_array(keys),
        len(keys),
    )


_SIZE = ctypes.sizeof(_native.Job)


#: All that a job may say beside its kind and args, and what that is when it says nothing.
_options_of = operator.itemgetter(*list(NewJob("").__dict__)[2:])
_PLAIN = _options_of(NewJob("").__dict__)


def fill(native: Any, job: NewJob) -> None:
    """Writes a job into C's structure, in which its size and the schema are. What is not set stays zero, which is
    JOBQ_JOB_INIT; the structure keeps what it refers to."""
    native.kind = text(job.kind, "kind")
    if job.args is not None:
        native.args = encoding.to_bytes(encoding.dump_object(job.args, "args"), "args")
    if _options_of(job.__dict__) != _PLAIN:
        _fill_options(native, job)


def _fill_options(native: Any, job: NewJob) -> None:
    native.queue = text(job.queue, "queue")
    native.priority = whole(job.priority, "priority", 0, 9)
    native.max_attempts = 0 if job.max_attempts is None else whole(job.max_attempts, "max_attempts", 1, 1000)
    native.on_conflict = ON_CONFLICT[on_conflict_of(job)]
    if job.meta is not None:
        native.meta = encoding.to_bytes(encoding.dump_object(job.meta, "meta"), "meta")
    if job.timeout is not None:
        native.timeout_ms = milliseconds(job.timeout, "timeout", 1, 2**31 - 1)
    _fill_times(native, job)
    for name in ("key", "unique_key"):
        if getattr(job, name) is not None:
            setattr(native, name, text(getattr(job, name), name))
    if job.tags:
        tags = names(job.tags, "tags")
        native.tags = string_array(tags)
        native.n_tags = len(tags)
    unique = unique_of(job)
    if unique is not None:
        native.unique_by = pointer(native_unique(unique))
    if job.replace is not None:
        native.replace = encoding.to_bytes(encoding.dumps(job.replace, "replace"), "replace")


def _fill_times(native: Any, job: NewJob) -> None:
    for verb in ("schedule", "expires"):
        if getattr(job, f"{verb}_in") is not None and getattr(job, f"{verb}_at") is not None:
            raise InvalidError(f"{verb}_in and {verb}_at cannot both be set")
    if job.schedule_in is not None:
        native.delay_ms = milliseconds(job.schedule_in, "schedule_in", 0)
    if job.schedule_at is not None:
        native.scheduled_at_us = microseconds(job.schedule_at, "schedule_at")
    if job.expires_in is not None:
        native.expires_in_ms = milliseconds(job.expires_in, "expires_in", 1)
        if job.schedule_in is not None and native.expires_in_ms <= native.delay_ms:
            raise InvalidError(f"expires_in must be more than schedule_in, {job.schedule_in}; got {job.expires_in}")
    if job.expires_at is not None:
        native.expires_at_us = microseconds(job.expires_at, "expires_at")
        if job.schedule_at is not None and job.expires_at <= job.schedule_at:
            raise InvalidError(f"expires_at must be after schedule_at, {job.schedule_at}; got {job.expires_at}")


# The statements run on the application's connection, whose search_path is the application's: so they name a schema for each
# function, type and operator. int, bigint and interval are words of SQL's own, which mean pg_catalog's.
_TEXT, _JSONB, _TIMESTAMPTZ = "pg_catalog.text", "pg_catalog.jsonb", "pg_catalog.timestamptz"

# As SQL has it: column, the cast of its parameter.
_CASTS = {
    "kind": _TEXT,
    "args": _JSONB,
    "queue": _TEXT,
    "priority": "int",
    "max_attempts": "int",
    "key": _TEXT,
    "unique_key": _TEXT,
    "tags": f"{_TEXT}[]",
    "meta": _JSONB,
    "timeout_ms": "int",
    "unique_by": _JSONB,
    "on_conflict": _TEXT,
    "replace": _JSONB,
    "scheduled_at": _TIMESTAMPTZ,
    "expires_at": _TIMESTAMPTZ,
}
_JSON = frozenset(("args", "meta", "unique_by", "replace"))


def rule(unique: Unique) -> Dict[str, Any]:
    """The rule as SQL has it."""
    members: Dict[str, Any] = {"fields": list(unique.fields), "period": unique.period_s() or "infinity"}
    if unique.keys:
        members["keys"] = list(unique.keys)
    if unique.states:
        members["states"] = list(unique.states)
    return members


def _op(operator: str) -> str:
    return f"OPERATOR(pg_catalog.{operator})"


def _from_now(milliseconds: str) -> str:
    """That much later by the database's clock."""
    return f"pg_catalog.clock_timestamp() {_op('+')} ({milliseconds} {_op('*')} interval '1 millisecond')"


def members_of(job: NewJob) -> Dict[str, Any]:
    """The arguments of jobq.try_enqueue that differ from their defaults; those of JSON as text. The checks are the ones
    of fill(), so that both roads refuse the same. Delays in milliseconds are `scheduled_in` and `expires_in`."""
    fill(_native.Job(), job)
    members: Dict[str, Any] = {"kind": job.kind}
    for name in ("queue", "priority", "max_attempts", "key", "unique_key"):
        if getattr(job, name) != getattr(NewJob, name, None):
            members[name] = getattr(job, name)
    for name in ("args", "meta", "replace"):
        if getattr(job, name) is not None:
            members[name] = encoding.dumps(getattr(job, name), name)
    if job.timeout is not None:
        members["timeout_ms"] = milliseconds(job.timeout, "timeout", 1, 2**31 - 1)
    if job.tags:
        members["tags"] = list(job.tags)
    unique = unique_of(job)
    if unique is not None:
        members["unique_by"] = encoding.dumps(rule(unique))
    if job.on_conflict != OnConflict.IGNORE:
        members["on_conflict"] = on_conflict_of(job).value
    for mine, its in (("schedule", "scheduled"), ("expires", "expires")):
        delay, at = getattr(job, f"{mine}_in"), getattr(job, f"{mine}_at")
        if delay is not None:
            members[f"{its}_in"] = milliseconds(delay, f"{mine}_in", 0)
        if at is not None:
            members[f"{its}_at"] = at.isoformat()
    return members


def arguments_of(members: Mapping[str, Any]) -> Tuple[str, List[Any]]:
    """A call's arguments in SQL, and their parameters."""
    parts, params = [], []
    for name, value in members.items():
        if name in ("scheduled_in", "expires_in"):
            parts.append(f"{name[:-3]}_at => {_from_now('%s::bigint')}")
        else:
            quoted = f'"{name}"' if name == "replace" else name
            cast = _CASTS[name]
            # asyncpg would want a datetime for what is a timestamptz at once
            parts.append(f"{quoted} => %s::{_TEXT}::{cast}" if cast == _TIMESTAMPTZ else f"{quoted} => %s::{cast}")
        params.append(value)
    return ", ".join(parts), params


def json_of(members: Mapping[str, Any]) -> str:
    """The same as an element of an array."""
    parts = (f'"{name}":{value if name in _JSON else encoding.dumps(value)}' for name, value in members.items())
    return "{" + ",".join(parts) + "}"


def _by_the_database(delay: str, at: str) -> str:
    later = _from_now(f"(j {_op('->>')} '{delay}')::bigint")
    return (
        f"CASE WHEN j {_op('?')} '{delay}' THEN pg_catalog.jsonb_build_object('{at}', {later}) ELSE '{{}}'::{_JSONB} END"
    )


#: The array of enqueue_many, with delays made times by the database's clock.
_WITH_DELAYS = (
    f"(SELECT pg_catalog.jsonb_agg((j {_op('-')} '{{scheduled_in,expires_in}}'::{_TEXT}[]) {_op('||')} "
    f"({_by_the_database('scheduled_in', 'scheduled_at')}) {_op('||')} ({_by_the_database('expires_in', 'expires_at')})"
    f" ORDER BY nth) FROM pg_catalog.jsonb_array_elements(%s::{_JSONB}) WITH ORDINALITY t (j, nth))"
)


def _enqueued(rows: Sequence[Row]) -> List[Enqueued]:
    return [Enqueued(row[0], row[1] or "") for row in rows]


def _conflict(job: NewJob, made: Enqueued) -> Enqueued:
    """The error that the database would have raised, without what that does to the application's transaction."""
    if made.conflict:
        same = "unique key, " + encoding.dumps(job.unique_key) if job.unique_key is not None else _same_by_rule(job)
        raise errors.ConflictError(f"jobq.try_enqueue is not unique: job {made.id} has the same {same}", "23505")
    return made


def _same_by_rule(job: NewJob) -> str:
    unique = unique_of(job) or Unique()
    fields = [field for field in FIELDS if field in unique.fields]
    listed = ", ".join(fields[:-1]) + " and " + fields[-1] if len(fields) > 1 else fields[0]
    keys = f" (of the keys {', '.join(map(encoding.dumps, unique.keys))})" if unique.keys else ""
    return listed + keys


def enqueue(schema: Optional[str], job: NewJob, in_transaction: bool = False) -> Operation[Enqueued]:
    """One job. in_transaction: of the application's, which a conflict must not abort."""
    quoted = schema_name(schema)
    asked = job
    raises = in_transaction and on_conflict_of(job) is OnConflict.RAISE
    if raises:
        job = dataclasses.replace(job, on_conflict=OnConflict.IGNORE)

    def told(made: Enqueued) -> Enqueued:
        return _conflict(asked, made) if raises else made

    native = _native.Job(_SIZE, schema.encode() if schema else None)
    fill(native, job)

    def call(function: Any, on: int) -> Enqueued:
        out, err = _native.Enqueued(), _native.Error()
        check(function(on, byref(native), byref(out), byref(err)), err)
        return Enqueued(out.id, CONFLICTS[out.conflict])

    def statement() -> Statement:
        arguments, params = arguments_of(members_of(job))
        return f"SELECT e.id, e.conflict FROM {quoted}.try_enqueue({arguments}) e", params

    return Operation(
        lambda conn: told(call(lib.jobq_job_try_enqueue, conn)),
        statement,
        lambda rows: told(_enqueued(rows)[0]),
        lambda client: call(lib.jobq_client_try_enqueue, client),
    )


#: jobq_enqueued, many times as fast as ctypes reads it.
_ENQUEUED = struct.Struct("@qi0q")
assert _ENQUEUED.size == ctypes.sizeof(_native.Enqueued)


#: Enqueued._make, without Python in between.
_made: Callable[[Tuple[int, str]], Enqueued] = cast(Any, functools.partial(tuple.__new__, Enqueued))


def _natives(jobs: Iterable[NewJob], blank: _native.Job) -> "Tuple[int, Any, List[Any]]":
    """How many, and as C has them; they refer to what the list keeps. The jobs themselves may go, one by one."""
    kept: List[Any] = [blank]  # whose schema they all refer to
    filled = bytearray()
    for i, job in enumerate(jobs):
        native = _native.Job.from_buffer_copy(blank)
        try:
            fill(native, job)
        except InvalidError as error:
            raise InvalidError(f"jobs[{i}].{error}") from error.__cause__
        kept.append(native._objects)
        filled += native
    n = len(filled) // _SIZE
    return n, (_native.Job * n).from_buffer(filled), kept


def enqueue_many(schema: Optional[str], jobs: Iterable[NewJob], in_transaction: bool = False) -> Operation[List[Enqueued]]:
    """Many, all or nothing. in_transaction: of the application's, where they may have to be written as SQL."""
    quoted = schema_name(schema)
    jobs = list(jobs) if in_transaction else jobs
    n, native, kept = _natives(jobs, _native.Job(_SIZE, schema.encode() if schema else None))

    def call(function: Any, on: int, keep: Any = kept) -> List[Enqueued]:
        if not n:
            return []
        out, err = (_native.Enqueued * n)(), _native.Error()
        check(function(on, native, n, out, byref(err)), err)
        return [_made((id, CONFLICTS[conflict])) for id, conflict in _ENQUEUED.iter_unpack(out)]

    def statement() -> Statement:
        all_members = [members_of(job) for job in jobs]
        delays = any("scheduled_in" in members or "expires_in" in members for members in all_members)
        array = "[" + ",".join(map(json_of, all_members)) + "]"
        which = _WITH_DELAYS if delays else f"%s::{_JSONB}"
        return f"SELECT e.id, e.conflict FROM {quoted}.try_enqueue_many({which}) e", [array]

    return Operation(
        lambda conn: call(lib.jobq_job_try_enqueue_many, conn),
        statement,
        _enqueued,
        lambda client: call(lib.jobq_client_try_enqueue_many, client),
        undo_on_error=in_transaction and any(job.on_conflict == OnConflict.RAISE for job in jobs),
    )


# ---- a job that is there ----


def info_of(native: _native.JobInfo) -> JobInfo:
    """C's structure as ours."""

    def text_or_none(value: Optional[bytes]) -> Optional[str]:
        return None if value is None else value.decode()

    inserted_at = time_of(native.inserted_at_us)
    assert inserted_at is not None
    return JobInfo(
        id=native.id,
        state=native.state.decode(),
        queue=native.queue.decode(),
        kind=native.kind.decode(),
        args=encoding.loads(native.args),
        meta=encoding.loads(native.meta),
        errors=errors_of(native.errors),
        result=None if native.result is None else encoding.loads(native.result),
        key=text_or_none(native.key),
        unique_key=text_or_none(native.unique_key),
        priority=native.priority,
        attempt=native.attempt,
        max_attempts=native.max_attempts,
        timeout=datetime.timedelta(milliseconds=native.timeout_ms) if native.timeout_ms else None,
        inserted_at=inserted_at,
        scheduled_at=time_of(native.scheduled_at_us),
        attempted_at=time_of(native.attempted_at_us),
        finished_at=time_of(native.finished_at_us),
        expires_at=time_of(native.expires_at_us),
        progress=None if native.progress < 0 else native.progress,
        progress_note=text_or_none(native.progress_note),
    )


def take_info(function: Any, *args: Any) -> JobInfo:
    """A call that looks a job up."""
    info, err = ctypes.POINTER(_native.JobInfo)(), _native.Error()
    check(function(*args, byref(info), byref(err)), err)
    try:
        return info_of(info.contents)
    finally:
        lib.jobq_job_info_free(info)


#: Texts are sent as text: what a driver would make of jsonb is its user's own affair.
_COLUMNS = ", ".join(
    ["a.id", f"a.state::{_TEXT}", "a.queue", "a.kind"]
    + [f"a.{name}::{_TEXT}" for name in ("args", "meta", "errors", "result")]
    + ["a.key", "a.unique_key", "a.priority", "a.attempt", "a.max_attempts", "a.timeout_ms"]
    + [
        f"pg_catalog.to_json(a.{name}_at)::{_TEXT}"
        for name in ("inserted", "scheduled", "attempted", "finished", "expires")
    ]
    + [f"a.progress::{_TEXT}"]
)


def _info_of_row(row: Row) -> JobInfo:

    def json_or_none(value: Optional[str]) -> Any:
        return None if value is None else encoding.loads(value)

    def time_or_none(value: Optional[str]) -> Optional[datetime.datetime]:
        return None if value is None else parse_time(encoding.loads(value)).astimezone(datetime.timezone.utc)

    inserted_at = time_or_none(row[14])
    assert inserted_at is not None
    progress = json_or_none(row[19]) or {}
    return JobInfo(
        id=row[0],
        state=row[1],
        queue=row[2],
        kind=row[3],
        args=encoding.loads(row[4]),
        meta=encoding.loads(row[5]),
        errors=errors_of(row[6]),
        result=json_or_none(row[7]),
        key=row[8],
        unique_key=row[9],
        priority=row[10],
        attempt=row[11],
        max_attempts=row[12],
        timeout=None if row[13] is None else datetime.timedelta(milliseconds=row[13]),
        inserted_at=inserted_at,
        scheduled_at=time_or_none(row[15]),
        attempted_at=time_or_none(row[16]),
        finished_at=time_or_none(row[17]),
        expires_at=time_or_none(row[18]),
        progress=progress.get("done"),
        progress_note=progress.get("note"),
    )


def _read_info(rows: Sequence[Row], number: int) -> JobInfo:
    if not rows:
        raise errors.NotFoundError(f"no job has the id {number}")
    return _info_of_row(rows[0])


def get(schema: Optional[str], job: JobId) -> Operation[JobInfo]:
    """Looks a job up."""
    quoted, number = schema_name(schema), id_of(job)
    in_c = schema.encode() if schema else None
    return Operation(
        lambda conn: take_info(lib.jobq_job_get, conn, in_c, number),
        lambda: (f"SELECT {_COLUMNS} FROM {quoted}.all_jobs a WHERE a.id {_op('=')} %s::bigint", [number]),
        lambda rows: _read_info(rows, number),
        lambda client: take_info(lib.jobq_client_job_get, client, number),
    )


def _flag(function: Any, *args: Any) -> bool:
    done, err = c_int(), _native.Error()
    check(function(*args, byref(done), byref(err)), err)
    return bool(done.value)


def _count(function: Any, *args: Any) -> int:
    n, err = c_int64(), _native.Error()
    check(function(*args, byref(n), byref(err)), err)
    return n.value


def _first(rows: Sequence[Row]) -> Any:
    return rows[0][0]


def on_one(verb: str, schema: Optional[str], job: JobId) -> Operation[bool]:
    """cancel, retry, delete."""
    quoted, number = schema_name(schema), id_of(job)
    in_c = schema.encode() if schema else None
    of_client = getattr(lib, f"jobq_client_{verb}") if verb != "delete" else None
    return Operation(
        lambda conn: _flag(getattr(lib, f"jobq_job_{verb}"), conn, in_c, number),
        lambda: (f"SELECT {quoted}.{verb}(%s::bigint)", [number]),
        _first,
        (lambda client: _flag(of_client, client, number)) if of_client else None,
    )


def complete(schema: Optional[str], job: int, attempt: int, result: Optional[bytes]) -> Operation[None]:
    """Completes the job that runs, in the caller's transaction."""
    quoted, in_c = schema_name(schema), schema.encode() if schema else None

    def on_conn(conn: int) -> None:
        err = _native.Error()
        check(lib.jobq_job_complete(conn, in_c, job, attempt, result, byref(err)), err)

    text_of_it = result.decode() if result is not None else None
    return Operation(
        on_conn,
        lambda: (f"SELECT {quoted}.complete(%s::bigint, %s::int, %s::{_JSONB})", [job, attempt, text_of_it]),
        lambda rows: None,
    )


#: Conditions of a filter that are times.
_TIMES = tuple(f"{verb}_{side}" for verb in ("inserted", "scheduled", "finished") for side in ("before", "after"))


def filter_json(conditions: Mapping[str, Any]) -> str:
    """A filter of jobq/bulk.h."""
    members = {name: value for name, value in conditions.items() if value is not None}
    for name in _TIMES:
        if name in members:
            microseconds(members[name], name)
    if "ids" in members:
        members["ids"] = [id_of(job) for job in members["ids"]]
    return encoding.dump_object(members, "the filter")


def on_many(verb: str, schema: Optional[str], conditions: Mapping[str, Any]) -> Operation[int]:
    """cancel_many, retry_many, delete_many."""
    quoted, which = schema_name(schema), filter_json(conditions)
    in_c = schema.encode() if schema else None
    return Operation(
        lambda conn: _count(getattr(lib, f"jobq_job_{verb}"), conn, in_c, encoding.to_bytes(which, "the filter")),
        lambda: (f"SELECT {quoted}.{verb}(%s::{_JSONB})", [which]),
        _first,
    )


def purge(schema: Optional[str], args: Any, kind: Optional[str], queue: Optional[str]) -> Operation[int]:
    """Deletes a user's data."""
    quoted, contained = schema_name(schema), encoding.dump_object(args, "args")
    in_c = [text(value, name) if value is not None else None for name, value in (("kind", kind), ("queue", queue))]
    schema_in_c = schema.encode() if schema else None
    return Operation(
        lambda conn: _count(lib.jobq_job_purge, conn, schema_in_c, encoding.to_bytes(contained, "args"), *in_c),
        lambda: (f"SELECT {quoted}.purge(%s::{_JSONB}, %s::{_TEXT}, %s::{_TEXT})", [contained, kind, queue]),
        _first,
    )


def on_queue(
    verb: str, schema: Optional[str], queue: str, node: Optional[str], numbers: Iterable[Optional[int]] = ()
) -> Operation[bool]:
    """pause, resume, scale. numbers: what scale has between the two names; None is the configuration's."""
    quoted, queue_in_c = schema_name(schema), text(queue, "queue")
    node_in_c = text(node, "node") if node is not None else None
    more = list(numbers)
    more_in_c = [-1 if number is None else number for number in more]
    in_c = schema.encode() if schema else None
    holes = ", ".join([f"%s::{_TEXT}", *("%s::int" for _ in more), f"%s::{_TEXT}"])
    return Operation(
        lambda conn: _flag(getattr(lib, f"jobq_queue_{verb}"), conn, in_c, queue_in_c, *more_in_c, node_in_c),
        lambda: (f"SELECT {quoted}.{verb}({holes})", [queue, *more, node]),
        _first,
    )


def scale(schema: Optional[str], queue: str, n: Optional[int], node: Optional[str]) -> Operation[bool]:
    """So many workers."""
    return on_queue("scale", schema, queue, node, [None if n is None else whole(n, "n", 0, 1000)])
