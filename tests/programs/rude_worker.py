#!/usr/bin/python3
"""A worker that breaks the protocol, without a library that would keep it from doing so.

    rude_worker.py MODE [ARGUMENT]

A job's first attempt meets the MODE; later attempts are answered ok.
"""

import json
import os
import signal
import socket
import sys

MODE, ARGUMENT = sys.argv[1], (sys.argv[2:] or [None])[0]
HELLO = b'{"t":"hello","protocol":1}\n'


def forever():
    while True:
        signal.pause()


def hang(sock, job):
    """An endless loop that ignores SIGTERM, with a child that does too; their pids are written to ARGUMENT."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        forever()
    with open(ARGUMENT, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()} {child}\n")
    while True:
        pass


def flood(sock, job):
    """100 MB on stderr."""
    line = b"x" * 99 + b"\n"
    for _ in range(1000):
        chunk = memoryview(line * 1000)
        while chunk:
            chunk = chunk[os.write(2, chunk):]
    answer(sock, job)


def half_line(sock, job):
    sock.sendall(b'{"t":"ok","id":')
    sys.exit(0)


def half_line_and_stay(sock, job):
    sock.sendall(b'{"t":"ok","id":')
    sock.shutdown(socket.SHUT_RDWR)
    forever()


def keep_frame(sock, job):
    """The bytes as they came, to ARGUMENT."""
    with open(ARGUMENT, "wb") as file:
        file.write(job["line"])
    answer(sock, job)


def answer(sock, job):
    sock.sendall(b'{"t":"ok","id":%d}\n' % job["id"])


def say(data):
    def send(sock, job):
        sock.sendall(data.replace(b"ID", b"%d" % job["id"]))
        forever()
    return send


DEEDS = {
    "hang": hang,
    "flood": flood,
    "half-line": half_line,
    "half-line-and-stay": half_line_and_stay,
    "keep-frame": keep_frame,
    "text": say(b"hello, this is no JSON\n"),
    "binary": say(bytes(range(256)) + b"\n"),
    "array": say(b'["t","ok"]\n'),
    "no-type": say(b'{"id":ID}\n'),
    "unknown-type": say(b'{"t":"done","id":ID}\n'),
    "no-id": say(b'{"t":"ok"}\n'),
    "foreign-id": say(b'{"t":"ok","id":999999}\n'),
    "answers-twice": say(b'{"t":"ok","id":ID}\n{"t":"ok","id":ID}\n'),
    "second-hello": say(HELLO),
    "a-job": say(b'{"t":"job","id":ID}\n'),
    "bad-result": say(b'{"t":"ok","id":ID,"result":{]}\n'),
    "long-line": say(b'{"t":"ok","id":ID,"result":"' + b"x" * (5 << 20) + b'"}\n'),
    "endless-line": say(b"x" * (5 << 20)),
}


def main():
    sock = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
    if MODE == "silent":
        forever()
    if MODE == "wrong-protocol":
        sock.sendall(b'{"t":"hello","protocol":7}\n')
        forever()
    sock.sendall(HELLO)
    for line in sock.makefile("rb"):
        job = json.loads(line)
        if job["t"] == "stop":
            return
        if job["t"] != "job":
            continue
        job["line"] = line
        if job["attempt"] == 1:
            try:
                DEEDS[MODE](sock, job)
            except BrokenPipeError:
                forever()
        else:
            answer(sock, job)


main()
