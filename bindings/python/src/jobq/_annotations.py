"""What the annotations of functions and classes say: members, parameters, unions, and names that stand for another type.

It makes no values and reads no JSON: :mod:`jobq.validation` makes converters of the types that it finds here, and
:mod:`jobq._sameness` compares by them.
"""

from __future__ import annotations

import collections
import collections.abc
import datetime
import sys
import types
import typing
import warnings
from typing import Any, Callable, Dict, List, Mapping, Set, Tuple, Union


class AnnotationWarning(UserWarning):
    """An annotation names what is not there when the function is declared, as a name under ``TYPE_CHECKING`` is not: that
    argument is not checked, and arrives as JSON has it."""


def name_of(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


#: Types of lists and sets, each with what makes one.
LISTS: Dict[Any, Callable[[List[Any]], Any]] = {
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

MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


# ---- members and parameters ----


def hints_of(thing: Any, what: str) -> Dict[str, Any]:
    """typing.get_type_hints, with what marks members of typed dicts, each annotation by itself: one that cannot be read
    costs its own check, and a warning."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:
        pass
    out: Dict[str, Any] = {}
    for owner in reversed(getattr(thing, "__mro__", (thing,))):
        module = sys.modules.get(getattr(owner, "__module__", None) or "")
        names = {**vars(module)} if module is not None else {}
        names.update(getattr(owner, "__globals__", {}))
        names.update(_type_parameters(owner))
        own = owner.__dict__.get("__annotations__") if isinstance(owner, type) else getattr(owner, "__annotations__", None)
        for name, hint in (own or {}).items():
            try:
                out[name] = _read_hint(hint, names)
            except Exception as error:
                out[name] = Any
                warnings.warn(
                    f"the annotation of {what}'s {name} cannot be read ({error}): it is not checked, and arrives as JSON has it",
                    AnnotationWarning,
                    stacklevel=2,
                )
    return out


def _type_parameters(owner: Any) -> Dict[str, Any]:
    """Those of ``class Box[T]``, by name; also of a typed dict's bases, whose annotations it has as its own."""
    names: Dict[str, Any] = {}
    for base in vars(owner).get("__orig_bases__", ()) if isinstance(owner, type) else ():
        names.update(_type_parameters(typing.get_origin(base) or base))
    names.update((parameter.__name__, parameter) for parameter in getattr(owner, "__type_params__", ()))
    return names


def _read_hint(hint: Any, names: Dict[str, Any]) -> Any:
    """One annotation, of which all may be text, or a part."""
    holder = types.SimpleNamespace(__annotations__={"it": hint})
    return typing.get_type_hints(holder, names, names, include_extras=True)["it"]


#: What says of a typed dict's member whether it must be there, and no more; also as typing_extensions has it.
_MARKS = ("Required", "NotRequired", "ReadOnly")


def mark_of(hint: Any) -> str:
    """Required, NotRequired, ReadOnly, or nothing."""
    origin = typing.get_origin(hint)
    name = str(getattr(origin, "_name", None) or getattr(origin, "__name__", ""))
    return name if name in _MARKS and origin is not None else ""


def _marks_of(hint: Any) -> Set[str]:
    """All of them, also beneath Annotated and each other."""
    marks: Set[str] = set()
    while True:
        mark = mark_of(hint)
        if mark:
            marks.add(mark)
            hint = typing.get_args(hint)[0]
        elif hasattr(hint, "__metadata__"):
            hint = hint.__origin__
        else:
            return marks


def _substituted(hint: Any, given: Mapping[Any, Any]) -> Any:
    """The annotation of a generic class's member, with what its parameters are."""
    if isinstance(hint, typing.TypeVar):
        return given.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    if parameters and typing.get_origin(hint) is not None:
        return hint[tuple(given.get(parameter, Any) for parameter in parameters)]
    return hint


def _parameters_of(origin: Any) -> Tuple[Any, ...]:
    """A generic class's own."""
    own = getattr(origin, "__parameters__", ())
    return own if isinstance(own, tuple) else ()


def _bases_of(origin: Any) -> Tuple[Any, ...]:
    """The bases as they are written, with parameters."""
    bases: Tuple[Any, ...] = vars(origin).get("__orig_bases__") or origin.__bases__
    return bases


#: Bases that say which parameters there are, and have no members.
_PARAMETERS_ALONE: Tuple[Any, ...] = (typing.Generic, typing.Protocol)


def members_of(kind: Any) -> Dict[str, Any]:
    """The members of a dataclass, typed dict or named tuple, and their types. Where it is generic, or has a generic base, with
    what the parameters are."""
    origin = typing.get_origin(kind) or kind
    given = dict(zip(_parameters_of(origin), typing.get_args(kind)))
    hints = hints_of(origin, name_of(origin))
    out = {name: _substituted(hint, given) for name, hint in hints.items()}
    if not getattr(origin, "__orig_bases__", ()):  # also a base's
        return out
    own = vars(origin).get("__annotations__", {})
    is_dict = hasattr(origin, "__required_keys__")  # and has its bases' annotations as its own
    for base in reversed(_bases_of(origin)):
        its_origin = typing.get_origin(base) or base
        if not isinstance(its_origin, type) or its_origin in _PARAMETERS_ALONE:
            continue
        its_own = vars(its_origin).get("__annotations__", {})
        for name, hint in members_of(_substituted(base, given)).items():
            if (own.get(name) is its_own.get(name)) if is_dict else name not in own:
                out[name] = hint
    return out


def arguments_of(kind: Any, base: Any) -> Tuple[Any, ...]:
    """The parameters that `base`, a builtin container, has in a type that is one: (date,) of a class L(List[date])."""
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is base or origin in LISTS or origin in MAPPINGS or not isinstance(origin, type):
        return args
    if origin is collections.Counter and args:
        return (args[0], int)
    bases = _bases_of(origin)
    parameters = _parameters_of(origin) or tuple(
        dict.fromkeys(each for base in bases for each in getattr(base, "__parameters__", ()) if typing.get_origin(base))
    )
    if args and not parameters:  # OrderedDict[str, int]
        return args
    given = dict(zip(parameters, args))
    for each in bases:
        its_origin = typing.get_origin(each) or each
        if isinstance(its_origin, type) and issubclass(its_origin, base):
            names = vars(sys.modules.get(origin.__module__, typing))
            found = arguments_of(_substituted(each, given), base)
            return tuple(_read_hint(it, names) if isinstance(it, typing.ForwardRef) else it for it in found)
    return ()


def required_of(kind: Any, hints: Mapping[str, Any]) -> "frozenset[str]":
    """The members that must be there. The class itself does not know where annotations are strings."""
    required: Set[str] = set(kind.__required_keys__)
    for name, hint in hints.items():
        marks = _marks_of(hint)
        if "NotRequired" in marks:
            required.discard(name)
        elif "Required" in marks:
            required.add(name)
    return frozenset(required)


# ---- types that stand for another ----


def is_alias(kind: Any) -> bool:
    """``type When = datetime``, also with parameters, and as typing_extensions has it."""
    return type(typing.get_origin(kind) or kind).__name__ == "TypeAliasType"


def alias_value(kind: Any) -> Any:
    origin = typing.get_origin(kind) or kind
    try:
        value = origin.__value__  # evaluated now
    except Exception as error:
        warnings.warn(
            f"the type {name_of(origin)} cannot be read ({error}): it is not checked, and arrives as JSON has it",
            AnnotationWarning,
            stacklevel=2,
        )
        return Any
    return _substituted(value, dict(zip(origin.__type_params__, typing.get_args(kind))))


def plain(kind: Any) -> Any:
    """Without what does not change its values: Annotated, NotRequired, NewType, an alias."""
    while not isinstance(kind, type) or typing.get_origin(kind) is not None:
        if hasattr(kind, "__metadata__"):
            kind = kind.__origin__
        elif mark_of(kind):
            kind = typing.get_args(kind)[0]
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        elif is_alias(kind):
            kind = alias_value(kind)
        else:
            break
    return kind


def alternatives(kind: Any) -> List[Any]:
    """The types of a union, also of those in it; of another type itself."""
    kind = plain(kind)
    if not is_union(typing.get_origin(kind)):
        return [kind]
    return [one for each in typing.get_args(kind) for one in alternatives(each)]


def is_union(origin: Any) -> bool:
    """Union[…], or … | …."""
    return origin is Union or (sys.version_info >= (3, 10) and origin is getattr(types, "UnionType"))


# ---- values of types ----

#: As they are without whatever holds the clock for a test.
DATETIME, DATE, TIME = datetime.datetime, datetime.date, datetime.time


def holds_the_clock(kind: Any) -> bool:
    return bool(kind.__module__.split(".")[0] == "freezegun")


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value is one of a type, by its outermost type alone. `kind`: as plain() has it."""
    origin = typing.get_origin(kind) or kind
    if kind is None:
        return value is None
    if origin is typing.Literal:
        return any(type(each) is type(value) and each == value for each in typing.get_args(kind))
    if not isinstance(origin, type):
        return True
    if hasattr(origin, "__required_keys__"):
        hints = members_of(kind)
        return isinstance(value, collections.abc.Mapping) and required_of(origin, hints) <= value.keys() <= hints.keys()
    for base in (DATETIME, DATE, TIME):
        if issubclass(origin, base) and holds_the_clock(origin):
            return isinstance(value, base)
    try:
        return isinstance(value, origin)
    except TypeError:  # a protocol
        return True
