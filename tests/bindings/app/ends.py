"""Functions that fork, raise from signal handlers, leave things behind in their context, or take too long."""

import asyncio
import contextvars
import datetime
import functools
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List

import jobq

left: "contextvars.ContextVar[str]" = contextvars.ContextVar("left", default="nothing")


@jobq.middleware
def noted(context: jobq.Context) -> Any:
    note(f"> {context.job.kind}")
    try:
        yield
    finally:
        note(f"< {context.job.kind}")


@jobq.on_error
def told(context: jobq.Context, error: BaseException) -> None:
    note(f"! {context.job.kind} {type(error).__name__}")
    if context.job.kind == "fails":
        raise RuntimeError("the hook fails, too")
    if context.job.kind == "fails-interrupted":
        raise KeyboardInterrupt


def note(text: str) -> None:
    with open(os.environ["ENDS_NOTES"], "a") as file:
        file.write(text + "\n")


@jobq.worker("pid")
def pid() -> int:
    return os.getpid()


@jobq.worker("pid-later")
async def pid_later() -> int:
    return os.getpid()


def in_a_child(how: str) -> str:
    child = os.fork()
    if child == 0:
        if how == "raises":
            raise ValueError("in the child")
        if how == "exits":
            sys.exit(3)
        return "the child's answer"
    return f"the child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


@jobq.worker("falls-out")
def falls_out(how: str) -> str:
    return in_a_child(how)


@jobq.worker("falls-out-later")
async def falls_out_later(how: str) -> str:
    return in_a_child(how)


@jobq.worker("child-asks")
def child_asks(context: jobq.Context) -> List[str]:
    """A child that reports progress and asks must not disturb the parent's socket."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = [str(context.should_stop())]
        try:
            context.progress(0.5)
        except jobq.StateError as error:
            said.append(str(error))
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(read, 1000).decode().split("\n")


@jobq.worker("leave-behind")
def leave_behind() -> str:
    before = left.get()
    left.set("something")
    return before


@jobq.worker("leave-behind-later")
async def leave_behind_later() -> str:
    before = left.get()
    left.set("something")
    return before


class Interrupted(Exception):
    pass


def interrupt(number: int, frame: Any) -> None:
    raise Interrupted()


@jobq.worker("set-handler")
def set_handler() -> int:
    signal.signal(signal.SIGUSR2, interrupt)
    return os.getpid()


@jobq.worker("in-thread")
def in_thread(context: jobq.Context, file: str) -> str:
    pathlib.Path(file).write_text(str(os.getpid()))
    while not context.should_stop():
        time.sleep(0.01)
    return "stopped"


@jobq.worker("on-loop")
async def on_loop(context: jobq.Context) -> None:
    context.progress(0.5)
    await asyncio.sleep(600)


@jobq.worker("soft", soft_timeout=0.2)
def soft(catch: bool) -> str:
    try:
        while True:
            time.sleep(0.01)
    except jobq.SoftTimeout:
        if not catch:
            raise
    return threading.current_thread().name


@jobq.worker("soft-later", soft_timeout=0.2)
async def soft_later(catch: bool) -> str:
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        if not catch:
            raise
    return "in time"


@jobq.worker("soft-waits", soft_timeout=0.2)
def soft_waits(job: int, catch: bool) -> str:
    try:
        jobq.get_client().wait(job)
    except jobq.SoftTimeout:
        if not catch:
            raise
        try:
            jobq.get_client().wait(job, timeout=1.5)
        except jobq.TimedOutError:
            return "raised once"
    return "?"


@jobq.worker("soft-enough", soft_timeout=30)
def soft_enough() -> str:
    return "in time"


@jobq.worker("fails")
def fails() -> None:
    raise KeyError("a")


@jobq.worker("hopeless", discard_on=[KeyError, jobq.ArgumentError])
def hopeless(n: int) -> Dict[str, int]:
    return {"a": {}[n]}


@jobq.worker("patient", discard_on=[])
def patient(n: int) -> int:
    return n


@jobq.worker("returns-bytes", validate=False)
def returns_bytes() -> bytes:
    return b"a"


class LeavesWhenWritten:
    def __init__(self, how: str) -> None:
        self.how = how

    @property
    def model_dump(self) -> Any:
        raise {"exit": SystemExit(5), "interrupt": KeyboardInterrupt(), "memory": MemoryError()}[self.how]


@jobq.worker("leaves-when-written")
def leaves_when_written(how: str) -> Any:
    return LeavesWhenWritten(how)


@jobq.worker("generator-exit")
def generator_exit() -> None:
    raise GeneratorExit


@jobq.worker("falls-out-softly", soft_timeout=30)
def falls_out_softly(how: str) -> str:
    return in_a_child(how)


@jobq.worker("falls-out-softly-later", soft_timeout=30)
async def falls_out_softly_later(how: str) -> str:
    return in_a_child(how)


@jobq.worker("interrupted-later")
async def interrupted_later(returns: bool) -> str:
    """Ctrl-C comes while the event loop does something else."""
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        if not returns:
            raise
    return "all the same"


@jobq.worker("tasks")
async def tasks() -> int:
    return len(asyncio.all_tasks())


@jobq.worker("fails-interrupted")
def fails_interrupted() -> None:
    raise KeyError("a")


class Notes(Exception):
    @property
    def __notes__(self) -> Any:
        sys.exit(5)


class Leaves(jobq.ArgumentError):
    def __str__(self) -> str:
        sys.exit(5)


class NotYet(jobq.Snooze):
    def __init__(self) -> None:
        """Without the base's."""


class Never(jobq.Discard):
    def __init__(self) -> None:
        """Without the base's."""


class Late(jobq.Snooze):
    def __init__(self) -> None:
        self.after_ms = 2**60


RAISED: Dict[str, Callable[[], BaseException]] = {
    "syntax": lambda: SyntaxError("m", ("f", "x", "y", "t")),
    "notes": Notes,
    "leaves": lambda: Leaves("x"),
    "not-yet": NotYet,
    "never": Never,
    "late": Late,
    "reason": lambda: jobq.Discard(KeyError("why")),  # type: ignore[arg-type]
    "snooze": lambda: jobq.Snooze(datetime.timedelta(days=11 * 365)),
    "retry": lambda: jobq.Retry(datetime.timedelta(days=11 * 365)),
}


@jobq.worker("raises", discard_on=[])
def raises(what: str) -> None:
    raise RAISED[what]()


@jobq.worker("endless")
def endless() -> None:
    while True:
        time.sleep(0.01)


@jobq.worker("soft-calls", soft_timeout=0.2)
def soft_calls() -> None:
    endless()


def plainly(function: Any) -> Any:
    """As many decorators are: no coroutine function itself."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@jobq.worker("soft-wrapped", soft_timeout=0.2)
@plainly
async def soft_wrapped() -> None:
    note("body")
    await asyncio.sleep(600)


@jobq.worker("wrapped")
@plainly
async def wrapped(context: jobq.Context) -> None:
    assert jobq.current() is context
    context.progress(0.5)
    try:
        await asyncio.sleep(600)
    finally:
        note("end of the body")


@jobq.worker("set-timer")
def set_timer() -> None:
    signal.setitimer(signal.ITIMER_REAL, 500)


@jobq.worker("read-timer")
def read_timer() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]
