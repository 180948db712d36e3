"""Each way in which an attempt fails, or a job ends without success, with what is to be told of it."""

import json

# What is enqueued: kind, args, further columns; what the line says: level, state, attempt, error kind, error; who: a worker is named.
ENDS = {
    "an error": (("fail", {"error": "smtp said no", "retry_in_ms": 3_600_000}, {}),
                 ("WARNING", "retryable", 1, "error", "smtp said no", True)),
    "an error, the last": (("fail", {"error": "smtp said no"}, {"max_attempts": 1}),
                           ("ERROR", "discarded", 1, "error", "smtp said no", True)),
    "a discard": (("discard", {"error": "no such user"}, {}), ("ERROR", "discarded", 1, "error", "no such user", True)),
    "a crash": (("segfault", {}, {}), ("WARNING", "retryable", 1, "crash", "killed by signal 11 (SIGSEGV)", True)),
    "a timeout": (("sleep", {"ms": 60_000}, {"timeout_ms": 200}),
                  ("WARNING", "retryable", 1, "timeout", "ran longer than its timeout of 200 ms", True)),
    "bad protocol": (("garbage", {"error": "hm\n"}, {}), ("WARNING", "retryable", 1, "protocol", "", True)),
    "an unhandled kind": (("none", {}, {}), ("WARNING", "retryable", 1, "unhandled", "no handler for kind", False)),
    "a rescue": (("orphan", {}, {}), ("WARNING", "available", 1, "orphaned", "node dead died while it held the job", False)),
    "a rescue, the last": (("orphan", {}, {"max_attempts": 1}),
                           ("ERROR", "discarded", 1, "orphaned", "node dead died while it held the job", False)),
    "an expiry": (("ok", {}, {"queue": "idle"}), ("WARNING", "cancelled", 0, "expired", "not started by ", False)),
}


def put(db, kind, args, columns):
    columns = {"kind": kind, "args": json.dumps(args), **columns}
    if kind == "orphan":
        node = db.value("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at)"
                        " VALUES ('dead', 'elsewhere', 1, 1, '0', now()) ON CONFLICT (name) DO UPDATE SET pid = 1 RETURNING id")
        # To a queue that nobody serves: it stays as the lifeline left it.
        columns.update(queue="idle", state="executing", attempt=1, attempted_by=node, attempted_at="now")
    if columns.get("queue") == "idle" and kind == "ok":
        columns["expires_at"] = "now"
    names = ", ".join(columns)
    with db.connect() as conn:
        conn.execute("SET session_replication_role = replica" if kind == "orphan" else "SELECT 1")
        return conn.execute(f"INSERT INTO jobq.jobs ({names}) VALUES ({', '.join(['%s'] * len(columns))}) RETURNING id",
                            list(columns.values())).fetchone()[0]
