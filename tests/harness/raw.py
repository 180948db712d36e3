"""A worker in Python that speaks the protocol by hand, for what libjobq would not let through."""

import sys

HEAD = """#!/usr/bin/python3
import json, os, socket
sock = socket.socket(fileno=int(os.environ["JOBQ_FD"]))
read = sock.makefile("rb")
sock.sendall(b'{"t":"hello","protocol":1}\\n')
for line in read:
    told = json.loads(line)
    if told["t"] == "stop":
        break
    if told["t"] == "job":
        id, args = told["id"], told["args"]
"""


def raw_worker(folder, job):
    """Its command. job: lines of Python that answer a job by sock.sendall(), from its `id`, its `args` and all of it, `told`."""
    path = folder / "raw_worker.py"
    path.write_text(HEAD + "".join(f"        {line}\n" for line in job.strip("\n").split("\n")))
    path.chmod(0o755)
    folder.chmod(0o755)
    return f"{sys.executable} {path}"
