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

from . import _annotations, encoding
from ._annotations import DATE, DATETIME, TIME
from .errors import InvalidError

#: What JSON has by itself.
_PLAIN = (type(None), bool, int, float, str)
_SETS = (set, frozenset, collections.abc.Set)


class _Derived:
    """The type of a member that the class makes itself: its items are compared as well, for they have no annotation."""


def change(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    """What would be another for the function, in words; None: nothing. `kind`: the annotation."""
    if type(given) in _PLAIN and type(given) is type(got) and given == got:
        return None
    kind = _annotations.plain(kind)
    if kind in (Any, object) or isinstance(kind, typing.TypeVar):
        return None
    if _annotations.is_union(typing.get_origin(kind)):
        return _in_union(kind, given, got, where)
    if kind is _Derived and type(given) is not type(got):
        return _words(where, given, got)
    if isinstance(given, (dict, collections.abc.Mapping)) and isinstance(got, dict):
        return _in_mapping(kind, given, got, where)
    if isinstance(given, _SETS) and isinstance(got, _SETS):
        return None if set(given) == set(got) else _words(where, given, got)
    if isinstance(given, (list, tuple)) and isinstance(got, (list, tuple)) and (not hasattr(given, "_fields") or type(given) is type(got)):
        return _in_sequence(kind, given, got, where)
    if dataclasses.is_dataclass(given) and type(given) is type(got) and encoding.encoder_of(type(given)) is None:
        return _in_dataclass(kind, given, got, where)
    return None if _same(given, got) else _words(where, given, got)


def _same(given: Any, got: Any) -> bool:
    if isinstance(given, decimal.Decimal) and isinstance(got, decimal.Decimal):
        if isinstance(given, enum.Enum) and not isinstance(got, enum.Enum):
            given = given.value
        return str(given) == str(got)  # NaN is not itself, and 1.0 is not 1.00
    if isinstance(given, DATETIME) and isinstance(got, DATETIME):
        return isinstance(given, type(got)) and _same_instant(given, got)
    if isinstance(given, DATE) and isinstance(got, DATE):
        return isinstance(given, type(got)) and not isinstance(given, DATETIME) and given == got
    if isinstance(given, TIME) and isinstance(got, TIME):
        return isinstance(given, type(got)) and _same_time(given, got)
    if type(given) in _PLAIN:
        return _same_plain(given, got)
    if type(given) is type(got) or (isinstance(given, type(got)) and isinstance(given, (str, int, float))):
        return _equal(given, got)
    if isinstance(given, pathlib.PurePath) and isinstance(got, pathlib.PurePath):
        return bool(given == got)
    if isinstance(given, _SETS) and isinstance(got, (list, tuple)):
        return len(given) == len(got) and all(item in given for item in got)
    if isinstance(given, (list, tuple)) and isinstance(got, _SETS):
        return len(given) == len(got) and all(item in got for item in given)
    if type(given) in (dict, list, tuple) and not isinstance(got, (dict, list, tuple)):
        return True  # JSON's form of a dataclass, a model, an enum's value
    return hasattr(given, "__fspath__") and isinstance(got, pathlib.PurePath) and bool(given.__fspath__() == str(got))


def _equal(given: Any, got: Any) -> bool:
    """By ==. A class may have none of its own, and that of an array gives an array: then by what both are in JSON."""
    if given is got:
        return True
    if getattr(type(given), "__eq__") is not getattr(object, "__eq__"):
        try:
            equal = given == got
        except Exception:
            equal = None
        if isinstance(equal, bool):
            return equal
    try:
        return encoding.dumps(given) == encoding.dumps(got)
    except InvalidError:
        return False


def _same_plain(given: Any, got: Any) -> bool:
    """JSON as it stands, for whatever type: numbers are not rounded, and text stays text where text is wanted."""
    if isinstance(given, bool) or isinstance(got, bool):
        return given is got
    if isinstance(given, (int, float)) and isinstance(got, (int, float)) and not isinstance(got, enum.Enum):
        return bool(given == got)
    if isinstance(given, float) and isinstance(got, datetime.timedelta):
        return True
    return bool(given == got) if type(given) is type(got) else True


def _same_instant(given: datetime.datetime, got: datetime.datetime) -> bool:
    """Without a zone the same reading."""
    if (given.utcoffset() is None) != (got.utcoffset() is None):
        return False
    if given.utcoffset() is None:
        return given == got and given.fold == got.fold
    return given - got == datetime.timedelta(0)  # astimezone(UTC) overflows in the first and the last hours


def _same_time(given: datetime.time, got: datetime.time) -> bool:
    """JSON carries neither a zone whose offset depends on the day nor `fold`."""
    if (given.tzinfo is None) != (got.tzinfo is None):
        return False
    return given == got and (given.fold == got.fold or given.tzinfo is not None)


def _in_union(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    """By those of its types of which the value has come back. The others say nothing: any list is the same to None's type."""
    kinds = _annotations.alternatives(kind)
    if any(each in (Any, object) or isinstance(each, typing.TypeVar) for each in kinds):
        return None
    if type(given) in _PLAIN and type(given) in kinds and type(got) is not type(given):
        return _words(where, given, got)
    if type(given) in (dict, list, tuple) and not isinstance(got, (dict, list, tuple, *_SETS)):
        if any(_annotations.is_of(each, given) for each in kinds):
            return _words(where, given, got)
    found = None
    for each in [each for each in kinds if _annotations.is_of(each, got)] or kinds:
        found = change(each, given, got, where)
        if found is None:
            return None
    return found


def _in_mapping(kind: Any, given: Mapping[Any, Any], got: Mapping[Any, Any], where: str) -> Optional[str]:
    if len(given) != len(got) or (kind is _Derived and given.keys() != got.keys()):
        return _words(where, given, got)
    if kind is _Derived:
        found = (change(_Derived, value, got[name], f"{where}.{name}") for name, value in given.items())
        return next((each for each in found if each is not None), None)
    origin = typing.get_origin(kind) or kind
    args = _annotations.arguments_of(kind, dict)
    members = _annotations.members_of(kind) if hasattr(origin, "__required_keys__") else None
    if members is None and len(args) != 2:
        return None
    by_place = list(zip(given.items(), got.items()))
    for (name, value), (its, item) in by_place:
        if members is None and not _same_name(args[0], name, its):
            return _words(f"{where}'s member", name, its)
        hint = members.get(name, Any) if members is not None else args[1]
        change_there = change(hint, value, item, f"{where}.{name}")
        if change_there is not None:
            return change_there
    return None


def _same_name(kind: Any, name: Any, its: Any) -> bool:
    """Of a dict's member. A str may be JSON's form of a key of another type, if it is none itself."""
    kinds = _annotations.alternatives(kind)
    if any(each in (Any, object) or isinstance(each, typing.TypeVar) for each in kinds) or (name == its and _same(name, its)):
        return True
    return type(name) is str and not any(_annotations.is_of(each, name) for each in kinds)


def _in_sequence(kind: Any, given: Any, got: Any, where: str) -> Optional[str]:
    origin = typing.get_origin(kind) or kind
    args = _annotations.arguments_of(kind, list)
    if kind is _Derived:
        kinds = [_Derived] * len(given)
    elif hasattr(origin, "_fields"):
        hints = _annotations.members_of(kind)
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
    hints = _annotations.members_of(kind) if dataclasses.is_dataclass(typing.get_origin(kind) or kind) else {}
    default = _Derived if kind is _Derived else Any
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        found = change(hints.get(field.name, default) if field.init else _Derived, value, getattr(got, field.name, None), f"{where}.{field.name}")
        if found is not None:
            return found
    return None


def _words(where: str, given: Any, got: Any) -> str:
    return (
        f"{where} would arrive as {type(got).__name__} {got!r:.100}, not as {type(given).__name__} {given!r:.100}: JSON does not "
        f"carry the difference"
    )
