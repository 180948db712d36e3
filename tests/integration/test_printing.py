"""What reaches a terminal or the log: no text of a job, a worker, a row or an argument can steer it, hide something there or
turn its order round. JSON stays JSON, and says the same."""

import json
import os
import subprocess

import pytest

from harness.daemon import clean_environment
from harness.waiting import wait_for

HIDDEN = [*range(1, 0x20), *range(0x7f, 0xa0), 0xad, 0x61c, *range(0x200b, 0x2010), *range(0x2028, 0x202f), *range(0x2060, 0x2070),
          0xfeff, 0xe0041]
MEAN = "\x1b[31m\x9b2J\x85\x7f\n\r\b\x07\u202e\u2066\u200e\u061c\u200b\u2028\u2029\ufeff é"
SHORT = "m\x9b\u202e\u2028\x1b\x7f"  # where 128 bytes are the most
ARGUMENT = SHORT.replace("\x1b", "")
CRON = "c\u202e\u2028"  # has no control characters


def check(output, lines_of_its_own=True):
    """bytes that may be shown: UTF-8, and nothing of HIDDEN but the program's own line ends."""
    text = output.decode("utf-8")
    wrong = sorted({f"U+{ord(c):04X}" for c in text if ord(c) in HIDDEN and not (lines_of_its_own and c == "\n")})
    assert wrong == [], f"{wrong} in {text!r}"
    return text


@pytest.fixture
def run(jobqd_program, db):
    """A command, as bytes; its stdout and stderr are checked. Returns its stdout."""
    def command(*args, code=0, database=True):
        done = subprocess.run([jobqd_program, *args, *(["--database", db.uri] if database else [])], capture_output=True,
                              timeout=120, env=clean_environment())
        said = check(done.stderr)
        assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout!r}\n{said}"
        if "--json" in args and done.stdout:
            json.loads(done.stdout)
        return check(done.stdout)
    return command


@pytest.fixture
def mean_rows(db):
    """Each text column of each table holds a mean text."""
    entry = {"attempt": MEAN, "at": MEAN, "kind": MEAN, "error": MEAN, "detail": MEAN, "output": MEAN, "node": MEAN, "signal": MEAN,
             "claimed_at": MEAN, "discarded": MEAN, MEAN: MEAN}
    job, gone = [db.value("INSERT INTO jobq.jobs (kind, queue, args, meta, tags, key, unique_key, errors, state, scheduled_at) VALUES"
                          " (%s, %s, %s, %s, %s, %s, %s, %s, 'scheduled', now() + interval '1 hour') RETURNING id",
                          (SHORT, SHORT, json.dumps({MEAN: MEAN}), json.dumps({MEAN: [MEAN]}), [SHORT], SHORT, SHORT + str(n),
                           json.dumps([entry]))) for n in range(2)]
    db.query("SELECT jobq.cancel(%s)", (gone,))
    db.query("UPDATE jobq.finished_jobs SET result = to_jsonb(%s::text), errors = %s", (MEAN, json.dumps([entry])))
    db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues, upgrade) VALUES"
             " (%s, %s, 1, 1, %s, now() + interval '1 hour', %s, %s)",
             (SHORT, MEAN, MEAN, json.dumps({SHORT: {"wanted": 1, "ready": 0, "busy": 0, "restarts": 0, "crashes": 0}}),
              json.dumps({"error": MEAN, "at": MEAN, "from": MEAN})))
    db.query("INSERT INTO jobq.queues (name, paused) VALUES (%s, true)", (SHORT,))
    db.query("INSERT INTO jobq.queue_nodes (queue, node, paused) VALUES (%s, %s, true)", (SHORT, SHORT))
    db.query("SELECT jobq.cron_set(%s, '0 3 * * *', %s, %s::jsonb, queue => %s)", (CRON, CRON, json.dumps({"a": MEAN}), CRON))
    db.query("UPDATE jobq.crons SET error = %s", (MEAN,))
    db.query("UPDATE jobq.schema_version SET name = %s WHERE version = 1", (MEAN,))
    return job, gone


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_row_reaches_a_terminal_as_it_is(db, run, mean_rows, form):
    more = ["--json"] if form == "json" else []
    job, gone = map(str, mean_rows)
    for args in (["jobs"], ["job", job], ["job", gone], ["queues"], ["queues", "--history"], ["cron"], ["migrate", "status"]):
        said = run(*args, *more)
        # All of it is still there to be seen.
        assert "\\u009b" in said and "\\u202e" in said, said
    run("doctor", *more, code=None)
    if form == "json":
        jobs = json.loads(run("jobs", "--json"))
        assert {j["kind"] for j in jobs} == {SHORT} and jobs[0]["args"] == {MEAN: MEAN}
        assert json.loads(run("job", job, "--json"))["errors"][0]["output"] == MEAN
    for args in (["upgrade", "--node", "other"], ["retry", job], ["cancel", job], ["pause", ARGUMENT], ["resume", ARGUMENT],
                 ["scale", ARGUMENT, "3"], ["pause", ARGUMENT, "--node", ARGUMENT], ["cron", "pause", ARGUMENT], ["cron", "run", CRON],
                 ["cron", "delete", CRON], ["cancel", "--kind", ARGUMENT], ["delete", job, "--yes"]):
        run(*args, *more, code=None)


ARGUMENTS = [
    (["jobs", "--state", ARGUMENT], True), (["jobs", "--args", ARGUMENT], True), (["jobs", "--before", ARGUMENT], True),
    (["jobs", "--limit", ARGUMENT], True), (["job", ARGUMENT], True), (["cancel", ARGUMENT], True), (["retry", ARGUMENT], True),
    (["enqueue", ARGUMENT * 20], True), (["enqueue", "kind", ARGUMENT], True), (["enqueue", "kind", "--at", ARGUMENT], True),
    (["enqueue", "kind", "--in", ARGUMENT], True), (["pause", ARGUMENT * 20], True), (["scale", "q", ARGUMENT], True),
    (["cron", "next", ARGUMENT], False), (["cron", "next", "@daily", "--timezone", ARGUMENT], False),
    (["cron", "next", "@daily", "--from", ARGUMENT], False), (["cron", ARGUMENT], False),
    (["cron", "set", ARGUMENT, "--schedule", ARGUMENT, "--kind", "k"], True), (["cron", "delete", ARGUMENT], True), ([ARGUMENT], False),
    (["--" + ARGUMENT], False), (["jobs", "--" + ARGUMENT], True), (["jobs", ARGUMENT], True), (["doctor", "--held", ARGUMENT], True),
    (["config", ARGUMENT], False), (["config", "check", "-c", "/nowhere/" + ARGUMENT], False), (["run", "-c", "/nowhere/" + ARGUMENT], False),
    (["config", "check", "--node", ARGUMENT], False), (["config", "check", "--lease", ARGUMENT], False),
    (["config", "check", "--database", "postgresql://" + ARGUMENT], False), (["jobs", "--database", "host=" + ARGUMENT], False),
    (["jobs", "--schema", ARGUMENT], False), (["config", "check", "--embedded", "/tmp/" + ARGUMENT], False),
    (["migrate", "up", ARGUMENT], True), (["upgrade", "--node", ARGUMENT], True), (["bench", ARGUMENT], False),
    (["bench", "drain", "--" + ARGUMENT], False), (["bench", "drain", "--jobs", ARGUMENT], False),
]


@pytest.mark.parametrize("args, database", ARGUMENTS, ids=lambda value: ascii(value)[:60])
def test_no_argument_reaches_a_terminal_as_it_is(run, args, database):
    """What a command says of what it was given may be copied from anywhere."""
    run(*args, code=None, database=database)


def test_nothing_of_a_configuration_does(run, tmp_path):
    """Its values are printed, and read back: what cannot be shown is refused where it stands."""
    conf = tmp_path / "jobqd.conf"
    texts = [f"[queue {SHORT}]\nexec = /bin/true\n", f"[queue a]\nexec = /bin/{SHORT}\n", f"[queue a]\nexec = /bin/true\nenv = 'A={SHORT}'\n",
             f"[queue a]\nexec = /bin/true {SHORT}\n", f"[{SHORT}]\n", f"[jobqd]\n{SHORT} = 1\n", f"[jobqd]\nlease = {SHORT}\n",
             f"[jobqd]\nembedded = /tmp/{SHORT}\n", f"[jobqd]\ndatabase = postgresql://h/{SHORT}\n", f"{SHORT}\n",
             f"[cron a]\nschedule = @daily\nkind = {SHORT}\n", f"[cron a]\nschedule = {SHORT}\nkind = k\n",
             f'[cron a]\nschedule = @daily\nkind = k\nargs = {{"a": "{ARGUMENT}"}}\n']
    for text in texts:
        conf.write_text(text)
        for args in (["config", "check"], ["config", "print"], ["config", "print", "--json"]):
            run(*args, "-c", str(conf), code=os.EX_CONFIG, database=False)
        run("doctor", "-c", str(conf), code=None, database=False)
    conf.write_bytes(b"[queue a]\nexec = /bin/true\nkeep_count = 1 ; r\xc3\xa9sum\xc3\xa9\n")
    assert "keep_count = 1" in run("config", "print", "-c", str(conf), database=False)


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_a_worker_says_reaches_the_log_as_it_is(db, jobqd, programs, tmp_path, form):
    """Neither the characters nor bytes that are none: by its output, its answer, and the names of its job."""
    program = tmp_path / "mean.py"
    program.write_text("#!/usr/bin/python3\nimport sys\n"
                       f"for c in {HIDDEN}:\n    sys.stdout.buffer.write(b'<' + chr(c).encode() + b'>')\n"
                       "sys.stdout.buffer.write(b'\\n' + bytes(range(0x80, 0x100)) + b'end\\n')\nsys.exit(1)\n")
    program.chmod(0o755)
    node = jobqd(db, {"default": {"exec": program, "concurrency": 1}, "worker": {"command": programs("fault_worker")}}, log_format=form,
                 log_level="debug")
    db.enqueue(SHORT, json.dumps({"a": MEAN}), max_attempts=1)
    db.enqueue("fail", json.dumps({"error": MEAN, "detail": MEAN}), queue="worker", max_attempts=1)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, what=db.states)
    node.wait_log("end")
    assert node.stop() == 0
    text = check(node.logfile.read_bytes())
    said = "\n".join(json.loads(line)["message"] for line in text.splitlines()) if form == "json" else text
    shown = {"text": ["<\\x1b>", "<\\x7f>", "<\\u0080>", "<\\u202e>", "\\x80\\x81", "\\xff"], "json": ["<\x1b>", "<\x7f>", "<\x80>", "<\u202e>", "\\x80\\x81", "\\xff"]}
    for piece in shown[form]:
        assert piece in said, piece


JOINED = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937 \U0001f468\u200d\U0001f469\u200d\U0001f467"


def test_words_that_join_letters_are_allowed_in_a_crons_json(cli, tmp_path):
    """Persian, Hindi, a family of emoji. Elsewhere, and of the other characters that are not shown, none."""
    conf = tmp_path / "jobqd.conf"

    def check(option, text, code=0):
        conf.write_text(f"[cron c]\nschedule = @daily\nkind = k\n{option} = {text}\n", encoding="utf-8")
        return cli("config", "check", "-c", conf, code=code)
    for option in ("args", "meta"):
        text = json.dumps({"a": JOINED}, ensure_ascii=False)
        check(option, text)
        printed = cli("config", "print", "-c", conf).stdout
        assert json.loads(next(line for line in printed.splitlines() if line.startswith(f"{option} =")).partition("=")[2]) == {"a": JOINED}
        said = check(option, '{"a": "\u200d\u202ex"}', code=78).stderr
        assert "byte 11 of the value is \\u202e: control characters and invisible characters are not allowed" in said
        assert "\\u200b" in check(option, '{"a": "\u200b"}', code=78).stderr
    assert "\\u200d" in check("queue", "a\u200d", code=78).stderr
