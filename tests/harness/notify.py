"""A service manager's notify socket: what a daemon says to NOTIFY_SOCKET, in the order in which it was said."""

import os
import socket
import time

from .waiting import LIMIT_S, wait_for


class Manager:
    """address: a path, or @ and an abstract name. `heard` is a list of (monotonic time, {name: value})."""

    def __init__(self, address):
        self.address = str(address)
        self.heard = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)

    def environment(self, watchdog_ms=None, pid=None):
        """What systemd puts into a service's environment. WATCHDOG_PID only on demand: the daemon's pid is not known yet."""
        return {"NOTIFY_SOCKET": self.address,
                **({"WATCHDOG_USEC": str(watchdog_ms * 1000)} if watchdog_ms else {}),
                **({"WATCHDOG_PID": str(pid)} if pid else {})}

    def listen(self):
        """Takes what has come; returns all that was heard."""
        while True:
            try:
                data = self.socket.recv(65536).decode()
            except BlockingIOError:
                return self.heard
            self.heard.append((time.monotonic(), dict(line.split("=", 1) for line in data.splitlines())))

    def values(self, name):
        """The values of one assignment, in order."""
        return [said[name] for _, said in self.listen() if name in said]

    def wait(self, name, accept=lambda value: True, timeout=LIMIT_S):
        """Waits until this was assigned such a value; returns the last one of them."""
        return wait_for(lambda: [v for v in self.values(name) if accept(v)], timeout,
                        what=lambda: f"{name}; heard: {self.heard[-20:]}")[-1]

    def wait_status(self, words, timeout=LIMIT_S):
        """Waits until the newest STATUS holds these words."""
        def newest():
            said = self.values("STATUS")
            return said and words in said[-1] and said[-1]
        return wait_for(newest, timeout, what=lambda: f"a status with {words!r}; heard: {self.heard[-20:]}")

    def wait_more(self, name, n=1, timeout=LIMIT_S):
        """Waits until this was assigned n times more than by now."""
        before = len(self.values(name))
        wait_for(lambda: len(self.values(name)) >= before + n, timeout, what=lambda: f"more {name}; heard: {self.heard[-20:]}")

    def close(self):
        self.socket.close()
        if self.address.startswith("/"):
            os.unlink(self.address)
