#!/usr/bin/python3
"""A forkserver in Python's standard library alone: its workers answer every job with ok.

    forkserver.py HOW ONCE    does wrong what HOW names, as long as the file ONCE is not there (and makes it)
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
HOW, ONCE = sys.argv[1:]
libc = ctypes.CDLL(None)
BORN = []  # the workers
jobqd = socket.socket(fileno=int(os.environ["JOBQ_FD"]))


def goes_wrong(how):
    """Whether to do that now."""
    if HOW != how or os.path.exists(ONCE):
        return False
    open(ONCE, "x").close()
    return True


def say(to, **message):
    to.sendall(json.dumps(message).encode() + b"\n")


def work(channel):
    say(channel, t="hello", protocol=1)
    for line in channel.makefile("rb"):
        message = json.loads(line)
        if message["t"] == "job":
            say(channel, t="ok", id=message["id"], result=os.getppid())
        elif message["t"] == "stop":
            break
    os._exit(0)


def be_a_worker(parent, middle, channel, output, writer):
    os.setsid()  # a process group of its own; jobqd cannot make one where the forkserver has another user
    os.close(writer)
    select.select([middle], [], [])  # the process in between has ended: jobqd is our parent
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(middle)
    jobqd.close()
    channel = socket.socket(fileno=channel)
    line = b""
    while not line.endswith(b"\n"):
        byte = channel.recv(1)
        if not byte:
            os._exit(1)  # jobqd has not taken us
        line += byte
    assert json.loads(line) == {"t": "start"}
    work(channel)


def fork_worker(parent, channel, output):
    """Returns the pid of a worker that is jobqd's child."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        self = os.pidfd_open(os.getpid())
        pid = os.fork()
        if pid == 0:
            be_a_worker(parent, self, channel, output, writer)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        pid = int(said.read())  # to its end: the worker has closed it, too
    os.waitpid(middle, 0)
    BORN.append(pid)
    return pid


def fork_once():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def answer(message, channel, output):
    ask = message["id"]
    if goes_wrong("deaf"):
        signal.pause()
    elif goes_wrong("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    elif goes_wrong("garbage"):
        jobqd.sendall(b"\x00\xff what?\n")
    elif goes_wrong("half"):
        jobqd.sendall(b'{"t":"forked","id":1,')
        os._exit(3)
    elif goes_wrong("liar"):
        say(jobqd, t="forked", id=ask, pid=1)
    elif goes_wrong("single"):
        say(jobqd, t="forked", id=ask, pid=fork_once())
    elif HOW == "same" and BORN and goes_wrong("same"):
        say(jobqd, t="forked", id=ask, pid=BORN[0])
    elif goes_wrong("other"):
        say(jobqd, t="forked", id=ask + 1, pid=os.getpid())
    elif goes_wrong("refuses"):
        say(jobqd, t="error", id=ask, error="not today")
    elif goes_wrong("closes"):
        jobqd.close()
        signal.pause()
    elif goes_wrong("dies"):
        fork_worker(message["parent"], channel, output)
        os.kill(os.getpid(), signal.SIGKILL)
    elif goes_wrong("forked"):
        say(jobqd, t="forked", id=ask, pid=fork_worker(message["parent"], channel, output))
        # The second has a socket of its own: it would take what is said to the first.
        mine, theirs = socket.socketpair()
        mine.close()
        say(jobqd, t="forked", id=ask, pid=fork_worker(message["parent"], theirs.detach(), output))
    else:
        say(jobqd, t="forked", id=ask, pid=fork_worker(message["parent"], channel, output))
    os.close(channel)
    os.close(output)


def main():
    if goes_wrong("silent"):
        signal.pause()
    if goes_wrong("early"):
        say(jobqd, t="forked", id=1, pid=1)
    if goes_wrong("worker"):
        say(jobqd, t="hello", protocol=1)
    if goes_wrong("future"):
        say(jobqd, t="hello", protocol=2, forkserver=True)
    if goes_wrong("exits"):
        sys.exit(3)
    assert os.environ["JOBQ_PRELOAD"] == "1"
    say(jobqd, t="hello", protocol=1, forkserver=True)
    if goes_wrong("twice"):
        say(jobqd, t="hello", protocol=1, forkserver=True)
    while True:
        line, fds, _, _ = socket.recv_fds(jobqd, 4096, 2)
        message = json.loads(line or b'{"t":"stop"}')
        if message["t"] == "stop":
            return
        if message["t"] == "fork":
            answer(message, *fds)


main()
