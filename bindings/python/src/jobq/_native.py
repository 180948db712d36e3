"""libjobq, as ctypes sees it: where it is found, its structures and its functions.

The one place that knows C. A structure here is the one of the header that its comment names;
``tests/bindings/test_native.py`` compares their sizes and offsets with a compiler's.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_size_t,
    c_uint,
    c_void_p,
)
from pathlib import Path
from typing import Any, List, Optional, Tuple, Type

from ._version import __version__
from .errors import LibraryError

SONAME = "libjobq.so.0"

# ---- jobq/error.h ----


class Error(Structure):
    _fields_ = [("code", c_int), ("sqlstate", c_char * 6), ("message", c_char * 512)]


# ---- jobq/job.h ----


class Unique(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("fields", c_uint),
        ("states", c_uint),
        ("period_s", c_int64),
        ("keys", POINTER(c_char_p)),
        ("n_keys", c_size_t),
    ]


class Job(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("schema", c_char_p),
        ("kind", c_char_p),
        ("args", c_char_p),
        ("meta", c_char_p),
        ("queue", c_char_p),
        ("priority", c_int),
        ("max_attempts", c_int),
        ("timeout_ms", c_int),
        ("delay_ms", c_int64),
        ("scheduled_at_us", c_int64),
        ("key", c_char_p),
        ("unique_key", c_char_p),
        ("tags", POINTER(c_char_p)),
        ("n_tags", c_size_t),
        ("expires_at_us", c_int64),
        ("expires_in_ms", c_int64),
        ("unique_by", POINTER(Unique)),
        ("on_conflict", c_int),
        ("replace", c_char_p),
    ]


class Enqueued(Structure):
    _fields_ = [("id", c_int64), ("conflict", c_int)]


class JobInfo(Structure):
    _fields_ = [
        ("id", c_int64),
        ("state", c_char_p),
        ("queue", c_char_p),
        ("kind", c_char_p),
        ("args", c_char_p),
        ("meta", c_char_p),
        ("errors", c_char_p),
        ("result", c_char_p),
        ("key", c_char_p),
        ("unique_key", c_char_p),
        ("priority", c_int),
        ("attempt", c_int),
        ("max_attempts", c_int),
        ("timeout_ms", c_int),
        ("inserted_at_us", c_int64),
        ("scheduled_at_us", c_int64),
        ("attempted_at_us", c_int64),
        ("finished_at_us", c_int64),
        ("expires_at_us", c_int64),
        ("progress", c_double),
        ("progress_note", c_char_p),
    ]


# ---- jobq/client.h ----


class ClientOptions(Structure):
    _fields_ = [("size", c_size_t), ("database", c_char_p), ("schema", c_char_p)]


# ---- jobq/worker.h ----

# On the pointer itself, so that the interpreter makes no object of it for each job.
HANDLER = CFUNCTYPE(c_int, c_void_p, c_void_p)
HOOK = CFUNCTYPE(c_int, c_void_p)


class WorkerKind(Structure):
    _fields_ = [("kind", c_char_p), ("handler", HANDLER), ("data", c_void_p)]


STOP_HOOK = CFUNCTYPE(None, c_void_p, c_void_p)


class WorkerOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("kinds", POINTER(WorkerKind)),
        ("n_kinds", c_size_t),
        ("fd", c_int),
        ("max_frame", c_size_t),
        ("preload", HOOK),
        ("on_fork", HOOK),
        ("hook_data", c_void_p),
        ("concurrency", c_int),
        ("on_stop", STOP_HOOK),
    ]


# ---- jobq/testing.h ----


class TestingMatch(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("schema", c_char_p),
        ("kind", c_char_p),
        ("queue", c_char_p),
        ("args", c_char_p),
        ("meta", c_char_p),
        ("tags", POINTER(c_char_p)),
        ("n_tags", c_size_t),
        ("priority", c_int),
        ("state", c_char_p),
        ("scheduled_after_us", c_int64),
        ("scheduled_before_us", c_int64),
    ]


class TestingDrainOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("schema", c_char_p),
        ("queue", c_char_p),
        ("kinds", POINTER(WorkerKind)),
        ("n_kinds", c_size_t),
        ("with_scheduled", c_int),
        ("recursive", c_int),
        ("limit", c_size_t),
    ]


class TestingDrained(Structure):
    _fields_ = [
        ("completed", c_int),
        ("retryable", c_int),
        ("discarded", c_int),
        ("snoozed", c_int),
        ("cancelled", c_int),
        ("refused", c_int),
    ]


# ---- functions ----

_ERR = POINTER(Error)
_CONN = c_void_p
_CLIENT = c_void_p
_WORK = c_void_p
_DONE = POINTER(c_int)
_COUNT = POINTER(c_int64)
_INFO = POINTER(POINTER(JobInfo))

#: name, result, parameters
_FUNCTIONS: List[Tuple[str, Optional[Type[Any]], List[Any]]] = [
    ("jobq_version", c_char_p, []),
    ("jobq_job_try_enqueue", c_int, [_CONN, POINTER(Job), POINTER(Enqueued), _ERR]),
    ("jobq_job_try_enqueue_many", c_int, [_CONN, POINTER(Job), c_size_t, POINTER(Enqueued), _ERR]),
    ("jobq_job_get", c_int, [_CONN, c_char_p, c_int64, _INFO, _ERR]),
    ("jobq_job_info_free", None, [POINTER(JobInfo)]),
    ("jobq_job_cancel", c_int, [_CONN, c_char_p, c_int64, _DONE, _ERR]),
    ("jobq_job_retry", c_int, [_CONN, c_char_p, c_int64, _DONE, _ERR]),
    ("jobq_job_complete", c_int, [_CONN, c_char_p, c_int64, c_int, c_char_p, _ERR]),
    ("jobq_job_cancel_many", c_int, [_CONN, c_char_p, c_char_p, _COUNT, _ERR]),
    ("jobq_job_retry_many", c_int, [_CONN, c_char_p, c_char_p, _COUNT, _ERR]),
    ("jobq_job_delete_many", c_int, [_CONN, c_char_p, c_char_p, _COUNT, _ERR]),
    ("jobq_job_delete", c_int, [_CONN, c_char_p, c_int64, _DONE, _ERR]),
    ("jobq_job_purge", c_int, [_CONN, c_char_p, c_char_p, c_char_p, c_char_p, _COUNT, _ERR]),
    ("jobq_queue_pause", c_int, [_CONN, c_char_p, c_char_p, c_char_p, _DONE, _ERR]),
    ("jobq_queue_resume", c_int, [_CONN, c_char_p, c_char_p, c_char_p, _DONE, _ERR]),
    ("jobq_queue_scale", c_int, [_CONN, c_char_p, c_char_p, c_int, c_char_p, _DONE, _ERR]),
    ("jobq_client_open", c_int, [POINTER(ClientOptions), POINTER(_CLIENT), _ERR]),
    ("jobq_client_close", None, [_CLIENT]),
    ("jobq_client_conn", c_void_p, [_CLIENT]),
    ("jobq_client_reconnect", c_int, [_CLIENT, _ERR]),
    ("jobq_client_try_enqueue", c_int, [_CLIENT, POINTER(Job), POINTER(Enqueued), _ERR]),
    ("jobq_client_try_enqueue_many", c_int, [_CLIENT, POINTER(Job), c_size_t, POINTER(Enqueued), _ERR]),
    ("jobq_client_job_get", c_int, [_CLIENT, c_int64, _INFO, _ERR]),
    ("jobq_client_wait", c_int, [_CLIENT, c_int64, c_int64, _INFO, _ERR]),
    ("jobq_client_cancel", c_int, [_CLIENT, c_int64, _DONE, _ERR]),
    ("jobq_client_retry", c_int, [_CLIENT, c_int64, _DONE, _ERR]),
    ("jobq_worker_run", c_int, [POINTER(WorkerOptions), _ERR]),
    ("jobq_worker_open", c_int, [POINTER(c_void_p), POINTER(WorkerOptions), _ERR]),
    ("jobq_worker_fd", c_int, [c_void_p]),
    ("jobq_worker_step", c_int, [c_void_p, _ERR]),
    ("jobq_worker_take", c_int, [c_void_p, POINTER(c_void_p), _ERR]),
    ("jobq_worker_close", None, [c_void_p]),
    ("jobq_work_keep", c_int, [_WORK, POINTER(c_void_p), _ERR]),
    ("jobq_work_id", c_int64, [_WORK]),
    ("jobq_work_attempt", c_int, [_WORK]),
    ("jobq_work_max_attempts", c_int, [_WORK]),
    ("jobq_work_queue", c_char_p, [_WORK]),
    ("jobq_work_kind", c_char_p, [_WORK]),
    ("jobq_work_args", c_char_p, [_WORK]),
    ("jobq_work_meta", c_char_p, [_WORK]),
    ("jobq_work_timeout_ms", c_int64, [_WORK]),
    ("jobq_work_ok", c_int, [_WORK, c_char_p, _ERR]),
    ("jobq_work_ok_without_result", c_int, [_WORK, c_char_p, _ERR]),
    ("jobq_work_error", c_int, [_WORK, c_char_p, c_char_p, c_int64, _ERR]),
    ("jobq_work_snooze", c_int, [_WORK, c_int64, _ERR]),
    ("jobq_work_discard", c_int, [_WORK, c_char_p, _ERR]),
    ("jobq_work_cancel", c_int, [_WORK, c_char_p, _ERR]),
    ("jobq_work_progress", c_int, [_WORK, c_double, c_char_p, _ERR]),
    ("jobq_work_should_stop", c_int, [_WORK]),
    ("jobq_testing_drain", c_int, [_CONN, POINTER(TestingDrainOptions), POINTER(TestingDrained), _ERR]),
    ("jobq_testing_count", c_int, [_CONN, POINTER(TestingMatch), _COUNT, _ERR]),
    ("jobq_testing_assert_enqueued", c_int, [_CONN, POINTER(TestingMatch), _ERR]),
    ("jobq_testing_refute_enqueued", c_int, [_CONN, POINTER(TestingMatch), _ERR]),
]


def _candidates() -> List[str]:
    """Where the library may be, in order: what the environment says alone, or beside us, or the loader's."""
    named = os.environ.get("JOBQ_LIBRARY")
    if named:
        return [named]
    beside = Path(__file__).with_name(SONAME)
    return [str(beside)] if beside.exists() else [SONAME]


def _open() -> ctypes.CDLL:
    (path,) = _candidates()
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        where = "JOBQ_LIBRARY names it" if os.environ.get("JOBQ_LIBRARY") else "install libjobq, or set JOBQ_LIBRARY"
        raise LibraryError(f"cannot load libjobq from {path} ({where}): {error}") from None
    try:
        version = lib.jobq_version
    except AttributeError:
        raise LibraryError(f"{path} is no libjobq: it has no jobq_version") from None
    version.restype = c_char_p
    found = version().decode()
    # Before 1.0 a minor release may change the interface.
    if found.split(".")[:2] != __version__.split(".")[:2]:
        raise LibraryError(
            f"{path} is libjobq {found}, but this package is jobq {__version__}: both need the same major and minor "
            f"version"
        )
    for name, restype, argtypes in _FUNCTIONS:
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise LibraryError(f"{path} (libjobq {found}) has no {name}, which jobq {__version__} needs") from None
        function.restype = restype
        function.argtypes = argtypes
    return lib


#: The library. Calls through it do not hold the GIL.
lib: Any = _open()


def libpq_path() -> Optional[str]:
    """The file of the one libpq in this process; None where there are several, or none can be told."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            files = {line.split(maxsplit=5)[5].strip() for line in maps if "libpq" in line}
    except (OSError, IndexError):
        return None
    libraries = {file for file in files if os.path.basename(file).startswith("libpq") and ".so" in file}
    return libraries.pop() if len(libraries) == 1 else None
