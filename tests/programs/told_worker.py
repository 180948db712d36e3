#!/usr/bin/python3 -SE
"""A worker, or an exec program, that does what a job's args say, at a moment that the test chooses, and writes each run down
for harness/ledger.py. In Python, byte by byte, so that it can also answer what no library would send.

    told_worker.py LEDGER [CONCURRENCY]

args, all of them optional:

    gate    a path: the job runs until a file is there
    do      how it ends: ok (the default), error, discard, cancel, snooze, crash, raw
    value   the answer's result or error, as it is to stand in the message; of raw: the message in hex, its id left out as @
    ms      error: retry_in_ms; snooze: in_ms
    times   the answer on attempts 1 to this one; ok on later ones
    beat    true: while the job runs it says how far it is, ten times a second

As an exec program it knows gate, do (ok; error: exit 1; discard: exit 65) and times.
"""

import json
import os
import select
import signal
import socket
import sys
import time

GATE_S = 0.005  # how often it looks
BEAT_S = 0.1


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Book:
    """One line, one write: those of several processes never mix."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self.put("W", os.getppid())

    def put(self, what, *numbers):
        words = " ".join(str(number) for number in (os.getpid(), *numbers))
        os.write(self.fd, f"{what} {words} {now_ns()}\n".encode())


def read(text):
    """Numbers stay text: some have more digits than Python converts."""
    return json.loads(text, parse_int=str, parse_float=str)


def told(job):
    return job["args"] if isinstance(job["args"], dict) else {}


def is_open(args):
    return "gate" not in args or os.path.exists(args["gate"])


def answer(job, args):
    """The message that ends the job."""
    last = int(args.get("times", 1 << 30))
    do = args.get("do", "ok") if int(job["attempt"]) <= last else "ok"
    head = f'{{"t":"{do}","id":{job["id"]}'
    value = args.get("value")
    if do == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "raw":
        return bytes.fromhex(value).replace(b"@", str(job["id"]).encode()) + b"\n"
    if do == "ok":
        more = f',"result":{value}' if value is not None and "do" in args else ""
    elif do == "error":
        more = f',"error":{value or chr(34) + "as told" + chr(34)},"retry_in_ms":{args.get("ms", 0)}'
    elif do == "snooze":
        more = f',"in_ms":{args.get("ms", 0)}'
    else:
        more = f',"reason":{value}' if value is not None else ""
    return (head + more + "}\n").encode()


class Worker:
    def __init__(self, book, concurrency):
        self.book = book
        self.channel = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
        self.rest = b""
        self.held = {}
        self.stopping = False
        self.beaten = 0
        more = f',"concurrency":{concurrency}' if concurrency > 1 else ""
        self.channel.sendall(f'{{"t":"hello","protocol":1{more}}}\n'.encode())
        self.most = concurrency

    def listen(self):
        data = self.channel.recv(1 << 20)
        if not data:
            sys.exit(0)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            message = read(line)
            if message["t"] == "job":
                self.held[message["id"]] = [message, False]
            elif message["t"] == "stop":
                self.stopping = True
            elif message["t"] == "cancel" and message["id"] in self.held:
                job, began = self.held.pop(message["id"])
                if began:
                    self.book.put("E", job["id"], job["attempt"])
                self.channel.sendall(f'{{"t":"cancel","id":{job["id"]}}}\n'.encode())

    def begin(self):
        """In order, as many as it may have."""
        for entry in list(self.held.values())[:self.most]:
            job, began = entry
            if not began:
                entry[1] = True
                self.book.put("S", job["id"], job["attempt"])

    def beat(self):
        if time.monotonic() - self.beaten < BEAT_S:
            return
        self.beaten = time.monotonic()
        said = "".join(f'{{"t":"progress","id":{job["id"]},"done":0.5,"note":"{self.beaten}"}}\n'
                       for job, began in self.held.values() if began and told(job).get("beat"))
        self.channel.sendall(said.encode())

    def end(self):
        """All that may end, in one write: they settle in one batch."""
        said = b""
        for job, began in list(self.held.values())[:self.most]:
            if began and is_open(told(job)):
                del self.held[job["id"]]
                self.book.put("E", job["id"], job["attempt"])
                said += answer(job, told(job))
        if said:
            self.channel.sendall(said)
        return bool(said)

    def run(self):
        while not (self.stopping and not self.held):
            if select.select([self.channel], [], [], GATE_S if self.held else None)[0]:
                self.listen()
            self.begin()
            self.beat()
            while self.end():
                self.begin()


def run_once(book):
    job = {"id": os.environ["JOBQ_JOB_ID"], "attempt": os.environ["JOBQ_ATTEMPT"]}
    args = read(sys.stdin.read())
    book.put("S", job["id"], job["attempt"])
    while not is_open(args):
        time.sleep(GATE_S)
    book.put("E", job["id"], job["attempt"])
    fails = int(job["attempt"]) <= int(args.get("times", 1 << 30))
    sys.exit({"error": 1, "discard": 65}.get(args.get("do"), 0) if fails else 0)


def main():
    book = Book(sys.argv[1])
    if "JOBQ_FD" in os.environ:
        Worker(book, int(sys.argv[2]) if len(sys.argv) > 2 else 1).run()
    else:
        run_once(book)


main()
