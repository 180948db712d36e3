"""``python -m jobq.worker MODULE…``: a worker process for jobqd."""

from __future__ import annotations

import _imp
import argparse
import ctypes
import faulthandler
import importlib
import io
import logging
import os
import select
import signal
import sys
import threading
import traceback
from typing import Callable, List, NoReturn, Optional, Sequence

from . import _many, _native, _running
from ._native import lib
from ._operations import check
from .errors import InvalidError, JobqError
from .handlers import handlers
from .hooks import log
from .outcome import Snooze

USAGE = """Runs the jobs of the @jobq.worker functions that the modules define. jobqd starts it:

    [queue default]
    command = python3 -m jobq.worker myapp.jobs
"""

EX_USAGE, EX_SOFTWARE = 64, 70


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobq.worker", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", metavar="MODULE", nargs="+", help="a module, as import names it; the working directory is searched first")
    parser.add_argument(
        "--log-level", metavar="LEVEL", default="INFO", type=str.upper,
        choices=["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
        help="of the root logger, where the modules set none up themselves (default: INFO)",
    )  # fmt: skip
    parser.add_argument(
        "--concurrency", metavar="N", type=int,
        help="how many jobs to run at a time, 1 to 1000 (default: the most that a function's concurrency= says, or 1)",
    )  # fmt: skip
    return parser


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def leave_process(request: SystemExit) -> NoReturn:
    """sys.exit() in a function ends the worker, as it would any process: jobqd restarts it, and charges the job. Where it
    was called is the last that the record shows."""
    traceback.print_exception(type(request), request, request.__traceback__, file=sys.stderr)
    code = request.code
    if code is None:
        code = 0
    elif not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    _flush()
    logging.shutdown()
    os._exit(code & 0xFF)


def _give_up(why: str) -> NoReturn:
    """Without waiting for threads that run functions."""
    sys.stderr.write(why)
    _flush()
    logging.shutdown()
    os._exit(EX_SOFTWARE)


def _set_up_output(level: str) -> None:
    """Lines reach jobqd when they are written, and a crash in C leaves a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()
    if not logging.getLogger().handlers:
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


class _FileName(Exception):
    """A MODULE of the command line is the name of a file."""

    def __init__(self, given: str) -> None:
        path = os.path.normpath(given)
        name = (path[:-3] if path.endswith(".py") else path).strip("./").replace("/", ".")
        super().__init__(f"MODULE is a name as in import: {name or 'jobs'}, not {given}")


def load(modules: Sequence[str]) -> None:
    """Imports them, as the interpreter would: the working directory comes first."""
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    for module in modules:
        if os.sep in module or module.startswith("."):
            raise _FileName(module)
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if module.endswith(".py") and error.name is not None and f"{module}.".startswith(f"{error.name}."):
                raise _FileName(module) from None
            raise




def _became_a_worker(pid: int) -> Callable[[Optional[int]], int]:
    """What libjobq calls in each worker before its first job. With `preload` it has forked it from the process that did the
    imports, as C does; the interpreter has to be told, as os.fork() would: its locks, its threads, and whoever has asked
    (os.register_at_fork) for random numbers of their own, or connections."""

    def on_fork(data: Optional[int]) -> int:
        if os.getpid() != pid:
            _imp.acquire_lock()  # PyOS_BeforeFork would have, and the next one lets go of it
            ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0

    return on_fork


class _OneByOne:
    """A worker of one job at a time. Jobs are taken from libjobq, which calls nothing of ours while there is one: an exception
    that a signal handler raises would be lost in C, and its job with it."""

    def __init__(self, table: _running.Table) -> None:
        self._table = table
        self._loop = _running.Loop()
        self._lock = threading.RLock()
        self._worker = ctypes.c_void_p()
        self._pid = os.getpid()
        rows = _running.names(table)
        self._options = _native.WorkerOptions(
            size=ctypes.sizeof(_native.WorkerOptions),
            kinds=rows,
            n_kinds=len(rows),
            fd=-1,
            on_fork=_native.HOOK(_became_a_worker(os.getpid())),
        )

    def run(self) -> None:
        """The worker's life. Raises what ends it before its time."""
        err = _native.Error()
        check(lib.jobq_worker_open(ctypes.byref(self._worker), ctypes.byref(self._options), ctypes.byref(err)), err)
        if not self._worker:
            return  # a forkserver that was told to go
        self._pid = os.getpid()
        try:
            self._turns()
        finally:
            if os.getpid() == self._pid:
                lib.jobq_worker_close(self._worker)
                self._loop.close()

    def _turns(self) -> None:
        wait = select.poll()
        wait.register(lib.jobq_worker_fd(self._worker), select.POLLIN)
        taken = ctypes.c_void_p()  # here, so that it is known whatever comes in between
        over: List[int] = []
        while not over:
            try:
                if taken.value is None and not self._take(taken, over) and not over:
                    wait.poll()
                if taken.value is not None:
                    work, taken.value = taken.value, None
                    self._do(work)
            except (JobqError, MemoryError):
                raise
            except SystemExit as request:
                self._give_back(taken)
                leave_process(request)
            except KeyboardInterrupt:
                self._give_back(taken)
                os.kill(self._pid, signal.SIGTERM)  # as if jobqd had asked: nothing is lost, nothing charged
            except BaseException:  # of a signal handler, between two jobs: it is none of theirs
                log.exception("a signal handler raised between two jobs")

    def _take(self, taken: ctypes.c_void_p, over: List[int]) -> bool:
        """The next job that has come. `over` is not empty when there will be none."""
        err, codes = _native.Error(), []  # type: ignore[var-annotated]
        try:
            codes.extend(map(lib.jobq_worker_take, (self._worker,), (ctypes.byref(taken),), (ctypes.byref(err),)))
        finally:
            if codes == [0]:
                over.append(1)
        check(codes[0], err)
        return taken.value is not None

    def _give_back(self, taken: ctypes.c_void_p) -> None:
        if taken.value is not None:
            work, taken.value = taken.value, None
            _running.Answers(work, self._lock).outcome(Snooze(0))

    def _do(self, work: int) -> None:
        try:
            _running.run(self._table[lib.jobq_work_kind(work).decode()], work, self._loop, self._lock)
        except InvalidError as error:  # an answer that is refused
            _give_up(f"jobq.worker: {error}\n")


def run(modules: Sequence[str], concurrency: Optional[int]) -> int:
    """The worker's life. An exit code."""
    try:
        load(modules)
    except _FileName as error:
        print(f"jobq.worker: {error}", file=sys.stderr)
        return EX_USAGE
    except Exception:
        traceback.print_exc()
        return EX_SOFTWARE
    table = handlers()
    if not table:
        print(f"jobq.worker: {_running.no_handlers(' '.join(modules))}", file=sys.stderr)
        return EX_USAGE
    many = _many.of_table(table, concurrency)
    try:
        if many > 1:
            _many.Worker(table, many, _became_a_worker(os.getpid()), leave_process).run()
        else:
            _OneByOne(table).run()
    except JobqError as failure:
        _give_up(f"jobq.worker: {failure}\n")
    except Exception:  # the event loop's own: somebody has closed its descriptors, say
        _give_up(traceback.format_exc())
    _flush()
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    options = _parser().parse_args(argv)
    _set_up_output(options.log_level)
    try:
        return run(options.modules, options.concurrency)
    except JobqError as error:
        print(f"jobq.worker: {error}", file=sys.stderr)
        return EX_USAGE
