"""Waiting for a condition, never for a time."""

import threading
import time

LIMIT_S = 60  # generous: a sanitizer build on a busy machine is slow
_pause = threading.Event()


def wait_for(condition, timeout=LIMIT_S, what=None):
    """Returns condition()'s value as soon as it is truthy. Fails after `timeout` seconds, naming `what`
    (text, or a function that describes how things stand) and the last value seen."""
    deadline = time.monotonic() + timeout
    pause_s = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            told = what() if callable(what) else what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"not within {timeout} s: {told} (last value: {value!r})")
        _pause.wait(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
