"""Whoever reads what jobqd writes to its stderr: a pager, a terminal, a log driver. It may stop reading, and go away."""

import fcntl
import os
import pty
import select
import socket
import threading
import tty

F_SETPIPE_SZ = 1031
SMALL = 4096


def _pipe():
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, F_SETPIPE_SZ, SMALL)
    return ours, theirs


def _socket():
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return ours.detach(), theirs.detach()


def _terminal():
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    return ours, theirs


KINDS = {"pipe": _pipe, "socket": _socket, "terminal": _terminal}


class Reader:
    """Reader("pipe"): call it with the path of a log (the jobqd fixture does: output=reader), and it brings there whatever
    is written to `theirs`. It reads a little at a time, so a pause holds at once."""

    def __init__(self, kind):
        self.ours, self.theirs = KINDS[kind]()
        self._goes = threading.Event()
        self._ended = False
        self._wake, self._waker = os.pipe()
        self._turn = threading.Lock()
        self._thread = None

    def __call__(self, logfile):
        self._goes.set()
        self._thread = threading.Thread(target=self._read, args=(logfile,), daemon=True)
        self._thread.start()
        return self.theirs

    def _read(self, logfile):
        with open(logfile, "ab", buffering=0) as log:
            while not self._ended:
                self._goes.wait()
                ready, _, _ = select.select([self.ours, self._wake], [], [])
                if self._wake in ready:
                    os.read(self._wake, 1)
                    continue
                with self._turn:
                    if not self._goes.is_set():
                        continue
                    try:
                        text = os.read(self.ours, SMALL)
                    except OSError:
                        return
                    if not text:
                        return
                    log.write(text)

    def pause(self):
        """Reads nothing more from here on."""
        with self._turn:
            self._goes.clear()
        os.write(self._waker, b"x")

    def resume(self):
        self._goes.set()

    def is_full(self):
        """Whether a write to it would have to wait."""
        return not select.select([], [self.theirs], [], 0)[1]

    def close(self):
        """It goes away: a pager that was quit."""
        self._ended = True
        self._goes.set()
        os.write(self._waker, b"x")
        if self._thread:
            self._thread.join()
        self._thread = None
        for fd in (self.ours, self.theirs, self._wake, self._waker):
            os.close(fd)
