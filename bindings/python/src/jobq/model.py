"""What goes into the queue and what comes back: options, answers, jobs."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from . import encoding
from .errors import InvalidError

Seconds = Union[int, float, datetime.timedelta]

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

FIELDS = ("kind", "queue", "args", "meta")
STATES = ("scheduled", "available", "executing", "retryable", "suspended", "completed", "cancelled", "discarded")


@dataclasses.dataclass(frozen=True)
class Unique:
    """When a job is unique: the last one that was enqueued with this key, if it is in one of ``states`` and young enough,
    is in the way of a new one. The database computes the key, so every language agrees on it.

    ``fields``: of "kind", "queue", "args", "meta". ``keys``: of args (and of meta, if it is among the fields) only these
    top-level members count; none: all of it. A job that lacks a key equals every other job that lacks it. ``period``: seconds since the other was inserted; None: for as long as it is
    known. ``states``: none: all but cancelled and discarded.
    """

    fields: Sequence[str] = ("kind", "queue", "args")
    keys: Sequence[str] = ()
    period: Optional[Seconds] = None
    states: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, allowed in (("fields", FIELDS), ("states", STATES)):
            values = getattr(self, name)
            if isinstance(values, str) or not all(value in allowed for value in values):
                raise InvalidError(f"unique.{name} must be a sequence of {', '.join(allowed)}, got {values!r:.100}")
        if isinstance(self.keys, str) or not all(isinstance(key, str) and key for key in self.keys):
            raise InvalidError(f"unique.keys must be a sequence of names, got {self.keys!r:.100}")
        if not self.fields:
            raise InvalidError("unique.fields must name one field at least, got none")
        if self.period is not None and not 0 < seconds(self.period, "unique.period") <= 2**31 - 1:
            raise InvalidError(f"unique.period must be more than 0 and at most 2147483647 seconds, got {self.period!r}")

    def period_s(self) -> int:
        """In whole seconds, rounded up; 0: for ever."""
        return 0 if self.period is None else -int(-seconds(self.period, "unique.period") // 1)


def seconds(value: Seconds, what: str) -> float:
    """A timedelta or a number of seconds, as a number of seconds."""
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return float(value)
    raise InvalidError(f"{what} must be a timedelta or a number of seconds, got {value!r:.100}")


#: A delay's limit in libjobq: ten years.
DELAY_MOST_MS = 315_360_000_000


def milliseconds(value: Seconds, what: str, least: int, most: int = 31_622_400_000_000) -> int:
    """The same in whole milliseconds, within limits."""
    number = seconds(value, what) * 1000
    if not least <= number <= most:
        raise InvalidError(f"{what} must be from {least / 1000:g} to {most / 1000:g} seconds, got {number / 1000:g}")
    return round(number)


def microseconds(value: datetime.datetime, what: str) -> int:
    """A time, in microseconds since 1970. It must say in which time zone it is."""
    if not isinstance(value, datetime.datetime):
        raise InvalidError(f"{what} must be a datetime, got {value!r:.100}")
    if value.utcoffset() is None:
        raise InvalidError(f"{what} must have a time zone, as datetime.now(timezone.utc) has; got {value.isoformat()}")
    return (value - EPOCH) // datetime.timedelta(microseconds=1)


def time_of(us: int) -> Optional[datetime.datetime]:
    """The inverse; 0: not set."""
    return EPOCH + datetime.timedelta(microseconds=us) if us else None


class OnConflict(str, enum.Enum):
    """What happens where a job is there already, by ``unique_key`` or ``unique``."""

    IGNORE = "ignore"  #: nothing: its id is the answer
    REPLACE = "replace"  #: it gets the values of the members that ``replace`` names
    RAISE = "raise"  #: ConflictError


Replace = Union[Sequence[str], Mapping[str, Sequence[str]]]


@dataclasses.dataclass
class NewJob:
    """A job to enqueue, for :meth:`jobq.Client.enqueue_many`; what is not set has the database's default.

    ``args``, ``meta``: what :mod:`jobq.encoding` makes a JSON object of. ``priority``: 0 (first) to 9. ``timeout``: how long
    an attempt may take; None: as long as its queue allows. ``schedule_in`` counts from now by the database's clock,
    ``schedule_at`` needs a time zone. ``expires_in``, ``expires_at``: cancelled if it has not begun by then. ``key``: the
    application's own grouping. ``max_attempts``: None: that of the queue, else 20. ``unique_key``: no second live job with this key. ``unique``: see :class:`Unique`; True is
    ``Unique()``. ``on_conflict``, ``replace``: see :class:`OnConflict`; a sequence of members for all states that wait, or a
    mapping of states to such sequences.
    """

    kind: str
    args: Any = None
    queue: str = "default"
    priority: int = 0
    max_attempts: Optional[int] = None
    timeout: Optional[Seconds] = None
    schedule_in: Optional[Seconds] = None
    schedule_at: Optional[datetime.datetime] = None
    expires_in: Optional[Seconds] = None
    expires_at: Optional[datetime.datetime] = None
    key: Optional[str] = None
    unique_key: Optional[str] = None
    unique: Union[Unique, bool, None] = None
    on_conflict: Union[OnConflict, str] = OnConflict.IGNORE
    replace: Optional[Replace] = None
    tags: Sequence[str] = ()
    meta: Any = None


class Enqueued(NamedTuple):
    """What came of a job. ``conflict``: "" when it is new, "ignored" or "replaced" when it was there already: then ``id`` is
    the one that was there. Wherever an id is wanted, this can be given."""

    id: int
    conflict: str = ""

    @property
    def inserted(self) -> bool:
        """Whether the job is new."""
        return not self.conflict

    def __int__(self) -> int:
        return self.id

    def __index__(self) -> int:
        return self.id


JobId = Union[int, Enqueued, "JobInfo"]


@dataclasses.dataclass(frozen=True)
class AttemptError:
    """An entry of a job's errors. ``kind``: "error", "crash", "timeout", "memory", "protocol", "orphaned", "unhandled",
    "expired" or "cancelled". ``detail``: the traceback. ``output``: the end of what a worker that crashed has printed.
    ``more``: what else the entry says, such as the node."""

    attempt: int
    at: datetime.datetime
    kind: str
    error: Optional[str]
    detail: Optional[str]
    output: Optional[str]
    more: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class JobInfo:
    """A job as the database has it, live or finished."""

    id: int
    state: str
    queue: str
    kind: str
    args: Dict[str, Any]
    meta: Dict[str, Any]
    errors: List[AttemptError]
    result: Any
    key: Optional[str]
    unique_key: Optional[str]
    priority: int
    attempt: int
    max_attempts: int
    timeout: Optional[datetime.timedelta]
    inserted_at: datetime.datetime
    scheduled_at: Optional[datetime.datetime]
    attempted_at: Optional[datetime.datetime]
    finished_at: Optional[datetime.datetime]
    expires_at: Optional[datetime.datetime]
    progress: Optional[float]  #: what the attempt that runs has said last, 0 to 1
    progress_note: Optional[str]

    @property
    def finished(self) -> bool:
        """Whether it has ended: completed, cancelled or discarded."""
        return self.state in ("completed", "cancelled", "discarded")

    def __int__(self) -> int:
        return self.id

    __index__ = __int__


def id_of(job: JobId) -> int:
    """The id of what an application hands in."""
    number = getattr(job, "id", job)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 2**63:
        raise InvalidError(f"a job id must be a whole number from 1, or what enqueue returned; got {job!r:.100}")
    return number


def parse_time(text: str) -> datetime.datetime:
    """ISO 8601 as the database writes it. Python before 3.11 reads neither "Z" nor a fraction of four digits."""
    text = text.replace(" ", "T").replace("Z", "+00:00")
    if "." in text:
        whole, rest = text.split(".")
        digits = rest[: next((i for i, c in enumerate(rest) if not c.isdigit()), len(rest))]
        text = f"{whole}.{digits[:6].ljust(6, '0')}{rest[len(digits):]}"
    if len(text) > 3 and text[-3] in "+-":
        text += ":00"
    return datetime.datetime.fromisoformat(text)


def errors_of(text: "str | bytes") -> List[AttemptError]:
    """The column `errors`."""
    return [
        AttemptError(
            attempt=entry.pop("attempt", 0),
            at=parse_time(entry.pop("at")),
            kind=entry.pop("kind", "error"),
            error=entry.pop("error", None),
            detail=entry.pop("detail", None),
            output=entry.pop("output", None),
            more=entry,
        )
        for entry in encoding.loads(text)
    ]
