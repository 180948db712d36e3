"""JSON, with what Python programs have: datetimes, Decimals, UUIDs, enums, dataclasses, pydantic models.

Times are ISO 8601, a ``timedelta`` is seconds, a ``Decimal`` is a string (a JSON number would lose digits in most
readers), a ``UUID`` and a path are strings, an enum is its value, sets (sorted where it can be) and named tuples are lists,
a dataclass is an object, a pydantic model what it dumps itself as. Bytes and everything else are refused.

:mod:`jobq.validation` reads all of these back by a function's annotations.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import json.encoder
import os
import uuid
from typing import Any, Callable, Mapping

from .errors import InvalidError


def _default(value: Any) -> Any:
    """What json itself does not know."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
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


def dumps(value: Any, what: str = "the value") -> str:
    """JSON text of `value`. InvalidError, which begins with `what`: it has none, or none that the database can hold."""
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError(f"{what} cannot be written as JSON: {error}") from error
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
        raise InvalidError(f"{what} cannot be written as JSON: {error}") from None


def loads(text: "str | bytes") -> Any:
    """What JSON text says; integers of any length are exact."""
    return json.loads(text)
