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
import sys
import traceback
from typing import Callable, NoReturn, Optional, Sequence

from . import _many, _native, _running
from ._native import lib
from ._operations import check
from .errors import JobqError
from .handlers import handlers

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


def load(modules: Sequence[str]) -> None:
    """Imports them, as the interpreter would: the working directory comes first."""
    cwd = os.getcwd()
    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    for module in modules:
        importlib.import_module(module)


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


def _run_one_by_one(table: _running.Table) -> None:
    loop = _running.Loop()
    rows = _running.kinds(table, loop, leave_process)
    options = _native.WorkerOptions(
        size=ctypes.sizeof(_native.WorkerOptions),
        kinds=rows,
        n_kinds=len(rows),
        fd=-1,
        on_fork=_native.HOOK(_became_a_worker(os.getpid())),
    )
    err = _native.Error()
    try:
        check(lib.jobq_worker_run(ctypes.byref(options), ctypes.byref(err)), err)
    finally:
        loop.close()


def run(modules: Sequence[str], concurrency: Optional[int]) -> int:
    """The worker's life. An exit code."""
    try:
        load(modules)
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
            _run_one_by_one(table)
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
