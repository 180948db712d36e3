"""A job's arguments, checked against the annotations of the function that will run, and converted to what they ask for.

What :mod:`jobq.encoding` writes is read back: ISO times, Decimals and UUIDs as strings, enums by value, dataclasses,
typed dicts and named tuples from objects, pydantic models by pydantic. Anything without an annotation, or with one that is
not known here, arrives as JSON has it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import os
import pathlib
import sys
import threading
import typing
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type, Union

from .errors import InvalidError
from .model import parse_time

Converter = Callable[[Any, str], Any]


class ArgumentError(InvalidError):
    """The job's arguments are not what its function takes; the message names which."""


def _fail(where: str, wanted: str, value: Any) -> "typing.NoReturn":
    raise ArgumentError(f"{where} must be {wanted}, got {value!r:.100}")


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _anything(value: Any, where: str) -> Any:
    return value


def _none(value: Any, where: str) -> None:
    if value is not None:
        _fail(where, "null", value)


def _exactly(kind: Type[Any], wanted: str) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if type(value) is not kind:
            _fail(where, wanted, value)
        return value

    return convert


def _float(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _fail(where, "a number", value)
    try:
        return float(value)
    except OverflowError:
        _fail(where, "a number that a double can hold", value)


def _from_text(kind: Callable[[str], Any], wanted: str) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, str):
            _fail(where, wanted, value)
        try:
            return kind(value)
        except (ValueError, ArithmeticError):
            _fail(where, wanted, value)

    return convert


def _decimal(value: Any, where: str) -> decimal.Decimal:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _fail(where, "a decimal number", value)
    try:
        return decimal.Decimal(str(value))
    except ArithmeticError:
        _fail(where, "a decimal number", value)


def _timedelta(value: Any, where: str) -> datetime.timedelta:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _fail(where, "a number of seconds", value)
    try:
        return datetime.timedelta(seconds=value)
    except OverflowError:
        _fail(where, "a number of seconds", value)


#: What a single value is made by.
_SIMPLE: Dict[Any, Converter] = {
    Any: _anything,
    object: _anything,
    inspect.Parameter.empty: _anything,
    None: _none,
    type(None): _none,
    bool: _exactly(bool, "true or false"),
    int: _exactly(int, "a whole number"),
    str: _exactly(str, "a string"),
    float: _float,
    decimal.Decimal: _decimal,
    datetime.timedelta: _timedelta,
    datetime.datetime: _from_text(parse_time, "a time as ISO 8601 has it"),
    datetime.date: _from_text(datetime.date.fromisoformat, "a date as ISO 8601 has it"),
    datetime.time: _from_text(datetime.time.fromisoformat, "a time of day as ISO 8601 has it"),
    uuid.UUID: _from_text(uuid.UUID, "a UUID"),
    pathlib.Path: _from_text(pathlib.Path, "a path"),
    pathlib.PurePath: _from_text(pathlib.PurePath, "a path"),
    os.PathLike: _from_text(pathlib.Path, "a path"),
}

_LISTS: Dict[Any, Callable[[List[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}

_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def _list(make: Callable[[List[Any]], Any], of: Converter) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            _fail(where, "an array", value)
        try:
            return make([of(item, f"{where}[{i}]") for i, item in enumerate(value)])
        except TypeError:
            _fail(where, "an array of what a set can hold", value)

    return convert


def _tuple(of: List[Converter]) -> Converter:
    def convert(value: Any, where: str) -> Tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(of):
            _fail(where, f"an array of {len(of)}", value)
        return tuple(each(item, f"{where}[{i}]") for i, (each, item) in enumerate(zip(of, value)))

    return convert


def _mapping(key: Converter, of: Converter) -> Converter:
    def convert(value: Any, where: str) -> Dict[Any, Any]:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        return {key(name, f"{where}'s member"): of(item, f"{where}.{name}") for name, item in value.items()}

    return convert


def _key(kind: Any) -> Converter:
    """Members' names are strings in JSON; a dict may have had numbers."""
    if kind in (int, float):
        return _from_text(kind, f"named by {'whole ' if kind is int else ''}numbers")
    return converter(kind)


def _union(of: List[Converter], wanted: str) -> Converter:
    def convert(value: Any, where: str) -> Any:
        for each in of:
            try:
                return each(value, where)
            except ArgumentError:
                continue
        _fail(where, wanted, value)

    return convert


def _literal(values: Tuple[Any, ...]) -> Converter:
    def convert(value: Any, where: str) -> Any:
        for each in values:
            plain = each.value if isinstance(each, enum.Enum) else each
            if type(plain) is type(value) and plain == value:
                return each
        _fail(where, "one of " + ", ".join(repr(each) for each in values), value)

    return convert


def _enum(kind: Type[enum.Enum]) -> Converter:
    def convert(value: Any, where: str) -> enum.Enum:
        for member in kind:
            if member.value == value and isinstance(value, bool) == isinstance(member.value, bool):
                return member
        _fail(where, "one of " + ", ".join(repr(member.value) for member in kind), value)

    return convert


def _object(make: Callable[..., Any], members: Dict[str, Converter], required: "frozenset[str]", what: str) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            _fail(where, f"an object ({what})", value)
        unknown = [name for name in value if name not in members]
        missing = sorted(required - value.keys())
        if unknown or missing:
            wrong = f"lacks {missing[0]!r}" if missing else f"has a member {unknown[0]!r}"
            raise ArgumentError(f"{where} {wrong}; {what} has {', '.join(sorted(members))}")
        try:
            return make(**{name: members[name](item, f"{where}.{name}") for name, item in value.items()})
        except ArgumentError:
            raise
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{where} is no {what}: {error}") from error

    return convert


def _dataclass(kind: Any) -> Converter:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    required = frozenset(
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    return _object(kind, {field.name: converter(hints[field.name]) for field in fields}, required, _name(kind))


def _typed_dict(kind: Any) -> Converter:
    members = {name: converter(hint) for name, hint in typing.get_type_hints(kind).items()}
    return _object(dict, members, frozenset(kind.__required_keys__), _name(kind))


def _named_tuple(kind: Any) -> Converter:
    """json writes it as an array."""
    hints = typing.get_type_hints(kind)
    as_tuple = _tuple([converter(hints.get(name, Any)) for name in kind._fields])
    return lambda value, where: kind(*as_tuple(value, where))


class _UnderWay(threading.local):
    """Types whose converters are being made, each with the place where its own will be."""

    def __init__(self) -> None:
        self.places: Dict[Any, List[Converter]] = {}


_under_way = _UnderWay()


def _perhaps_recursive(kind: Any, make: Callable[[Any], Converter]) -> Converter:
    """`make`'s converter of a type that may have members of its own type."""
    places = _under_way.places
    if kind in places:
        there = places[kind]
        return lambda value, where: there[0](value, where)
    place: List[Converter] = []
    places[kind] = place
    try:
        place.append(make(kind))
    finally:
        del places[kind]
    return place[0]


def _pydantic(kind: Any) -> Optional[Converter]:
    """Pydantic's own validation, of its version 2 or 1; None: it is no model."""
    if not isinstance(kind, type) or "pydantic" not in sys.modules:
        return None
    if not issubclass(kind, sys.modules["pydantic"].BaseModel):
        return None
    validate = getattr(kind, "model_validate", None) or kind.parse_obj  # type: ignore[attr-defined]

    def convert(value: Any, where: str) -> Any:
        try:
            return validate(value)
        except ValueError as error:
            raise ArgumentError(f"{where} is no {_name(kind)}: {error}") from error

    return convert


def _generic(kind: Any, origin: Any, args: Tuple[Any, ...]) -> Converter:
    """A type with parameters."""
    if origin is Union or (sys.version_info >= (3, 10) and origin is __import__("types").UnionType):
        return _union([converter(each) for each in args], " or ".join(_name(each) for each in args))
    if origin is typing.Literal:
        return _literal(args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return _list(tuple, converter(args[0]))
        return _tuple([converter(each) for each in args])
    if origin in _LISTS:
        return _list(_LISTS[origin], converter(args[0]))
    if origin in _MAPPINGS:
        return _mapping(_key(args[0]), converter(args[1]))
    if hasattr(kind, "__metadata__"):  # Annotated
        return converter(args[0])
    return _anything


def converter(kind: Any) -> Converter:
    """What makes a value of JSON a `kind`; called as convert(value, where), it raises ArgumentError, which begins with
    `where`."""
    try:
        if kind in _SIMPLE:
            return _SIMPLE[kind]
    except TypeError:  # not hashable
        return _anything
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is not None:
        return _generic(kind, origin, args)
    if kind in _LISTS or kind is tuple:
        return _list(_LISTS.get(kind, tuple), _anything)
    if kind in _MAPPINGS:
        return _mapping(_anything, _anything)
    if isinstance(kind, typing.TypeVar):
        return _anything
    if hasattr(kind, "__supertype__"):  # NewType
        return converter(kind.__supertype__)
    if not isinstance(kind, type):
        return _anything
    pydantic = _pydantic(kind)
    if pydantic is not None:
        return pydantic
    if issubclass(kind, enum.Enum):
        return _enum(kind)
    if dataclasses.is_dataclass(kind):
        return _perhaps_recursive(kind, _dataclass)
    if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):  # a TypedDict
        return _perhaps_recursive(kind, _typed_dict)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _perhaps_recursive(kind, _named_tuple)
    return _anything


def _unreadable(what: str, error: Exception) -> InvalidError:
    return InvalidError(f"the annotations of {what} cannot be read ({error}); validate=False does without")


class Parameters:
    """What a function takes, of which the first may be its context."""

    def __init__(self, function: Callable[..., Any], context: Type[Any], validate: bool) -> None:
        self.signature = inspect.signature(function)
        try:
            hints = typing.get_type_hints(function)
        except Exception as error:
            if validate:
                raise _unreadable(_name(function), error) from error
            names = {"Context": context, "jobq.Context": context}
            hints = {name: names.get(hint) for name, hint in getattr(function, "__annotations__", {}).items()}
        parameters = list(self.signature.parameters.values())
        self.takes_context = bool(parameters) and hints.get(parameters[0].name) is context
        if self.takes_context:
            del parameters[0]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise InvalidError(
                    f"{_name(function)} takes {parameter.name} by position alone; a job's arguments have names"
                )
        self.signature = self.signature.replace(parameters=parameters)
        self._rest: Optional[Converter] = None
        self._converters: Dict[str, Converter] = {}
        for parameter in parameters:
            try:
                convert = converter(hints.get(parameter.name, Any)) if validate else _anything
            except NameError as error:  # an annotation of a dataclass's member, say
                raise _unreadable(f"{_name(function)}'s {parameter.name}", error) from error
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest = convert
            else:
                self._converters[parameter.name] = convert
        self._required = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        )

    def bind(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
        """The job's args for a call. InvalidError when the function would not take it."""
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidError(f"args: {error}") from None
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                bound.update(bound.pop(parameter.name, {}))
        return dict(bound)

    def convert(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        """What to call the function with. ArgumentError names what is wrong."""
        missing = self._required - args.keys()
        if missing:
            raise ArgumentError(f"args lack {', '.join(repr(name) for name in sorted(missing))}")
        known, rest = self._converters, self._rest
        out = {}
        for name, value in args.items():
            convert = known.get(name, rest)
            if convert is None:
                allowed = ", ".join(known) or "nothing"
                raise ArgumentError(f"args have a member {name!r}; the function takes {allowed}")
            out[name] = convert(value, f"args.{name}")
        return out
