"""The harness's own time limit, in whatever thread execnet runs the tests."""

import threading

import pytest

from harness.timelimit import TookTooLong, limited


def wait_for_ever():
    ever = threading.Event()
    while not ever.wait(0.01):
        pass


def in_another_thread(function):
    outcome = []

    def run():
        try:
            function()
        except TookTooLong:
            outcome.append("took too long")
        else:
            outcome.append("ended")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome


def too_long():
    with limited(0.2):
        wait_for_ever()


def in_time():
    with limited(300):
        pass


def test_in_the_thread_of_the_tests():
    with pytest.raises(TookTooLong):
        too_long()
    in_time()


def test_in_another_thread():
    assert in_another_thread(too_long) == ["took too long"]
    assert in_another_thread(in_time) == ["ended"]
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and not thread.finished.is_set()]
