"""A wall clock that can be set, for one process and its children: libfaketime's."""

import glob
import os
import pathlib
import re


class Clock:
    """A wall clock that can be set; CLOCK_BOOTTIME and CLOCK_MONOTONIC stay as they are."""

    def __init__(self, path):
        self.path = path
        self.set("+0")
        library, = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        self.env = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(path), "FAKETIME_NO_CACHE": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}

    def set(self, offset):
        """"+3600": an hour fast."""
        new = self.path.with_suffix(".new")
        new.write_text(offset + "\n")
        new.chmod(0o644)
        new.rename(self.path)


def clean_up():
    """The shared memory of processes that ended without a word to it."""
    for name in os.listdir("/dev/shm"):
        match = re.fullmatch(r"(?:sem\.faketime_sem|faketime_shm)_(\d+)", name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            pathlib.Path("/dev/shm", name).unlink(missing_ok=True)
