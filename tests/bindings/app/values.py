"""A table of values: what each becomes as a job's argument, by an annotation, and as its result.

Each has a kind that takes it, ``take-N``, and one that returns it, ``give-N``; ``run`` counts how often a function ran."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import os
import pathlib
import random
import types
import uuid
import zoneinfo
from typing import (Annotated, Any, Callable, Dict, FrozenSet, Generic, Iterator, List, Literal, Mapping, NamedTuple, NewType, Optional,
                    Sequence, Set, Tuple, TypedDict, TypeVar, Union)

import jobq

UTC = datetime.timezone.utc
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Word(str, enum.Enum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Corner(enum.Enum):
    ORIGIN = (0, 0)
    FAR = (9, 9)


class Day(enum.Enum):
    FIRST = datetime.date(2031, 1, 1)


class Price(enum.Enum):
    LOW = decimal.Decimal("1.10")


class Rate(decimal.Decimal, enum.Enum):
    """An enum of a type that jobq writes itself."""

    STANDARD = "0.25"


class FreeDay(datetime.date, enum.Enum):
    MAY = (2031, 5, 1)


class Opaque(enum.Enum):
    IT = object()


class Size(NamedTuple):
    width: int
    height: int


class Options(TypedDict, total=False):
    quality: int


@dataclasses.dataclass
class Point:
    x: int
    y: decimal.Decimal = decimal.Decimal(0)


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass
class Square:
    side: int
    area: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.side ** 2


@dataclasses.dataclass
class Counter:
    seen: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class DayBox(Box[datetime.date]):
    pass


@dataclasses.dataclass
class DayAnd(DayBox, Generic[T]):
    more: T


class Days(List[datetime.date]):
    pass


class Items(List[T]):
    pass


class ByName(Dict[str, T]):
    pass


@dataclasses.dataclass
class Remade:
    items: List[Any] = dataclasses.field(init=False, default_factory=lambda: [0])
    names: Dict[str, Any] = dataclasses.field(init=False, default_factory=lambda: {"a": 0})

    @classmethod
    def of(cls, **members: Any) -> "Remade":
        made = cls()
        vars(made).update(members)
        return made


@dataclasses.dataclass
class Named:
    name: str


class Titled(TypedDict):
    name: str


class Reading(NamedTuple):
    value: decimal.Decimal
    at: Optional[datetime.date] = None


@dataclasses.dataclass
class Scaled:
    x: int
    by: dataclasses.InitVar[int] = 1

    def __post_init__(self, by: int) -> None:
        self.x *= by


@dataclasses.dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("n must be positive")


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    tags: Tuple[str, ...] = ()


@dataclasses.dataclass(eq=False)
class ByIdentity:
    n: int


class Plain:
    pass


class Name(str):
    pass


class Money:
    def __init__(self, text: str) -> None:
        self.amount = decimal.Decimal(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.amount == other.amount

    def __repr__(self) -> str:
        return f"Money({self.amount})"


class Half:
    """Encoded alone."""


class Handle:
    """Registered, and without an __eq__."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __repr__(self) -> str:
        return f"Handle({self.n})"


jobq.register_type(Money, encode=lambda value: str(value.amount), decode=Money)
jobq.register_type(Half, encode=lambda value: 0.5)
jobq.register_type(Handle, encode=lambda value: value.n, decode=Handle)


class Stamp(datetime.datetime):
    pass


class Holiday(datetime.date):
    pass


class File:
    def __fspath__(self) -> str:
        return "/srv/file"


UserId = NewType("UserId", int)
Words = NewType("Words", List[str])


def itself() -> List[Any]:
    loop: List[Any] = []
    loop.append(loop)
    return loop


def deep(n: int) -> Any:
    value: Any = 0
    for _ in range(n):
        value = [value]
    return value


class Liar(dict):  # type: ignore[type-arg]
    """Says that it has items, and raises when it is asked."""

    def items(self) -> Any:
        raise RuntimeError("no items today")

    def keys(self) -> Any:
        raise RuntimeError("no keys today")


class Raises:
    @property
    def model_dump(self) -> Any:
        raise ZeroDivisionError("of a property")


AT = datetime.datetime(2031, 2, 3, 4, 5, 6, 789, UTC)
STOCKHOLM = zoneinfo.ZoneInfo("Europe/Stockholm")
ID = uuid.UUID(int=7)
D = decimal.Decimal
PATH = pathlib.Path("/a")
DAY = datetime.date(2031, 1, 1)
NAMES_CLASH = "two members of an object have the name '1'"

SAME, JOB, DECLARED = "the same", "when the job is made", "when the function is declared"

#: The annotation, the value, what it is as an argument, what is wrong with it as a result ("": nothing).
TABLE: List[Tuple[Any, Any, str, str]] = [
    # ---- what JSON has
    (None, None, SAME, ""), (bool, True, SAME, ""), (bool, False, SAME, ""), (int, 0, SAME, ""), (int, -1, SAME, ""), (int, 2**53 + 1, SAME, ""),
    (int, 10**30, SAME, ""), (int, 10**3999, SAME, ""), (float, 0.1, SAME, ""), (float, 1e308, SAME, ""), (float, 5e-324, SAME, ""),
    (float, 3, SAME, ""), (float, 2**53 + 1, JOB, ""), (float, 10**400, JOB, ""), (int, True, JOB, ""), (bool, 1, JOB, ""), (int, 1.0, JOB, ""),
    (str, "", SAME, ""), (str, "ü\u2028\x7f", SAME, ""), (str, "\U0001f600", SAME, ""), (str, "a\x01\n", SAME, ""), (str, "\\u0000", SAME, ""),
    (str, "x" * 100_000, SAME, ""), (str, 5, JOB, ""), (int, "5", JOB, ""), (Any, {"a": [1, None, {"b": 0.5}]}, SAME, ""),
    (list, [1, "a", None], SAME, ""), (dict, {"a": 1}, SAME, ""), (List[int], [], SAME, ""), (List[List[int]], [[1], []], SAME, ""),
    (Dict[str, List[int]], {"a": [1]}, SAME, ""), (Optional[int], None, SAME, ""), (Optional[int], 3, SAME, ""), (object, [1], SAME, ""),
    # ---- text and numbers that the database cannot hold
    (str, "a\0b", JOB, "NUL character"), (Any, {"a": ["\0"]}, JOB, "NUL character"), (Any, {"a\0": 1}, JOB, "NUL character"),
    (str, "\ud800", JOB, "surrogates not allowed"), (List[str], ["ok", "\udfff"], JOB, "surrogates not allowed"),
    (float, float("nan"), JOB, "is nan: JSON has no NaN"), (float, float("inf"), JOB, "is inf: JSON has no infinity"),
    (List[float], [1.0, -float("inf")], JOB, r"\[1\] is -inf: JSON has no infinity"), (Any, {"a": float("nan")}, JOB, r"\.a is nan: JSON has no NaN"), (int, 10**4400, JOB, "cannot be written as JSON"),
    # ---- numbers of other kinds
    (D, D("12.30"), SAME, ""), (D, D("1E+3"), SAME, ""), (D, D("NaN"), SAME, ""), (D, D("-0"), SAME, ""), (D, 5, SAME, ""), (D, "5.0", SAME, ""),
    (D, "five", JOB, ""), (complex, 1j, DECLARED, "complex 1j has no JSON form"), (fractions.Fraction, fractions.Fraction(1, 3), DECLARED, "Fraction"),
    (Number, Number.TWO, SAME, ""), (int, Number.TWO, SAME, ""), (Bits, Bits.A | Bits.B, SAME, ""), (Bits, Bits(0), SAME, ""),
    # ---- times
    (datetime.datetime, AT, SAME, ""), (datetime.datetime, datetime.datetime(2031, 1, 1), SAME, ""), (datetime.datetime, datetime.datetime.max, SAME, ""),
    (datetime.datetime, datetime.datetime.min, SAME, ""), (datetime.datetime, datetime.datetime(2031, 7, 1, tzinfo=STOCKHOLM), SAME, ""),
    (datetime.datetime, datetime.datetime(2031, 10, 26, 2, 30, fold=1, tzinfo=STOCKHOLM), SAME, ""),
    (datetime.datetime, datetime.datetime(2031, 10, 26, 2, 30, fold=1), JOB, ""), (datetime.datetime, "2031-01-01T00:00:00Z", SAME, ""),
    (datetime.datetime, datetime.date(2031, 1, 1), JOB, ""), (datetime.datetime, "soon", JOB, ""), (Stamp, Stamp(2031, 1, 1), SAME, ""),
    (datetime.date, datetime.date(2031, 1, 1), SAME, ""), (datetime.date, AT, JOB, ""), (datetime.time, datetime.time(4, 5, 6, 7), SAME, ""),
    (datetime.time, datetime.time(4, tzinfo=UTC), SAME, ""), (datetime.timedelta, datetime.timedelta(days=1, microseconds=1), SAME, ""),
    (datetime.timedelta, datetime.timedelta(days=-1), SAME, ""), (datetime.timedelta, datetime.timedelta(days=10**8, microseconds=1), JOB, ""),
    (datetime.timedelta, 90, SAME, ""), (datetime.timedelta, datetime.timedelta.max, JOB, ""), (zoneinfo.ZoneInfo, STOCKHOLM, DECLARED, "ZoneInfo"),
    # ---- enums
    (Colour, Colour.RED, SAME, ""), (Colour, "blue", SAME, ""), (Colour, "green", JOB, ""), (Word, Word.YES, SAME, ""), (str, Word.YES, SAME, ""),
    (Access, Access.READ, SAME, ""), (Access, Access.READ | Access.RUN, SAME, ""), (Access, 8, JOB, ""), (Corner, Corner.FAR, SAME, ""),
    (Day, Day.FIRST, SAME, ""), (Price, Price.LOW, SAME, ""), (Opaque, Opaque.IT, DECLARED, "object"), (List[Colour], [Colour.RED, Colour.BLUE], SAME, ""),
    (Literal["a", 1, True], True, SAME, ""), (Literal["a", 1], "b", JOB, ""), (Literal[Colour.RED], Colour.RED, SAME, ""), (str, Colour.RED, JOB, ""),
    # ---- identifiers and paths
    (uuid.UUID, ID, SAME, ""), (uuid.UUID, str(ID), SAME, ""), (uuid.UUID, "7", JOB, ""), (pathlib.Path, pathlib.Path("/srv/a"), SAME, ""),
    (pathlib.Path, "/srv/a", SAME, ""), (pathlib.PurePath, pathlib.PurePosixPath("a/b"), SAME, ""), (pathlib.PurePosixPath, pathlib.PurePosixPath("a"), SAME, ""),
    (pathlib.PureWindowsPath, pathlib.PureWindowsPath("c:\\a"), SAME, ""), (pathlib.Path, pathlib.PureWindowsPath("c:\\a"), JOB, ""),
    (pathlib.Path, pathlib.Path(os.fsdecode(b"/\xff")), JOB, "surrogates not allowed"), (os.PathLike, File(), SAME, ""), (str, pathlib.Path("/a"), JOB, ""),
    (Rate, Rate.STANDARD, SAME, ""), (Rate, "0.25", SAME, ""), (Rate, "Rate.STANDARD", JOB, ""), (D, Rate.STANDARD, SAME, ""),
    (Optional[Rate], Rate.STANDARD, SAME, ""), (List[Rate], [Rate.STANDARD], SAME, ""), (FreeDay, FreeDay.MAY, SAME, ""),
    # ---- containers
    (Tuple[int, str], (1, "a"), SAME, ""), (Tuple[int, ...], (1, 2, 3), SAME, ""), (tuple, (1, "a"), SAME, ""), (List[int], (1, 2), SAME, ""),
    (Tuple[int, str], (1, "a", 2), JOB, ""), (Set[int], {3, 1}, SAME, ""), (FrozenSet[str], frozenset("ab"), SAME, ""), (Set[Any], {1, "a"}, SAME, ""),
    (List[int], {3, 1}, SAME, ""), (Sequence[int], [1], SAME, ""), (Mapping[str, int], {"a": 1}, SAME, ""), (collections.OrderedDict, collections.OrderedDict(a=1), SAME, ""),
    (Dict[int, str], {1: "a", -2: "b"}, SAME, ""), (Dict[float, int], {1.5: 1}, SAME, ""), (Dict[bool, int], {True: 1, False: 0}, SAME, ""),
    (Dict[Number, int], {Number.TWO: 1}, SAME, ""), (Dict[Word, int], {Word.YES: 1}, SAME, ""), (Dict[Colour, int], {Colour.RED: 1}, JOB, "keys must be str"),
    (Dict[uuid.UUID, int], {ID: 1}, JOB, "keys must be str"), (Dict[Optional[str], int], {None: 1}, SAME, ""), (Dict[str, int], {1: 1}, JOB, ""),
    (Dict[Tuple[int, int], int], {(1, 2): 3}, JOB, "keys must be str"), (Dict[str, Point], {"a": Point3(1)}, JOB, ""), (Dict[Any, int], {1: 1, "1": 2}, JOB, NAMES_CLASH),
    (Dict[str, Any], types.MappingProxyType({"a": 1}), SAME, ""), (Any, collections.deque([1]), JOB, "deque"), (Iterator[int], iter([1]), DECLARED, "iterator"),
    (range, range(3), DECLARED, "range range.* has no JSON form"), (Any, {"a": 1}.keys(), JOB, "dict_keys"), (Any, (n for n in "ab"), JOB, "generator"),
    (collections.Counter, collections.Counter("aab"), SAME, ""), (Any, deep(100), SAME, ""), (Any, deep(200), JOB, "128"), (Any, deep(100_000), JOB, "nests too deep"),
    (Any, itself(), JOB, "nests too deep"),
    # ---- classes
    (Point, Point(1, D("0.5")), SAME, ""), (Point, {"x": 1}, SAME, ""), (Point, {"x": "1"}, JOB, ""), (Point, {"x": 1, "z": 1}, JOB, ""), (Point, Point3(1, D(0), 2), JOB, ""),
    (Point3, Point3(1, D(0), 2), SAME, ""), (List[Point], [Point(1), Point3(2)], JOB, ""), (Square, Square(3), SAME, ""), (Counter, Counter(), SAME, ""),
    (Box[int], Box(3), SAME, ""), (Box[datetime.date], Box(datetime.date(2031, 1, 1)), SAME, ""), (Box[Point], Box(Point(1)), SAME, ""), (Box[int], Box("3"), JOB, ""),
    (Box, Box(3), SAME, ""), (Scaled, Scaled(2, 3), SAME, ""), (Positive, Positive(1), SAME, ""), (Positive, {"n": 0}, JOB, ""), (Frozen, Frozen("a", ("b",)), SAME, ""),
    (ByIdentity, ByIdentity(1), SAME, ""), (Size, Size(1, 2), SAME, ""), (Size, (1, 2), SAME, ""), (Size, (1,), JOB, ""), (Tuple[int, int], Size(1, 2), JOB, ""),
    (Options, {"quality": 1}, SAME, ""), (Options, {}, SAME, ""), (Options, {"colour": 1}, JOB, ""), (Plain, Plain(), DECLARED, "Plain"), (Any, Plain(), JOB, "Plain"),
    (Name, Name("a"), SAME, ""), (str, Name("a"), SAME, ""), (UserId, 7, SAME, ""), (Money, Money("1.10"), SAME, ""), (Dict[str, Money], {"a": Money("1")}, SAME, ""),
    (Money, Plain(), JOB, "Plain"), (Half, Half(), DECLARED, ""), (Any, Half(), SAME, ""), (Optional[Money], None, SAME, ""), (Any, Liar(a=1), JOB, "no items today"),
    (Any, Raises(), JOB, "of a property"),
    # ---- unions
    (Union[datetime.datetime, datetime.date], DAY, SAME, ""), (Union[datetime.date, datetime.datetime], DAY, SAME, ""),
    (Union[datetime.datetime, datetime.date], datetime.datetime(2031, 1, 1), SAME, ""), (Union[datetime.date, datetime.datetime], datetime.datetime(2031, 1, 1), SAME, ""),
    (Union[datetime.datetime, datetime.date, datetime.time], datetime.time(1, 2), SAME, ""), (Union[datetime.time, datetime.datetime, datetime.date], DAY, SAME, ""),
    (Union[int, str], 1, SAME, ""), (Union[int, str], "1", SAME, ""), (Union[str, int], 1, SAME, ""), (Union[float, int], 1, SAME, ""), (Union[int, float], 1.5, SAME, ""),
    (Union[str, datetime.date], datetime.date(2031, 1, 1), SAME, ""), (Union[str, datetime.date], "x", SAME, ""), (Union[str, datetime.date], "2031-01-01", JOB, ""),
    (Union[str, uuid.UUID], ID, SAME, ""), (Union[str, Colour], Colour.RED, SAME, ""), (Union[str, Colour], "red", JOB, ""), (Union[D, float], D("1.5"), SAME, ""),
    (Union[float, D], 1.5, SAME, ""), (Union[List[int], List[str]], ["a"], SAME, ""), (Union[Point, Size], Size(1, 2), SAME, ""), (Union[int, bool], True, SAME, ""),
    (Optional[pathlib.Path], pathlib.Path("a"), SAME, ""), (Union[str, pathlib.Path], pathlib.Path("a"), JOB, ""), (Union[Plain, int], 1, DECLARED, ""),
    # ---- in a union: as strict as without it
    (Optional[List[str]], ["a"], SAME, ""), (Optional[List[str]], [PATH], JOB, ""), (Optional[List[str]], [Colour.RED], JOB, ""), (Optional[List[str]], [ID], JOB, ""),
    (Optional[List[str]], [D("1.5")], JOB, ""), (Optional[List[float]], [2**53 + 1], JOB, ""), (Optional[List[float]], [2**53], SAME, ""),
    (Optional[Dict[str, str]], {"a": PATH}, JOB, ""), (Optional[Dict[str, str]], {"a": "b"}, SAME, ""), (Optional[Titled], {"name": PATH}, JOB, ""),
    (Optional[Titled], {"name": "a"}, SAME, ""), (Optional[Named], Named(PATH), JOB, ""), (Optional[Named], Named("a"), SAME, ""), (Optional[Named], {"name": "a"}, SAME, ""),
    (Union[str, List[str]], [DAY], JOB, ""), (Union[str, List[str]], ["a"], SAME, ""), (Union[str, List[str]], "a", SAME, ""),
    (Optional[List[Union[str, pathlib.Path]]], [PATH], JOB, ""), (Optional[List[Optional[pathlib.Path]]], [PATH, None], SAME, ""), (Optional[Set[str]], {PATH}, JOB, ""),
    (Union[Named, Dict[str, Any]], {"name": "a"}, JOB, ""), (Union[Dict[str, Any], Named], Named("a"), JOB, ""), (Union[Point, Titled], {"x": 1}, SAME, ""),
    (Union[Titled, Dict[str, int]], {"a": 1}, SAME, ""), (Union[Annotated[str, "a name"], pathlib.Path], PATH, JOB, ""), (Optional[Reading], Reading(D(1), DAY), SAME, ""),
    (Union[Annotated[str, "a day"], datetime.date], DAY, SAME, ""), (Union[UserId, str], 7, SAME, ""), (Optional[Words], [PATH], JOB, ""), (Words, [PATH], JOB, ""),
    (Optional[Set[int]], [1], SAME, ""), (Optional[Tuple[int, str]], [1, "a"], SAME, ""), (Union[List[int], Dict[str, int]], {"a": 1}, SAME, ""),
    # ---- types that have their parameters from a base
    (DayBox, DayBox(DAY), SAME, ""), (DayAnd[int], DayAnd(DAY, 1), SAME, ""), (DayAnd[datetime.date], DayAnd(DAY, DAY), SAME, ""), (DayBox, DayBox("soon"), JOB, ""),
    (Days, Days([DAY]), SAME, ""), (Days, Days(["soon"]), JOB, ""), (Items[datetime.date], Items([DAY]), SAME, ""), (ByName[datetime.date], ByName(a=DAY), SAME, ""),
    (collections.OrderedDict[str, datetime.date], collections.OrderedDict(a=DAY), SAME, ""), (List, [1], SAME, ""), (Dict, {"a": 1}, SAME, ""), (Tuple, (1,), SAME, ""),
    (Remade, Remade(), SAME, ""), (Remade, Remade.of(items=[5]), JOB, ""), (Remade, Remade.of(names={"a": 1}), JOB, ""), (Remade, Remade.of(names={"b": 0}), JOB, ""),
    (Remade, Remade.of(items=[[0]]), JOB, ""),
    # ---- what == does not tell
    (Handle, Handle(1), SAME, ""), (List[Handle], [Handle(1), Handle(2)], SAME, ""), (datetime.date, Holiday(2031, 1, 1), SAME, ""), (Holiday, Holiday(2031, 1, 1), SAME, ""),
    (Holiday, DAY, JOB, ""), (Reading, Reading(D("NaN")), SAME, ""), (Reading, Reading(D("1.0"), DAY), SAME, ""),
    (datetime.datetime, datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))), SAME, ""),
    (datetime.datetime, datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-1))), SAME, ""),
    (datetime.time, datetime.time(1, 2, tzinfo=STOCKHOLM), JOB, ""), (datetime.time, datetime.time(1, 2, fold=1), JOB, ""),
    # ---- members' names
    (Any, {1: "a", "1": "b"}, JOB, NAMES_CLASH), (Dict[str, Any], {"deep": [{1: "a", "1": "b"}]}, JOB, NAMES_CLASH),
    (Dict[UserId, int], {7: 1}, SAME, ""), (Dict[Literal[1, 2], str], {1: "a"}, SAME, ""), (Dict[Literal[1, 2], str], {3: "a"}, JOB, ""),
    (Dict[Annotated[int, "a number"], int], {7: 1}, SAME, ""), (Dict[Optional[int], int], {7: 1, None: 2}, SAME, ""), (Dict[Optional[str], int], {"null": 1}, JOB, ""),
    (Dict[Union[int, str], int], {7: 1, "a": 2}, SAME, ""), (Dict[Union[int, str], int], {"7": 1}, JOB, ""), (Dict[Literal[1, "1"], int], {"1": 1}, JOB, ""),
    (Literal[b"a"], b"a", DECLARED, "bytes"), (Literal[Corner.FAR], Corner.FAR, SAME, ""),
    # ---- what is no data
    (bytes, b"a", DECLARED, "bytes b'a' has no JSON form"), (bytearray, bytearray(b"a"), DECLARED, "bytearray"), (memoryview, memoryview(b"a"), DECLARED, "memory"),
    (Any, b"\xff", JOB, "bytes"), (List[bytes], [b"a"], DECLARED, "bytes"), (Dict[str, bytes], {"a": b""}, DECLARED, "bytes"), (Callable[[], int], len, DECLARED, "builtin"),
    (type, int, DECLARED, "type"), (Any, int, JOB, "type"), (Any, Point, JOB, "type"), (Any, Colour, JOB, "EnumMeta|EnumType"), (Any, object(), JOB, "object"),
    (Any, len, JOB, "builtin"), (Any, lambda: 1, JOB, "function"), (Any, os, JOB, "module"), (Any, ..., JOB, "ellipsis"), (Any, NotImplemented, JOB, "NotImplemented"),
    (Any, ValueError("x"), JOB, "ValueError"), (Exception, ValueError("x"), DECLARED, "ValueError"), (io.StringIO, io.StringIO(), DECLARED, "StringIO"),
    (random.Random, random.Random(), DECLARED, "Random"), (Any, functools.partial(len), JOB, "partial"), (Any, {"deep": [b"a"]}, JOB, "bytes"), (slice, slice(1), DECLARED, "slice"),
]


def ran(kind: str) -> None:
    with open(os.environ["VALUES_RAN"], "a") as file:
        file.write(f"{kind}\n")


def declare(n: int, annotation: Any, value: Any) -> None:
    def take(value: Any) -> str:
        ran(f"take-{n}")
        return repr(value)[:1000]

    def give() -> Any:
        ran(f"give-{n}")
        return value

    async def give_later() -> Any:
        return give()

    take.__annotations__["value"] = annotation
    take.__qualname__, give.__qualname__, give_later.__qualname__ = f"take_{n}", f"give_{n}", f"give_later_{n}"
    jobq.worker(f"give-{n}")(give)
    jobq.worker(f"later-{n}")(give_later)
    jobq.worker(f"take-{n}")(take)  # raises where the annotation is refused


REFUSED: Dict[int, str] = {}
for number, (kind, value, *_) in enumerate(TABLE):
    try:
        declare(number, kind, value)
    except jobq.InvalidError as error:
        REFUSED[number] = str(error)


@jobq.worker("give-large")
def give_large() -> str:
    ran("give-large")
    return "x" * 5_000_000
