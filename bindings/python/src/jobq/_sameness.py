"""Whether a function gets what was given to ``.enqueue()``: a value beside what its JSON was read back as.

What JSON has may be handed over in place of what the annotation names (a string for a date); the sequences may stand for each
other, as callers know that arrays are lists. Everything else must come back as it was.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import pathlib
import typing
from typing import Any, Mapping, Optional

#: What JSON has by itself.
_PLAIN = (type(None), bool, int, float, str)
_SEQUENCES = (list, tuple, collections.abc.Sequence)
_SETS = (set, frozenset, collections.abc.Set)


def change(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    """What would be another for the function, in words; None: nothing. `kind`: the annotation."""
    from . import validation

    while hasattr(kind, "__metadata__") or validation.mark_of(kind):
        kind = kind.__origin__ if hasattr(kind, "__metadata__") else typing.get_args(kind)[0]
    if kind in (Any, object) or isinstance(kind, typing.TypeVar):
        return None
    if validation.is_union(typing.get_origin(kind)):
        return _in_union(kind, given, got, where)
    if isinstance(given, (dict, collections.abc.Mapping)) and isinstance(got, dict):
        return _in_mapping(kind, given, got, where)
    if isinstance(given, _SETS) and isinstance(got, _SETS):
        return None if set(given) == set(got) else _words(where, given, got)
    if isinstance(given, (list, tuple)) and isinstance(got, (list, tuple)) and not hasattr(given, "_fields"):
        return _in_sequence(kind, given, got, where)
    if dataclasses.is_dataclass(given) and type(given) is type(got):
        return _in_dataclass(kind, given, got, where)
    return None if _same(given, got) else _words(where, given, got)


def _same(given: Any, got: Any) -> bool:
    if isinstance(given, decimal.Decimal) and isinstance(got, decimal.Decimal):
        return str(given) == str(got)  # NaN is not itself, and 1.0 is not 1.00
    if isinstance(given, datetime.datetime) and isinstance(got, datetime.datetime):
        return _same_time(given, got)
    if type(given) in _PLAIN:
        return _same_plain(given, got)
    if type(given) is type(got) or (isinstance(given, type(got)) and isinstance(given, (str, int, float))):
        return given is got or bool(given == got)
    if isinstance(given, pathlib.PurePath) and isinstance(got, pathlib.PurePath):
        return bool(given == got)
    if isinstance(given, _SETS) and isinstance(got, (list, tuple)):
        return len(given) == len(got) and all(item in given for item in got)
    if isinstance(given, (list, tuple)) and isinstance(got, _SETS):
        return len(given) == len(got) and all(item in got for item in given)
    if type(given) in (dict, list, tuple) and not isinstance(got, (dict, list, tuple)):
        return True  # JSON's form of a dataclass, a model, an enum's value
    return hasattr(given, "__fspath__") and isinstance(got, pathlib.PurePath) and bool(given.__fspath__() == str(got))


def _same_plain(given: Any, got: Any) -> bool:
    """JSON as it stands, for whatever type: numbers are not rounded, and text stays text where text is wanted."""
    if isinstance(given, bool) or isinstance(got, bool):
        return given is got
    if isinstance(given, (int, float)) and isinstance(got, (int, float)) and not isinstance(got, enum.Enum):
        return bool(given == got)
    if isinstance(given, float) and isinstance(got, datetime.timedelta):
        return True
    return bool(given == got) if type(given) is type(got) else True


def _same_time(given: datetime.datetime, got: datetime.datetime) -> bool:
    """The same instant, or without a zone the same reading; a class of the application's own stays what it is."""
    if (given.utcoffset() is None) != (got.utcoffset() is None) or not isinstance(given, type(got)):
        return False
    if given.utcoffset() is None:
        return given == got and given.fold == got.fold
    return given.astimezone(datetime.timezone.utc) == got.astimezone(datetime.timezone.utc)


def _in_union(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    """That of its types of which the value is; the value must have come back as one of that type."""
    kinds = typing.get_args(kind)
    if any(each in (Any, object) for each in kinds):
        return None
    if type(given) in _PLAIN and type(given) in kinds and type(got) is not type(given):
        return _words(where, given, got)
    for each in kinds:
        if change(each, given, got, where) is None:
            return None
    return _words(where, given, got)


def _in_mapping(kind: Any, given: Mapping[Any, Any], got: Mapping[Any, Any], where: str) -> Optional[str]:
    from . import validation

    if len(given) != len(got):
        return f"{where} would arrive with {len(got)} members, it has {len(given)}: in JSON some have the same name"
    origin = typing.get_origin(kind) or kind
    args = typing.get_args(kind)
    members = validation.members_of(kind) if hasattr(origin, "__required_keys__") else None
    if members is None and len(args) != 2:
        return None
    by_place = list(zip(given.items(), got.items()))
    for (name, value), (its, item) in by_place:
        if members is None and args[0] not in (Any, object) and not (name == its and _same(name, its)) and type(name) is not str:
            return _words(f"{where}'s member", name, its)
        hint = members.get(name, Any) if members is not None else args[1]
        found = change(hint, value, item, f"{where}.{name}")
        if found is not None:
            return found
    return None


def _in_sequence(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    from . import validation

    args = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if hasattr(origin, "_fields"):
        hints = validation.members_of(kind)
        kinds = [hints.get(name, Any) for name in origin._fields]
    elif origin is tuple and len(args) == len(given) and Ellipsis not in args:
        kinds = list(args)
    else:
        kinds = [args[0] if args else Any] * len(given)
    if len(given) != len(got):
        return _words(where, given, got)
    for i, (each, value, item) in enumerate(zip(kinds, given, got)):
        found = change(each, value, item, f"{where}[{i}]")
        if found is not None:
            return found
    return None


def _in_dataclass(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    from . import validation

    hints = validation.members_of(kind) if dataclasses.is_dataclass(typing.get_origin(kind) or kind) else {}
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        found = change(hints.get(field.name, Any) if field.init else _Derived, value, getattr(got, field.name, None), f"{where}.{field.name}")
        if found is not None:
            return found
    return None


class _Derived:
    """The type of a member that the class makes of the others: compared as it is."""


def _words(where: str, given: Any, got: Any) -> str:
    return (
        f"{where} would arrive as {type(got).__name__} {got!r:.100}, not as {type(given).__name__} {given!r:.100}: JSON does not "
        f"carry the difference"
    )
