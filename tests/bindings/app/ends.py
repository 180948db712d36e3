"""Functions that fork, raise from signal handlers, leave things behind in their context, or take too long."""

import asyncio
import contextvars
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Dict, List

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
