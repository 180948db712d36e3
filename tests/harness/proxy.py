"""A network between jobqd and Postgres that a test can hang or cut: a unix socket before the server's own."""

import os
import pathlib
import selectors
import shutil
import socket
import tempfile
import threading
import urllib.parse

from .pg import SUPERUSER

CHUNK = 65536


class Proxy:
    """One thread. While stalled nothing is carried, in either direction, and nobody is told: connections stay open
    and new ones are accepted, as with a host that hangs."""

    def __init__(self, cluster):
        self.target = str(cluster.dir / ".s.PGSQL.5432")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jobq-px-", dir="/tmp"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.dir / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._pairs = {}
        self._stalled = False
        self._ended = False
        self._lock = threading.Lock()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def uri(self, database):
        return f"postgresql://{SUPERUSER}@/{database.name}?host={urllib.parse.quote(str(self.dir), safe='')}"

    def stall(self):
        self._set(stalled=True)

    def resume(self):
        self._set(stalled=False)

    def close(self):
        self._set(ended=True)
        self._thread.join()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _set(self, stalled=None, ended=None):
        """Returns when the thread has taken note of it: from then on nothing moves."""
        done = threading.Event()
        with self._lock:
            self._wanted = (stalled, ended, done)
            os.write(self._woken, b"x")
        done.wait()

    def _obey(self):
        os.read(self._wake, 1)
        stalled, self._ended, done = self._wanted
        if stalled is not None and stalled != self._stalled:
            self._stalled = stalled
            for one in [self._listener, *self._pairs]:
                if stalled:
                    self._selector.unregister(one)
                else:
                    self._selector.register(one, selectors.EVENT_READ)
        done.set()

    def _accept(self):
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self.target)
        except OSError:
            client.close()
            server.close()
            return
        self._pairs[client], self._pairs[server] = server, client
        self._selector.register(client, selectors.EVENT_READ)
        self._selector.register(server, selectors.EVENT_READ)

    def _carry(self, one):
        other = self._pairs.get(one)
        if other is None:
            return
        try:
            data = one.recv(CHUNK)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for end in (one, other):
            self._selector.unregister(end)
            del self._pairs[end]
            end.close()

    def _run(self):
        while not self._ended:
            for key, _ in self._selector.select():
                if key.fileobj == self._wake:
                    self._obey()
                elif self._stalled or self._ended:
                    break
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._carry(key.fileobj)
        for one in [self._listener, *self._pairs]:
            one.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)
