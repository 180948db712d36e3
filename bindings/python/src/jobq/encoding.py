"""JSON, with what Python programs have: datetimes, Decimals, UUIDs, enums, dataclasses, pydantic models.

Times are ISO 8601, a ``timedelta`` is seconds, a ``Decimal`` is a string (a JSON number would lose digits in most
readers), a ``UUID`` and a path are strings, an enum is its value, sets (sorted where it can be) and named tuples are lists,
a dataclass is an object, a pydantic model what it dumps itself as. Bytes and everything else are refused, unless
:func:`register_type` says what they are.

:mod:`jobq.validation` reads all of these back by a function's annotations.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import json.encoder
import math
import os
import re
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type

from .errors import InvalidError

#: What JSON has by itself, and holds nothing.
_PLAIN = frozenset((type(None), bool, int, float, str))

# ---- types of the application's own ----

_encoders: Dict[type, Callable[[Any], Any]] = {}
_decoders: Dict[type, Callable[[Any], Any]] = {}


def register_type(
    kind: Type[Any], *, encode: Callable[[Any], Any], decode: Optional[Callable[[Any], Any]] = None
) -> None:
    """Teaches jobq a type, for arguments, results and meta: ``encode`` makes of an instance what JSON has, or another type
    that jobq knows; ``decode`` makes an instance of that again, where a function's annotation names the type. Without
    ``decode`` such an argument is refused. Subclasses are encoded as well, unless they are registered themselves; decoded is
    what the annotation names. Register a type before the functions that name it are declared.

        jobq.register_type(numpy.generic, encode=lambda value: value.item())
        jobq.register_type(Money, encode=str, decode=Money.parse)

    Not asked for what JSON has itself: subclasses of str, int, float, list, tuple and dict are written as these. These types
    themselves are refused. A type of which jobq knows a form, such as Decimal, has then the one that is registered.
    """
    if not isinstance(kind, type):
        raise InvalidError(f"kind must be a class, got {kind!r:.100}")
    if kind in _PLAIN or kind in (list, tuple, dict):
        raise InvalidError(f"kind must be a class that JSON does not have itself, got {kind!r}")
    for name, function in (("encode", encode), ("decode", decode)):
        if not callable(function) and (name == "encode" or function is not None):
            raise InvalidError(f"{name} must be a function, got {function!r:.100}")
    _encoders[kind] = encode
    if decode is not None:
        _decoders[kind] = decode
    else:
        _decoders.pop(kind, None)


def encoder_of(kind: type) -> Optional[Callable[[Any], Any]]:
    """What was registered for the class or its nearest base; None: nothing. An enum has only what was registered for enums:
    the encoder of a base such as Decimal is for the member's value."""
    is_enum = issubclass(kind, enum.Enum)
    for base in kind.__mro__:
        if base in _encoders and (not is_enum or issubclass(base, enum.Enum)):
            return _encoders[base]
    return None


def decoder_of(kind: type) -> Optional[Callable[[Any], Any]]:
    """What was registered for the class itself."""
    return _decoders.get(kind)


# ---- the encoder ----


def _default(value: Any) -> Any:
    """What json itself does not know."""
    if _encoders:
        encode = encoder_of(type(value))
        if encode is not None:
            return encode(value)
    if isinstance(value, enum.Enum):  # before the types that an enum may have as its base
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    model_dump = getattr(value, "model_dump", None)  # pydantic 2
    if callable(model_dump) and not isinstance(value, type):
        return model_dump(mode="json")
    if hasattr(value, "__fields__") and callable(getattr(value, "json", None)) and not isinstance(value, type):
        return json.loads(value.json())  # pydantic 1
    raise TypeError(f"{type(value).__name__} {value!r:.100} has no JSON form")


def _make_encode() -> Callable[[Any], str]:
    """What goes round in a circle ends as a RecursionError."""
    encoder = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_default
    )
    try:  # what encoder.encode() makes anew for each value, which takes as long as a small object does
        parts = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
            None, _default, json.encoder.encode_basestring, None, ":", ",", False, False, False  # type: ignore[attr-defined]
        )
    except (AttributeError, TypeError):
        return encoder.encode

    def encode(value: Any) -> str:
        return "".join(parts(value, 0))

    return encode


_encode = _make_encode()

#: NUL as json writes it, and not a backslash before "u0000".
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def _may_clash(value: Any) -> bool:
    """Whether two members of an object in it may have one name in JSON, as 1 and "1" have; quick where it is plain."""
    kind = type(value)
    if kind in _PLAIN:
        return False
    if kind is dict:
        for name, item in value.items():
            if type(name) is not str or (type(item) not in _PLAIN and _may_clash(item)):
                return True
        return False
    if kind is list or kind is tuple:
        for item in value:
            if type(item) not in _PLAIN and _may_clash(item):
                return True
        return False
    return True


def _unlike(members: List[Tuple[str, Any]]) -> None:
    """Raises ValueError where a name is there twice."""
    names = set()
    for name, _ in members:
        if name in names:
            raise ValueError(f"two members of an object have the name {name!r}")
        names.add(name)


# ---- where it went wrong ----


def _inside(path: str, name: Any) -> str:
    path = path[4:] if path.startswith("the ") else path
    return f"{path}.{name}" if isinstance(name, str) and name.isidentifier() else f"{path}[{name!r:.100}]"


def _fault_of_members(members: Dict[Any, Any], path: str) -> Optional[str]:
    names = set()
    for name in members:
        if not isinstance(name, (str, int, float, type(None))):
            return f"{path} cannot be written as JSON: keys must be str, int, float, bool or None, not {type(name).__name__}"
        if isinstance(name, float) and not math.isfinite(name):
            return f"{path} cannot be written as JSON: {name} is no name of a member"
        written = name if isinstance(name, str) else next(iter(json.loads(_encode({name: 0}))))
        if written in names:
            return f"{path} cannot be written as JSON: two members of an object have the name {written!r}"
        names.add(written)
        fault = _fault_of_text(written, f"{path} cannot be written as JSON: the name {written!r:.100}")
        if fault is not None:
            return fault
    return None


def _fault_of_text(text: str, what: str) -> Optional[str]:
    if "\0" in text:
        return f"{what} holds a NUL character, which PostgreSQL cannot store"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{what} is no text: {error}"
    return None


def _fault(value: Any, path: str) -> Optional[str]:
    """What is wrong with the first value in it that JSON or the database cannot have, and where that is; None: nothing. Slow:
    for what is known to be wrong."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {float(value)}: JSON has no {'NaN' if math.isnan(value) else 'infinity'}"
    if isinstance(value, str):
        return _fault_of_text(str(value), f"{path} cannot be written as JSON: it")
    if value is None or isinstance(value, (bool, int, float)):
        try:
            _encode(value)
        except ValueError as error:  # of more digits than Python writes
            return f"{path} cannot be written as JSON: {error}"
        return None
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_fault(item, _inside(path, i)) for i, item in enumerate(value))), None)
    if isinstance(value, dict):
        fault = _fault_of_members(value, path)
        return fault or next(filter(None, (_fault(item, _inside(path, name)) for name, item in value.items())), None)
    try:
        form = _default(value)
    except (Exception, SystemExit) as error:
        return f"{path} cannot be written as JSON: {error or type(error).__name__}"
    return _fault(form, path)


def _told(value: Any, what: str, why: str) -> str:
    """The error's message: with the place, where it can be found."""
    try:
        fault = _fault(value, what)
    except (Exception, SystemExit):  # it holds itself, or was another when it was looked at again
        fault = None
    return fault or f"{what} cannot be written as JSON: {why}"


def dumps(value: Any, what: str = "the value") -> str:
    """JSON text of `value`. InvalidError, which begins with `what`: it has none, or none that the database can hold."""
    try:
        text = _encode(value)
        if _may_clash(value):
            json.loads(text, object_pairs_hook=_unlike)
    except RecursionError as error:
        raise InvalidError(f"{what} cannot be written as JSON: it nests too deep, or holds itself") from error
    except (Exception, SystemExit) as error:  # also whatever a property, a __str__ or an encoder of the application's raises
        raise InvalidError(_told(value, what, str(error) or type(error).__name__)) from error
    if "\\u0000" in text and _NUL.search(text):
        raise InvalidError(_told(value, what, "it holds a NUL character, which PostgreSQL cannot store"))
    return text


def dump_object(value: Any, what: str) -> str:
    """The same for what must be a JSON object: a mapping, a dataclass, a pydantic model."""
    text = dumps(value, what)
    if not text.startswith("{"):
        raise InvalidError(
            f"{what} must be a JSON object (a mapping, a dataclass or a pydantic model), got {type(value).__name__} "
            f"{value!r:.100}"
        )
    return text


def to_bytes(text: str, what: str) -> bytes:
    """As C has it. InvalidError: half a surrogate pair, which is no character."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(_told(loads(text), what, str(error))) from None


def loads(text: "str | bytes") -> Any:
    """What JSON text says; integers of any length are exact."""
    return json.loads(text)
