"""A job's arguments, checked against the annotations of the function that will run, and converted to what they ask for.

What :mod:`jobq.encoding` writes is read back: ISO times, Decimals and UUIDs as strings, enums by value, dataclasses,
typed dicts and named tuples from objects, pydantic models by pydantic. Anything without an annotation arrives as JSON has it.

A type that JSON cannot carry is refused when the function is declared. A value is written and read back when the job is made,
and refused if the function would get another (:mod:`jobq._sameness`).
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import os
import pathlib
import sys
import threading
import typing
import uuid
import warnings
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple, Type

from . import _sameness, encoding
from ._annotations import (
    DATE,
    DATETIME,
    LISTS,
    MAPPINGS,
    TIME,
    AnnotationWarning,
    alias_value,
    alternatives,
    arguments_of,
    hints_of,
    holds_the_clock,
    is_alias,
    is_union,
    mark_of,
    members_of,
    name_of,
    plain,
    required_of,
)
from .errors import InvalidError
from .model import parse_time

Converter = Callable[[Any, str], Any]


class ArgumentError(InvalidError):
    """The job's arguments are not what its function takes; the message names which."""


class NoJsonForm(InvalidError):
    """A type that JSON cannot carry."""


class NotReadBack(NoJsonForm):
    """A type that can be written, as a result, and not read."""


#: What the application's own code raises for a wrong value, which a further attempt cannot mend. After any other exception, such
#: as that of a database that is away, the job is tried again.
_WRONG_VALUE = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError)


def _fail(where: str, wanted: str, value: Any) -> "typing.NoReturn":
    raise ArgumentError(f"{where} must be {wanted}, got {value!r:.100}")


def _anything(value: Any, where: str) -> Any:
    return value


def _never(why: str) -> Converter:
    def convert(value: Any, where: str) -> Any:
        raise ArgumentError(f"{where} must be left out: {why}")

    return convert


def _none(value: Any, where: str) -> None:
    if value is not None:
        _fail(where, "null", value)


def _time(text: str) -> datetime.datetime:
    return parse_time(text)


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
    datetime.datetime: _from_text(_time, "a time as ISO 8601 has it"),
    datetime.date: _from_text(datetime.date.fromisoformat, "a date as ISO 8601 has it"),
    datetime.time: _from_text(datetime.time.fromisoformat, "a time of day as ISO 8601 has it"),
    uuid.UUID: _from_text(uuid.UUID, "a UUID"),
    pathlib.Path: _from_text(pathlib.Path, "a path"),
    pathlib.PurePath: _from_text(pathlib.PurePath, "a path"),
    os.PathLike: _from_text(pathlib.Path, "a path"),
}

#: What gives its items once.
_RUN_DRY = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)

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


_BOOLS = {"true": True, "false": False}


def _name_in_json(key: Any) -> str:
    """What json calls a dict's member."""
    name: str = next(iter(encoding.loads(encoding.dumps({key: 0}))))
    return name


def _key(kind: Any) -> Converter:
    """Members' names are strings in JSON; a dict may have had numbers, which are written as their digits."""
    kind = plain(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if is_union(origin):
        return _first_of([_key(each) for each in _ranked(alternatives(kind))], _names(args))
    if origin is typing.Literal or kind in (None, type(None)):
        try:
            by_name: Dict[str, Any] = {}
            for each in args or (None,):
                by_name.setdefault(_name_in_json(each), each)
        except InvalidError as error:
            raise NoJsonForm(f"a dict with the keys {name_of(kind)} has no JSON form: {error}") from None
        return _literal_key(by_name)
    if kind in (int, float):
        return _from_text(kind, f"named by {'whole ' if kind is int else ''}numbers")
    if kind is bool:
        return _literal_key(_BOOLS)
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and issubclass(kind, (int, float, str)):
        return _literal_key({_name_in_json(member): member for member in kind})
    return converter(kind)


def _literal_key(members: Mapping[str, Any]) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if value not in members:
            _fail(where, "named by one of " + ", ".join(map(repr, members)), value)
        return members[value]

    return convert


#: Types whose values are strings in JSON, of which many a string is one.
_TEXTUAL = (str, os.PathLike)


def _rank(kind: Any) -> int:
    """One that takes any string, or any number, comes last; a datetime, which takes a date's string, after the dates."""
    if kind in (Any, object):
        return 4
    if isinstance(kind, type) and not issubclass(kind, enum.Enum):
        if issubclass(kind, _TEXTUAL):
            return 3
        if issubclass(kind, DATETIME):
            return 1
    return 2 if kind in (float, decimal.Decimal, datetime.timedelta) else 0


def _ranked(kinds: Iterable[Any]) -> List[Any]:
    return sorted(kinds, key=lambda kind: _rank(plain(kind)))


def _names(kinds: Iterable[Any]) -> str:
    return " or ".join(name_of(each) for each in kinds)


def _first_of(of: List[Converter], wanted: str) -> Converter:
    """A union's: the first that takes the value."""
    def convert(value: Any, where: str) -> Any:
        for each in of:
            try:
                return each(value, where)
            except ArgumentError:
                continue
        _fail(where, wanted, value)

    return convert


def _literal(values: Tuple[Any, ...]) -> Converter:
    try:
        by_json = [(encoding.loads(encoding.dumps(each)), each) for each in values]
    except InvalidError as error:
        raise NoJsonForm(f"one of Literal's values has no JSON form: {error}") from None

    def convert(value: Any, where: str) -> Any:
        for in_json, each in by_json:
            if type(in_json) is type(value) and in_json == value:
                return each
        _fail(where, "one of " + ", ".join(repr(each) for each in values), value)

    return convert


def _flags(kind: Type[enum.Flag]) -> Converter:
    """Members and what they are together, by number."""
    def convert(value: Any, where: str) -> enum.Flag:
        if type(value) is int:
            try:
                made = kind(value)
                if made.value == value:  # Python 3.11.2 makes 0 of what is none
                    return made
            except ValueError:
                pass
        _fail(where, "a sum of " + ", ".join(repr(member.value) for member in kind), value)

    return convert


def _enum(kind: Type[enum.Enum]) -> Converter:
    """By value, as JSON has that: a tuple is an array there, a date a string."""
    if issubclass(kind, enum.Flag):
        return _flags(kind)
    by_json: Dict[str, enum.Enum] = {}
    for member in kind:
        try:
            by_json.setdefault(encoding.dumps(member), member)
        except InvalidError as error:
            raise NoJsonForm(f"{name_of(kind)}.{member.name} has no JSON form: {error}") from None

    def convert(value: Any, where: str) -> enum.Enum:
        found = by_json.get(encoding.dumps(value))
        if found is not None:
            return found
        for member in kind:
            if member.value == value and isinstance(value, bool) == isinstance(member.value, bool):
                return member
        _fail(where, "one of " + ", ".join(repr(member.value) for member in kind), value)

    return convert


def _object(
    make: Callable[..., Any],
    members: Dict[str, Converter],
    required: "frozenset[str]",
    what: str,
    ignored: "frozenset[str]" = frozenset(),
) -> Converter:
    def convert(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            _fail(where, f"an object ({what})", value)
        if ignored:
            value = {name: item for name, item in value.items() if name not in ignored}
        unknown = [name for name in value if name not in members]
        missing = sorted(required - value.keys())
        if unknown or missing:
            wrong = f"lacks {missing[0]!r}" if missing else f"has a member {unknown[0]!r}"
            raise ArgumentError(f"{where} {wrong}; {what} has {', '.join(sorted(members))}")
        try:
            return make(**{name: members[name](item, f"{where}.{name}") for name, item in value.items()})
        except ArgumentError:
            raise
        except _WRONG_VALUE as error:  # of its __init__ or __post_init__
            raise ArgumentError(f"{where} is no {what}: {error or type(error).__name__}") from error

    return convert


# ---- classes with members ----


def _dataclass(kind: Any) -> Converter:
    origin = typing.get_origin(kind) or kind
    hints = members_of(kind)
    fields = [field for field in dataclasses.fields(origin) if field.init]
    derived = frozenset(field.name for field in dataclasses.fields(origin) if not field.init)
    required = frozenset(
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    members = {field.name: converter(hints[field.name]) for field in fields}
    return _object(origin, members, required, name_of(origin), derived)


def _typed_dict(kind: Any) -> Converter:
    origin = typing.get_origin(kind) or kind
    hints = members_of(kind)
    members = {name: converter(hint) for name, hint in hints.items()}
    return _object(dict, members, required_of(origin, hints), name_of(origin))


def _named_tuple(kind: Any) -> Converter:
    """json writes it as an array."""
    origin = typing.get_origin(kind) or kind
    hints = members_of(kind)
    as_tuple = _tuple([converter(hints.get(name, Any)) for name in origin._fields])

    def convert(value: Any, where: str) -> Any:
        items = as_tuple(value, where)
        try:
            return origin(*items)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{where} is no {name_of(origin)}: {error}") from error

    return convert


class _UnderWay(threading.local):
    """Types whose converters are being made, each with the place where its own will be."""

    def __init__(self) -> None:
        self.places: Dict[Any, List[Converter]] = {}


_under_way = _UnderWay()


def _perhaps_recursive(kind: Any, make: Callable[[Any], Converter]) -> Converter:
    """`make`'s converter of a type that may have members of its own type."""
    places = _under_way.places
    try:
        hash(kind)
    except TypeError:
        return make(kind)
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
            raise ArgumentError(f"{where} is no {name_of(kind)}: {error}") from error

    return convert


def _generic(kind: Any, origin: Any, args: Tuple[Any, ...]) -> Converter:
    """A type with parameters."""
    if is_union(origin):
        return _first_of([converter(each) for each in _ranked(args)], _names(args))
    if mark_of(kind):
        return converter(args[0])
    if origin is typing.Literal:
        return _literal(args)
    if isinstance(origin, type):
        decode = encoding.decoder_of(origin)
        if decode is not None:
            return _decoded(origin, decode)
    if not args and (origin in LISTS or origin in MAPPINGS or kind is typing.Tuple):  # typing.List by itself
        return converter(origin)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return _list(tuple, converter(args[0]))
        return _tuple([converter(each) for each in args])
    if origin in LISTS:
        return _list(LISTS[origin], converter(args[0]))
    if origin in MAPPINGS:
        return _mapping(_key(args[0]), converter(args[1]))
    if hasattr(kind, "__metadata__"):  # Annotated
        return converter(kind.__origin__)
    if origin in (type, collections.abc.Callable, *_RUN_DRY) or not isinstance(origin, type):
        raise NoJsonForm(f"{name_of(kind)} has no JSON form")
    pydantic = _pydantic(kind)
    if pydantic is not None:
        return pydantic
    compound = _compound(kind, origin) or _of_a_base(kind, origin)
    return compound if compound is not None else converter(origin)


def _compound(kind: Any, origin: Any) -> Optional[Converter]:
    """A class with members; `kind` may have parameters, and `origin` has none."""
    if dataclasses.is_dataclass(origin):
        return _perhaps_recursive(kind, _dataclass)
    if issubclass(origin, dict) and hasattr(origin, "__required_keys__"):  # a TypedDict
        return _perhaps_recursive(kind, _typed_dict)
    if issubclass(origin, tuple) and hasattr(origin, "_fields"):
        return _perhaps_recursive(kind, _named_tuple)
    return None


def _path(kind: Type[pathlib.PurePath]) -> Converter:
    return _from_text(kind, "a path")


def _of_a_base(kind: Any, origin: Any) -> Optional[Converter]:
    """A class that comes of one that is known; `kind` may have parameters, and `origin` has none."""
    if issubclass(origin, pathlib.PurePath):
        return _path(origin)
    if issubclass(origin, (DATETIME, DATE, TIME)):
        return _clock(origin)
    for base in (decimal.Decimal, uuid.UUID):
        if issubclass(origin, base):
            return _from_text(origin, f"a {name_of(origin)} as text")
    for base, wanted in ((str, "a string"), (int, "a whole number"), (float, "a number")):
        if issubclass(origin, base):
            return _made(origin, _SIMPLE[base])
    if issubclass(origin, collections.defaultdict) and origin.__init__ is collections.defaultdict.__init__:
        raise NotReadBack(f"{name_of(kind)} would arrive without its default_factory, which JSON does not carry (use a dict)")
    if issubclass(origin, (list, set, frozenset, dict)):
        return _perhaps_recursive(kind, _container)
    return None


def _container(kind: Any) -> Converter:
    """A subclass of list, set, frozenset or dict."""
    origin = typing.get_origin(kind) or kind
    base = next(base for base in (list, set, frozenset, dict) if issubclass(origin, base))
    args = arguments_of(kind, base)
    if base is dict:
        return _made(origin, _mapping(_key(args[0]), converter(args[1])) if len(args) == 2 else _mapping(_anything, _anything))
    return _made(origin, _list(LISTS[base], converter(args[0]) if args else _anything))


def _made(kind: Any, inner: Converter) -> Converter:
    """An instance of a subclass of what JSON has."""
    def convert(value: Any, where: str) -> Any:
        plain = inner(value, where)
        try:
            return kind(plain)
        except _WRONG_VALUE as error:
            raise ArgumentError(f"{where} is no {name_of(kind)}: {error or type(error).__name__}") from error

    return convert


def _clock(kind: Any) -> Converter:
    """A datetime of the application's own, or of a library that holds the clock still: that one's are put back, for the
    function outlives the test in which it was declared."""
    base = next(base for base in (DATETIME, DATE, TIME) if issubclass(kind, base))
    if holds_the_clock(kind):
        return _SIMPLE[base]
    plain = _SIMPLE[base]

    def convert(value: Any, where: str) -> Any:
        return kind.fromisoformat(plain(value, where).isoformat())

    return convert


def _is_open(kind: Any) -> bool:
    """A class of which anything may be an instance."""
    return bool(getattr(kind, "_is_protocol", False)) or inspect.isabstract(kind)


def converter(kind: Any) -> Converter:
    """What makes a value of JSON a `kind`; called as convert(value, where), it raises ArgumentError, which begins with
    `where`."""
    decode = encoding.decoder_of(kind) if isinstance(kind, type) else None
    if decode is not None:
        return _decoded(kind, decode)
    try:
        if kind in _SIMPLE:
            return _SIMPLE[kind]
    except TypeError:  # not hashable, as what Annotated says may be
        if typing.get_origin(kind) is None:
            return _anything
    if is_alias(kind):
        return _perhaps_recursive(kind, lambda alias: converter(alias_value(alias)))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is not None:
        return _generic(kind, origin, args)
    if kind in LISTS or kind is tuple:
        return _list(LISTS.get(kind, tuple), _anything)
    if kind in MAPPINGS:
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
    compound = _compound(kind, kind)
    if compound is None:
        compound = _of_a_base(kind, kind)
    if compound is not None:
        return compound
    if _is_open(kind) and kind not in _RUN_DRY:
        return _anything
    more = "it was registered without decode=" if encoding.encoder_of(kind) else "jobq.register_type gives it one"
    raise NoJsonForm(f"{name_of(kind)} has no JSON form ({more})")


def _decoded(kind: Any, decode: Callable[[Any], Any]) -> Converter:
    def convert(value: Any, where: str) -> Any:
        try:
            return decode(value)
        except _WRONG_VALUE as error:
            raise ArgumentError(f"{where} is no {name_of(kind)}: {error or type(error).__name__}") from error

    return convert


def check_result(kind: Any, what: str) -> None:
    """Raises InvalidError where no value of the type a function returns has a JSON form, as far as a type tells."""
    origin = typing.get_origin(kind)
    if origin is not None and not hasattr(kind, "__metadata__"):
        if is_union(origin) or origin in LISTS or origin in MAPPINGS or origin is tuple:
            for each in typing.get_args(kind):
                if each is not Ellipsis:
                    check_result(each, what)
            return
    if kind in (typing.NoReturn, getattr(typing, "Never", typing.NoReturn)):
        return
    plain = origin if isinstance(origin, type) else kind
    if isinstance(plain, type) and encoding.encoder_of(plain):
        return
    try:
        converter(kind)
    except NotReadBack:
        return
    except NoJsonForm as error:
        raise InvalidError(
            f"{what} returns what cannot be a job's result: {error}; return what JSON has, or declare it with validate=False"
        ) from None


def _context_in(hint: Any, context: Type[Any]) -> bool:
    """Context, or Optional[Context]."""
    return hint is context or (is_union(typing.get_origin(hint)) and context in typing.get_args(hint))


def _callable_of(function: Any) -> Any:
    """What has the annotations: of functools.partial the function in it, of an object its __call__."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__annotations__") and hasattr(type(function), "__call__"):
        return getattr(type(function).__call__, "__wrapped__", type(function).__call__)
    return function


def _hints(function: Any, context: Type[Any], validate: bool) -> Dict[str, Any]:
    """The function's annotations. The context is found where its name is not there at run time, too."""
    inner = _callable_of(function)
    written = getattr(inner, "__annotations__", {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnnotationWarning)
        hints = hints_of(inner, name_of(function))
    contexts = [name for name, hint in written.items() if hint in ("Context", "jobq.Context") and hints.get(name) is Any]
    hints.update((name, context) for name in contexts)
    if validate:
        quiet = [f"'s {name} cannot be read" for name in (*contexts, "return")]
        for warning in caught:
            if not any(words in str(warning.message) for words in quiet):
                warnings.warn_explicit(warning.message, warning.category, inner.__code__.co_filename
                                       if hasattr(inner, "__code__") else "jobq", getattr(
                                           getattr(inner, "__code__", None), "co_firstlineno", 1))
    return hints


def _by_position(function: Any, takes_context: bool) -> Set[str]:
    """The parameters that are given by position when a worker calls the function, and could be given by name as well."""
    count = int(takes_context)
    while isinstance(function, functools.partial):
        count += len(function.args)
        function = function.func
    if inspect.ismethod(function):
        count += 1
    elif not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", None)
        count += 1
    code = getattr(function, "__code__", None)
    return set(code.co_varnames[: code.co_argcount][code.co_posonlyargcount : count]) if code is not None else set()


class Parameters:
    """What a function takes, of which the first may be its context."""

    def __init__(self, function: Callable[..., Any], context: Type[Any], validate: bool) -> None:
        name = name_of(function)
        try:
            self.signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise InvalidError(f"the parameters of {name} cannot be read ({error}): wrap it in a function") from None
        self._validates = validate
        self.hints = hints = _hints(function, context, validate)
        parameters = list(self.signature.parameters.values())
        self.takes_context = bool(parameters) and _context_in(hints.get(parameters[0].name), context)
        if self.takes_context:
            if parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
                raise InvalidError(f"{name} takes its context by name only; the context must be a positional parameter, the first")
            del parameters[0]
        for parameter in parameters:
            if _context_in(hints.get(parameter.name), context):
                raise InvalidError(f"{name}'s context is {parameter.name}, but only the first parameter can be the context")
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise InvalidError(f"{name} takes {parameter.name} by position alone; a job's arguments have names")
        #: Names that a **data cannot have, for the function is given them by position.
        self._taken = _by_position(function, self.takes_context)
        if self.takes_context:
            first = next(iter(self.signature.parameters.values()))
            self._taken |= {first.name} if first.kind is first.POSITIONAL_OR_KEYWORD else set()
        self.signature = self.signature.replace(parameters=parameters)
        self._rest: Optional[Converter] = None
        self._converters: Dict[str, Converter] = {}
        for parameter in parameters:
            convert = self._converter_of(parameter, name) if validate else _anything
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest = convert
            else:
                self._converters[parameter.name] = convert
        #: Of a job's args; None: any.
        self.names = None if self._rest is not None else tuple(self._converters)
        if validate and "return" in hints:
            check_result(hints["return"], name)
        self._required = frozenset(
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        )

    def _converter_of(self, parameter: inspect.Parameter, name: str) -> Converter:
        try:
            return converter(self.hints.get(parameter.name, Any))
        except NoJsonForm as error:
            if parameter.default is not parameter.empty:
                return _never(str(error))
            raise InvalidError(
                f"{name}'s {parameter.name} cannot be a job's argument: {error}; hand over what identifies it, such as an id, "
                f"or declare it with validate=False"
            ) from None

    def bind(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
        """The job's args for a call, as JSON has them. InvalidError when the function would not take it, or would get
        something else."""
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidError(f"args: {error}") from None
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                bound.update(bound.pop(parameter.name, {}))
        for name in self._taken & bound.keys():
            raise InvalidError(f"args have a member {name!r}, and the function's {name} is given already")
        given = dict(bound)
        plain: Dict[str, Any] = encoding.loads(encoding.to_bytes(encoding.dumps(given, "args"), "args"))
        if self._validates:
            self._read_back(given, plain)
        return plain

    def _read_back(self, given: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
        """What the worker will do, done once here."""
        rest = next((p.name for p in self.signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
        try:
            converted = self.convert(plain)
        except ArgumentError as error:  # which would be about a job that runs, and its function may be making this one
            raise InvalidError(str(error)) from error
        for name, got in converted.items():
            hint = self.hints.get(name if name in self._converters else rest or name, Any)
            change = _sameness.change(hint, given[name], got, f"args.{name}")
            if change is not None:
                raise InvalidError(change)

    def convert(self, args: Mapping[str, Any]) -> Dict[str, Any]:
        """What to call the function with. ArgumentError names what is wrong."""
        missing = self._required - args.keys()
        if missing:
            raise ArgumentError(f"args lack {', '.join(repr(name) for name in sorted(missing))}")
        known, rest = self._converters, self._rest
        out = {}
        for name in self._taken & args.keys() if rest is not None else ():
            raise ArgumentError(f"args have a member {name!r}, and the function's {name} is given already")
        for name, value in args.items():
            convert = known.get(name, rest)
            if convert is None:
                allowed = ", ".join(known) or "nothing"
                raise ArgumentError(f"args have a member {name!r}; the function takes {allowed}")
            out[name] = convert(value, f"args.{name}")
        return out
