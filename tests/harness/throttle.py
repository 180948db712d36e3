"""Less of a processor for one process: stopped and let go on again and again. Needs no rights, and is the same everywhere."""

import os
import signal
import threading


class Throttle:
    """with Throttle(pid, 0.25): it goes for a quarter of the time, in periods of 40 ms. Its children are let alone."""

    PERIOD_S = 0.04

    def __init__(self, pid, share):
        self._pid = pid
        self._share = share
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._over.is_set():
            os.kill(self._pid, signal.SIGSTOP)
            self._over.wait(self.PERIOD_S * (1 - self._share))
            os.kill(self._pid, signal.SIGCONT)
            self._over.wait(self.PERIOD_S * self._share)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        os.kill(self._pid, signal.SIGCONT)
