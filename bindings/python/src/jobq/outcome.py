"""How a job ends when it does not simply return or fail: exceptions for its function to raise."""

from __future__ import annotations

from typing import Any, Optional, Tuple, Type

from .errors import InvalidError
from .model import DELAY_MOST_MS, Seconds, milliseconds


def _again(kind: Type[BaseException], args: Tuple[Any, ...]) -> BaseException:
    return kind.__new__(kind, *args)


class _Copied(Exception):
    """Copies and pickles are made without __init__, whose parameters are not what an exception keeps in `args`."""

    def __reduce__(self) -> Any:
        return _again, (type(self), self.args), self.__dict__ or None


class Outcome(_Copied):
    """The base of all."""


class Snooze(Outcome):
    """Not yet: again after so many seconds (or a timedelta). Not counted as an attempt."""

    def __init__(self, after: Seconds) -> None:
        super().__init__(f"snoozed for {after}")
        self.after_ms = milliseconds(after, "after", 0, DELAY_MOST_MS)


class Retry(Outcome):
    """It failed: again after so many seconds (or a timedelta), while attempts are left; None: after the back-off.
    ``reason``: one line; without one, what it was raised `from`."""

    after_ms: int = -1
    reason: Optional[str] = None

    def __init__(self, after: Optional[Seconds] = None, reason: Optional[str] = None) -> None:
        super().__init__(reason or "to be tried again")
        if isinstance(after, str):
            raise InvalidError(
                f"after must be a timedelta or a number of seconds, got {after!r:.100}; a reason is given by its name: "
                f"jobq.Retry(after=60, reason={after!r:.100})"
            )
        self.after_ms = -1 if after is None else milliseconds(after, "after", 0, DELAY_MOST_MS)
        self.reason = reason


class Discard(Outcome):
    """Never again: the job ends as discarded. ``reason``: one line."""

    reason: Optional[str] = None

    def __init__(self, reason: Optional[str] = None) -> None:
        super().__init__(reason or "discarded")
        self.reason = reason


class Cancel(Outcome):
    """Stopped, as asked or by itself: the job ends as cancelled. ``reason``: one line."""

    reason: Optional[str] = None

    def __init__(self, reason: Optional[str] = None) -> None:
        super().__init__(reason or "cancelled")
        self.reason = reason


class SoftTimeout(_Copied):
    """Raised in a function that has run longer than its ``soft_timeout``: put things in order and return, or raise. Uncaught
    it fails the attempt."""

    def __init__(self) -> None:
        super().__init__("the function has run longer than its soft_timeout")
