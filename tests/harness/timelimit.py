"""A limit to how long something may take."""

import contextlib
import ctypes
import signal
import threading


class TookTooLong(TimeoutError):
    pass


@contextlib.contextmanager
def limited(seconds):
    """Raises TookTooLong after so many seconds, whatever is being waited for. execnet, which starts the processes of a parallel
    run, may run the tests in another thread than the main one, if that is slow to be ready; signals are out of reach there, and
    a call into C is ended first."""
    if threading.current_thread() is threading.main_thread():
        def on_alarm(number, frame):
            raise TookTooLong(f"the test took more than {seconds} s")

        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return
    thread = ctypes.c_ulong(threading.get_ident())
    timer = threading.Timer(seconds, ctypes.pythonapi.PyThreadState_SetAsyncExc, (thread, ctypes.py_object(TookTooLong)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
