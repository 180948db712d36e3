"""jobqd's commands: what they print, what they leave in the database, and what a user is told who got one wrong."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import tempfile

import pytest

BIG = '{"a": 123456789012345678, "b": 0.1, "c": 1e400}'


def jobs_of(cli, db, *args):
    return json.loads(cli("jobs", "--json", *args, db=db).stdout)


# ---- migrate ----

def test_migrate_up_status_down(cli, empty_db):
    assert "has version 0, this jobqd needs" in cli("migrate", "status", db=empty_db).stdout
    steps = cli("migrate", db=empty_db).stdout.splitlines()
    assert steps == ["0001 schema: applied"]
    latest = len(steps)
    assert cli("migrate", "up", db=empty_db).stdout == f"schema jobq has version {latest}: nothing to do\n"
    status = json.loads(cli("migrate", "status", "--json", db=empty_db).stdout)
    assert status["version"] == status["needs"] == latest
    assert all(m["applied_at"] for m in status["migrations"])
    assert cli("migrate", "down", db=empty_db).stdout.endswith(": reverted\n")
    assert json.loads(cli("migrate", "status", "--json", db=empty_db).stdout)["version"] == latest - 1
    cli("migrate", "down", "0", db=empty_db)
    assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 0
    assert empty_db.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'jobs%%'") == 0
    cli("migrate", "up", "1", db=empty_db)
    assert json.loads(cli("migrate", "status", "--json", db=empty_db).stdout)["version"] == 1


def test_every_step_can_be_taken_back_and_repeated(cli, empty_db, jobqd_next):
    for version in (1, 2):
        cli("migrate", "up", version, db=empty_db, program=jobqd_next)
        cli("migrate", "down", version - 1, db=empty_db, program=jobqd_next)
        cli("migrate", "up", version, db=empty_db, program=jobqd_next)


def test_many_that_migrate_at_once_do_each_step_once(cli, empty_db, jobqd_next):
    with empty_db.connect() as conn:
        conn.execute(f"ALTER DATABASE {empty_db.name} SET default_transaction_isolation = 'serializable'")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: json.loads(cli("migrate", "--json", db=empty_db, program=jobqd_next).stdout)["steps"],
                             range(4)))
    assert sorted(step["version"] for steps in runs for step in steps) == [1, 2]


def test_the_printed_script_makes_the_same_schema(cli, empty_db):
    script = cli("migrate", "print").stdout
    with empty_db.connect() as conn:
        result = conn.pgconn.exec_(script.replace("\\set ON_ERROR_STOP on", "").encode())
        assert not result.error_message, result.error_message
    assert "nothing to do" in cli("migrate", "up", db=empty_db).stdout
    cli("enqueue", "k", db=empty_db)


def test_another_schema_changes_it_everywhere(cli, empty_db):
    """A reserved word, to show that the name is quoted."""
    cli("migrate", "--schema", "order", db=empty_db)
    id = cli("enqueue", "k", "--schema", "order", db=empty_db).stdout.strip()
    assert json.loads(cli("job", id, "--schema", "order", "--json", db=empty_db).stdout)["kind"] == "k"
    cli("queues", "--history", "--schema", "order", db=empty_db)
    cli("cancel", id, "--schema", "order", db=empty_db)
    assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 0
    cli("migrate", "down", "0", "--schema", "order", db=empty_db)
    assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'order'") == 0


def test_down_refuses_to_lose_live_jobs(cli, db):
    cli("enqueue", "k", db=db)
    done = cli("migrate", "down", "0", db=db, code=65)
    assert done.stderr == ("jobqd migrate: schema jobq holds 1 live job that would be lost: let them finish or cancel them first, or "
                           "give --force\n")
    assert db.value("SELECT count(*) FROM jobq.jobs") == 1
    cli("migrate", "down", "0", "--force", db=db)


def test_down_leaves_what_is_the_users_own(cli, db):
    with db.connect() as conn:
        conn.execute("CREATE TABLE jobq.mine ()")
    cli("migrate", "down", "0", db=db)
    assert db.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'") == 1
    assert db.value("SELECT count(*) FROM pg_class WHERE relname = 'schema_version'") == 0


def test_a_schema_that_is_missing_older_or_newer(cli, db, empty_db, jobqd_next):
    latest = json.loads(cli("version", "--json").stdout)["schema"]
    assert cli("jobs", db=empty_db, code=78).stderr == (
        "jobqd jobs: schema jobq is missing in this database: run `jobqd migrate up`\n")
    db.set_version(999)
    assert cli("jobs", db=db, code=78).stderr == (
        f"jobqd jobs: schema jobq has version 999, this jobqd supports up to version {latest}: install a newer jobqd, or run "
        f"`jobqd migrate down {latest}` with the jobqd that made it\n")
    db.set_version(latest)
    assert cli("queues", db=db, code=78, program=jobqd_next).stderr == (
        f"jobqd queues: schema jobq has version {latest}, this jobqd needs version {latest + 1}: run `jobqd migrate up`\n")


# ---- enqueue ----

def test_enqueue_sets_what_was_given(cli, db):
    id = int(cli("enqueue", "resize", '{"n": 1}', "--queue", "mail", "--priority", 3, "--max-attempts", 7, "--key", "k",
                 "--unique", "u", "--tags", "a,b", "--meta", '{"m": 2}', "--timeout", "1m30s", "--in", "5m",
                 db=db).stdout)
    row = db.query("SELECT id, state::text, queue, priority, max_attempts, key, unique_key, tags, args, meta, timeout_ms, "
                   "round(extract(epoch FROM scheduled_at - inserted_at)) FROM jobq.jobs")
    assert [tuple(r) for r in row] == [
        (id, "scheduled", "mail", 3, 7, "k", "u", ["a", "b"], {"n": 1}, {"m": 2}, 90000, 300)]
    again = cli("enqueue", "resize", "--unique", "u", "--json", db=db).stdout
    assert json.loads(again) == {"id": id, "conflict": "existing"}
    assert db.value("SELECT count(*) FROM jobq.jobs") == 1


def test_enqueue_has_the_defaults_of_the_sql_function(cli, db):
    cli("enqueue", "k", db=db)
    with db.connect() as conn:
        conn.execute("SELECT jobq.enqueue('k')")
    rows = db.query("SELECT state, queue, kind, args, meta, tags, priority, attempt, max_attempts, errors, key, unique_key, "
                    "timeout_ms, scheduled_at = inserted_at FROM jobq.jobs")
    assert rows[0] == rows[1]


def test_enqueue_at_a_time(cli, db):
    cli("enqueue", "k", "--at", "2099-11-22T10:11:12+01:00", db=db)
    assert db.value("SELECT to_char(scheduled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM jobq.jobs") == (
        "2099-11-22 09:11:12")


def test_lines_are_enqueued_in_one_transaction(cli, db):
    lines = "".join(f'{{"kind": "k", "args": {{"n": {n}}}, "queue": "q{n % 3}"}}\n\n' for n in range(2500))
    ids = cli("enqueue", "-", input=lines, db=db).stdout.split()
    assert len(ids) == len(set(ids)) == 2500
    assert db.value("SELECT count(DISTINCT xmin::text) FROM jobq.jobs") == 1
    assert db.query("SELECT args ->> 'n', queue FROM jobq.jobs WHERE id = %s", (int(ids[2400]),)) == [("2400", "q0")]
    assert cli("enqueue", "-", input="", db=db).stdout == ""
    assert json.loads(cli("enqueue", "-", "--json", input='{"kind":"k"}', db=db).stdout)["ids"]


BAD_LINES = [
    ("{", "line 3: the job: expected a member's name in quotes at byte 2, found the end; nothing was enqueued\n"),
    ('{"kind": "k"} x', "line 3: the job: expected the end at byte 15, found 'x'; nothing was enqueued\n"),
    ("[]", "line 3: the job must be a JSON object, got []; nothing was enqueued\n"),
    ('{"kind": 7}', "line 3: kind must be text of 1 to 128 bytes, got 7; nothing was enqueued\n"),
    ("{}", "line 3: kind is missing; nothing was enqueued\n"),
    ('{"kind": "k", "priority": 10}', "line 3: priority must be 0 to 9, got 10; nothing was enqueued\n"),
    ('{"kind": "k", "args": [1]}', "line 3: args must be a JSON object, got [1]; nothing was enqueued\n"),
    ('{"kind": "k", "scheduled_at": "soon"}',
     'line 3: scheduled_at must be null or a finite time, got "soon"; nothing was enqueued\n'),
    ('{"kind": "k", "color": "red"}',
     'line 3: has an unknown key "color": allowed are kind, args, queue, priority, scheduled_at, max_attempts, key, '
     'unique_key, tags, meta, timeout_ms, unique_by, on_conflict, replace and expires_at; nothing was enqueued\n'),
]


@pytest.mark.parametrize("line,message", BAD_LINES)
def test_one_wrong_line_and_nothing_is_enqueued(cli, db, line, message):
    done = cli("enqueue", "-", input='{"kind": "k"}\n\n' + line + '\n{"kind": "k"}\n', db=db, code=65)
    assert done.stdout == ""
    assert done.stderr == "jobqd enqueue: " + message
    assert db.value("SELECT count(*) FROM jobq.jobs") == 0


def test_input_that_is_no_utf8(cli, db, jobqd_program):
    done = subprocess.run([jobqd_program, "enqueue", "-", "--database", db.uri], input=b'{"kind": "k\xff"}\n',
                          capture_output=True)
    assert done.returncode == 65 and done.stderr.startswith(b"jobqd enqueue: line 1: ")
    done = subprocess.run([jobqd_program, "enqueue", b"k\xff", "--database", db.uri], capture_output=True)
    assert done.returncode == 64 and done.stderr == b"jobqd enqueue: argument 1 is not UTF-8: its byte 2 is 0xFF\n"
    assert db.states() == {}


def test_a_wrong_line_in_a_later_batch(cli, db):
    lines = '{"kind": "k"}\n' * 2100 + '{"kind": ""}\n'
    done = cli("enqueue", "-", input=lines, db=db, code=65)
    assert done.stderr == 'jobqd enqueue: line 2101: kind must be text of 1 to 128 bytes, got ""; nothing was enqueued\n'
    assert db.value("SELECT count(*) FROM jobq.jobs") == 0


# ---- jobs and job ----

def test_numbers_keep_their_digits(cli, db):
    id = cli("enqueue", "k", BIG, db=db).stdout.strip()
    for text in (cli("job", id, "--json", db=db).stdout, cli("job", id, db=db).stdout,
                 cli("jobs", "--json", db=db).stdout):
        assert '"a": 123456789012345678' in text
        assert '"b": 0.1' in text
    line = '{"kind": "k", "args": ' + BIG + "}"
    id = cli("enqueue", "-", input=line, db=db).stdout.strip()
    assert '{"a": 123456789012345678, "b": 0.1, "c": 1' in cli("job", id, "--json", db=db).stdout


def test_jobs_filters(cli, db):
    for kind, queue in (("a", "x"), ("a", "y"), ("b", "x")):
        cli("enqueue", kind, "--queue", queue, db=db)
    cli("cancel", 1, db=db)
    assert [j["id"] for j in jobs_of(cli, db)] == [3, 2, 1]
    assert [j["id"] for j in jobs_of(cli, db, "--kind", "a")] == [2, 1]
    assert [j["id"] for j in jobs_of(cli, db, "--queue", "x")] == [3, 1]
    assert [j["id"] for j in jobs_of(cli, db, "--state", "cancelled")] == [1]
    assert [j["id"] for j in jobs_of(cli, db, "--state", "available", "--kind", "a")] == [2]
    assert [j["id"] for j in jobs_of(cli, db, "--limit", "1")] == [3]
    assert jobs_of(cli, db, "--kind", "none") == []
    table = cli("jobs", db=db).stdout.splitlines()
    assert table[0].split() == ["ID", "STATE", "QUEUE", "KIND", "ATTEMPT", "AT", "LAST", "ERROR"]
    assert table[1].split()[:5] == ["3", "available", "x", "b", "0/20"]


def test_a_jobs_text_cannot_paint_the_screen(cli, db):
    cli("enqueue", "k\x1b[31m\nx", db=db)
    table = cli("jobs", db=db).stdout
    assert "\x1b" not in table and "k\\x1b[31m\\nx" in table
    assert len(table.splitlines()) == 2


def test_job_tells_the_story_attempt_by_attempt(cli, db):
    cli("enqueue", "k", db=db)
    errors = [{"attempt": 1, "at": "2026-11-22T10:00:00Z", "kind": "error", "error": "no route", "detail": "a\nb"},
              {"attempt": 2, "at": "2026-11-22T10:01:00Z", "kind": "crash", "error": "signal 11", "signal": 11,
               "output": "last\nwords\n"}]
    with db.connect() as conn:
        conn.execute("UPDATE jobq.jobs SET errors = %s::jsonb, attempt = 2", (json.dumps(errors),))
    text = cli("job", 1, db=db).stdout
    assert text[text.index("errors"):] == (
        "errors\n"
        "  attempt 1  2026-11-22T10:00:00Z  error: no route\n"
        "    detail:\n"
        "      a\n"
        "      b\n"
        "  attempt 2  2026-11-22T10:01:00Z  crash: signal 11\n"
        "    output:\n"
        "      last\n"
        "      words\n"
        "\n"
        "    more:\n"
        '      {"signal": 11}\n')
    assert json.loads(cli("job", 1, "--json", db=db).stdout)["errors"] == errors
    assert "crash: signal 11" in cli("jobs", db=db).stdout


def test_job_says_where_an_attempt_ran_how_it_ended_and_what_it_used(cli, db):
    cli("enqueue", "k", db=db)
    errors = [{"attempt": 1, "at": "2026-11-22T10:00:01Z", "kind": "crash", "error": "was killed", "node": "web-1",
               "claimed_at": "2026-11-22T10:00:00Z", "signal": "SIGKILL", "run_ms": 1204, "cpu_ms": 810, "max_rss_kb": 14541,
               "output": "last words", "discarded": "crashed 3 workers", "own": 1},
              {"attempt": 2, "at": "2026-11-22T10:01:00Z", "kind": "orphaned", "error": "node web-1 died while it held the job",
               "node": "web-1", "cancelled": "by request", "exit_code": 3, "run_ms": 12}]
    with db.connect() as conn:
        conn.execute("UPDATE jobq.jobs SET errors = %s::jsonb, attempt = 2", (json.dumps(errors),))
    text = cli("job", 1, db=db).stdout
    assert text[text.index("errors"):] == (
        "errors\n"
        "  attempt 1  2026-11-22T10:00:01Z  crash: was killed\n"
        "    on web-1, claimed 2026-11-22T10:00:00Z, ran 1.204 s, SIGKILL, cpu 810 ms, memory 14.2 MiB\n"
        "    output:\n"
        "      last words\n"
        "    discarded as poison: crashed 3 workers; a retry by hand begins a new count\n"
        "    more:\n"
        '      {"own": 1}\n'
        "  attempt 2  2026-11-22T10:01:00Z  orphaned: node web-1 died while it held the job\n"
        "    on web-1, ran 12 ms, exit status 3\n"
        "    cancelled by request\n")


def test_cancel_and_retry(cli, db):
    for _ in range(3):
        cli("enqueue", "k", db=db)
    done = cli("cancel", 1, 77, 2, db=db, code=66)
    assert done.stdout == "job 1: cancelled\njob 2: cancelled\n"
    assert done.stderr == "jobqd cancel: no job has the id 77\n"
    assert cli("cancel", 1, db=db, code=65).stderr == "jobqd cancel: job 1: cannot cancel it: it is cancelled\n"
    assert json.loads(cli("retry", 1, 2, "--json", db=db).stdout) == {"available": [1, 2]}
    assert cli("retry", 3, db=db, code=65).stderr == "jobqd retry: job 3: cannot retry it: it is available\n"
    assert db.states() == {"available": 3}


def test_cancel_of_a_job_that_runs(cli, db):
    for _ in range(2):
        cli("enqueue", "k", db=db)
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_at = now() WHERE id = 1")
    assert cli("cancel", 1, 2, db=db).stdout == "job 1: running; its node was asked to stop it\njob 2: cancelled\n"
    assert json.loads(cli("cancel", 1, "--json", db=db).stdout) == {"cancelled": [], "stopping": [1]}
    assert re.search(r"^  cancel +asked for at \d{4}-", cli("job", 1, db=db).stdout, re.M)


# ---- queues ----

def test_queues_adds_up_jobs_and_nodes(cli, db):
    for queue in ("a", "a", "b"):
        cli("enqueue", "k", "--queue", queue, db=db)
    cli("enqueue", "k", "--queue", "a", "--in", "1h", db=db)
    cli("cancel", 1, db=db)
    report = {"a": {"wanted": 4, "ready": 3, "busy": 1, "restarts": 2, "crashes": 1, "backing_off": True, "backoff_ms": 1500}}
    with db.connect() as conn:
        for name, lease in (("n1", "1 hour"), ("n2", "1 hour"), ("dead", "-1 hour")):
            conn.execute("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues) "
                         "VALUES (%s, 'h', 1, 1, '0', now() + %s::interval, %s::jsonb)", (name, lease, json.dumps(report)))
    table = [line.split("  ") for line in cli("queues", db=db).stdout.splitlines()]
    assert [c.strip() for c in table[1] if c.strip()] == [
        "a", "2", "6/8", "2", "4", "2", "backs off, 1.5 s", "1", "0", "1", "0", "0"]
    assert [c.strip() for c in table[2] if c.strip()][:3] == ["b", "0", "-"]
    data = json.loads(cli("queues", "--json", "--history", db=db).stdout)
    assert data["queues"][0]["workers"]["wanted"] == 8
    assert data["queues"][0]["states"]["cancelled"] == 1
    assert {n["node"]: n["alive"] for n in data["nodes"]} == {"n1": True, "n2": True, "dead": False}
    done = cli("migrate", "down", db=db, code=65)
    assert "is in use by running nodes (n1, n2)" in done.stderr


# ---- config, version, help ----

def test_config(cli, tmp_path):
    conf = tmp_path / "jobqd.conf"
    conf.write_text("[jobqd]\ndatabase = postgresql://u:secret@h/app\n[queue mail]\nexec = true\n")
    assert cli("config", "-c", conf).stdout == f"{conf}: ok, 1 queue\n"
    printed = cli("config", "print", "-c", conf, "--lease", "20s", env={"JOBQ_NODE": "env-1"})
    assert "database = postgresql://u:****@h/app\n" in printed.stdout
    assert "lease = 20s\n" in printed.stdout and "node = env-1\n" in printed.stdout
    assert "secret" not in printed.stdout + printed.stderr
    data = json.loads(cli("config", "print", "--json", "-c", conf).stdout)
    assert data["queues"]["mail"]["timeout"] == "30m"
    again = tmp_path / "again.conf"
    again.write_text(printed.stdout)
    assert cli("config", "print", "-c", again).stdout == printed.stdout


def test_a_missing_program_matters_only_to_who_would_start_it(cli, db, tmp_path):
    conf = tmp_path / "jobqd.conf"
    conf.write_text(f"[jobqd]\ndatabase = {db.conninfo}\n[queue default]\nexec = ./not-built-yet -x\n")
    assert cli("enqueue", "k", "-c", conf).stdout == "1\n"
    assert "available" in cli("jobs", "-c", conf).stdout
    assert f"exec = {tmp_path}/not-built-yet -x\n" in cli("config", "print", "-c", conf).stdout
    for command in (["run"], ["config", "check"]):
        done = cli(*command, "-c", conf, code=78)
        assert done.stderr.endswith(f"{conf}:4: [queue default] exec: cannot run {tmp_path}/not-built-yet: "
                                    "No such file or directory\n")


@pytest.mark.parametrize("uri", ["postgresql://u:secret@127.0.0.1:1/x", "postgresql://u:secret@/x?foo=1",
                                 "host=/nowhere password=secret", "host=/nowhere password=sec ret",
                                 "host=/nowhere password='secret", "postgresql://u:secret@[::1/x"])
def test_a_password_is_never_shown(cli, uri):
    done = cli("jobs", "--database", uri, code=None)
    assert done.returncode in (64, 69)
    assert "sec" not in done.stdout + done.stderr and done.stderr.startswith("jobqd jobs: ")


@pytest.mark.parametrize("words,env,message", [
    (["pause", "caf\udce9"], {}, "jobqd pause: argument 1 is not UTF-8: its byte 4 is 0xE9\n"),
    (["jobs", "--key", "\udcff"], {}, "jobqd jobs: argument 2 is not UTF-8: its byte 1 is 0xFF\n"),
    (["run", "--node=\udcc0\udc80"], {}, "jobqd run: argument 1 is not UTF-8: its byte 8 is 0xC0\n"),
    (["config", "check"], {"JOBQ_NODE": "\udcfe"}, "jobqd config: JOBQ_NODE: byte 1 of the value, 0xFE, is not UTF-8\n")])
def test_what_is_not_utf8_is_refused(cli, words, env, message):
    done = cli(*words, env=env, code=None)
    assert done.stderr == message and done.returncode in (64, 78)


COMMANDS = ["run", "migrate", "enqueue", "jobs", "job", "cancel", "retry", "delete", "purge", "queues", "pause", "resume", "scale",
            "config", "bench", "version"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(cli, command):
    text = cli(command, "--help").stdout
    assert text.startswith(f"usage: jobqd {command} ")
    assert "--help" in text
    assert command in cli("--help").stdout


def test_version(cli):
    data = json.loads(cli("version", "--json").stdout)
    assert cli("--version").stdout.startswith(f"jobqd {data['version']} (schema {data['schema']}, worker protocol 1, libpq ")


def test_a_full_disk_is_told(cli, jobqd_program):
    with open("/dev/full", "w") as full:
        done = subprocess.run([jobqd_program, "version"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert done.stderr == "jobqd: standard output: No space left on device\n"


USAGE = {
    "job": "usage: jobqd job [OPTION]... ID (see --help)",
    "jobs": "usage: jobqd jobs [OPTION]... (see --help)",
    "enqueue": "usage: jobqd enqueue [OPTION]... KIND [JSON] | - (see --help)",
}
DURATION = ("is not a duration: write whole numbers with ms, s, m, h or d, such as 500ms, 15s or 1h30m, at most 36500d")
# (arguments, exit code, what stderr says)
WRONG = [
    (["frobnicate"], 64, 'jobqd: unknown command "frobnicate"; the commands are run, config, doctor, reload, upgrade, enqueue, jobs, job, cancel, '
                         'retry, delete, purge, queues, pause, resume, scale, cron, migrate, bench, version and help '
                         '(see jobqd --help)'),
    (["job"], 64, "jobqd job: an argument is missing; " + USAGE["job"]),
    (["job", "1", "2"], 64, "jobqd job: unexpected argument 2; " + USAGE["job"]),
    (["job", "x"], 64, 'jobqd job: "x" is not a job id: it must be a number, 1 or more'),
    (["job", "0"], 64, 'jobqd job: "0" is not a job id: it must be a number, 1 or more'),
    (["job", "99999999999999999999"], 64, 'jobqd job: "99999999999999999999" is not a job id: it must be a number, 1 or more'),
    (["job", "7"], 66, "jobqd job: no job has the id 7"),
    (["cancel", "1", "-x"], 64, "jobqd cancel: unknown option -x; usage: jobqd cancel [OPTION]... [ID...] (see "
                                "--help)"),
    (["jobs", "--frob"], 64, "jobqd jobs: unknown option --frob; " + USAGE["jobs"]),
    (["jobs", "--json=yes"], 64, "jobqd jobs: --json takes no argument; " + USAGE["jobs"]),
    (["jobs", "more"], 64, "jobqd jobs: unexpected argument more; " + USAGE["jobs"]),
    (["jobs", "--limit", "0"], 64, 'jobqd jobs: --limit: "0" is not allowed: 1 to 100000'),
    (["jobs", "--limit", "ten"], 64, 'jobqd jobs: --limit: "ten" is not allowed: 1 to 100000'),
    (["jobs", "--state", "done"], 65, 'jobqd jobs: --state: "done" is not allowed: scheduled, available, executing, '
                                      'retryable, suspended, completed, cancelled, discarded'),
    (["jobs", "--schema", "My Jobs"], 64,
     'jobqd jobs: --schema: "My Jobs" is not allowed: 1 to 63 lower-case letters, digits and _, not beginning with a digit or '
     'pg_'),
    (["jobs", "-c", "/nowhere/jobqd.conf"], 78, "jobqd jobs: /nowhere/jobqd.conf: No such file or directory"),
    (["enqueue"], 64, "jobqd enqueue: an argument is missing; " + USAGE["enqueue"]),
    (["enqueue", ""], 65, 'jobqd enqueue: kind must be text of 1 to 128 bytes, got ""'),
    (["enqueue", "k", "{}", "{}"], 64, "jobqd enqueue: unexpected argument {}; " + USAGE["enqueue"]),
    (["enqueue", "k", "--priority", "10"], 64, 'jobqd enqueue: --priority: "10" is not allowed: 0 to 9'),
    (["enqueue", "k", "--max-attempts", "0"], 64, 'jobqd enqueue: --max-attempts: "0" is not allowed: 1 to 1000'),
    (["enqueue", "k", "--in", "soon"], 64, 'jobqd enqueue: --in: "soon" ' + DURATION),
    (["enqueue", "k", "--timeout", "0"], 64, 'jobqd enqueue: --timeout: "0" is not allowed: 1ms to 24d'),
    (["enqueue", "k", "--at", "yesterday-ish"], 65,
     'jobqd enqueue: --at: "yesterday-ish" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["enqueue", "k", "--at", "2026-13-40T00:00:00Z"], 65,
     'jobqd enqueue: --at: "2026-13-40T00:00:00Z" is not a time: write it as 2026-11-22T10:11:12Z'),
    (["enqueue", "k", "--at", "now", "--in", "1s"], 64, "jobqd enqueue: --at and --in exclude each other: give only one"),
    (["enqueue", "k", "--queue", ""], 65, 'jobqd enqueue: queue must be text of 1 to 128 bytes, got ""'),
    (["enqueue", "-", "--queue", "q"], 64, "jobqd enqueue: --queue cannot be used with -: each line has its own"),
    (["enqueue", "-", "{}"], 64, "jobqd enqueue: unexpected argument {} after -"),
    (["migrate", "sideways"], 64, 'jobqd migrate: "sideways" is not allowed: up, down, status, print or grant'),
    (["migrate", "up", "999"], 64, None),
    (["migrate", "up", "--force"], 64, "jobqd migrate: --force is only for down"),
    (["migrate", "up", "--lock-wait", "soon"], 64,
     'jobqd migrate: --lock-wait: "soon" is not a duration: write whole numbers with ms, s, m, h or d, '
     'such as 500ms, 15s or 1h30m, at most 36500d'),
    (["migrate", "down", "--lock-wait", "8d"], 64, 'jobqd migrate: --lock-wait: "8d" is not allowed: 0 to 7d'),
    (["migrate", "status", "--lock-wait", "1s"], 64, "jobqd migrate: --lock-wait is only for up, down and grant"),
    (["migrate", "print", "--json"], 64, "jobqd migrate: print writes SQL: it has no --json"),
    (["config", "show"], 64, 'jobqd config: "show" is not allowed: check, print or man'),
    (["config", "--lease", "1"], 64, 'jobqd config: --lease: "1" is not allowed: 1s to 10m, with a unit (ms, s, m, h, d)'),
]


@pytest.mark.parametrize("args,code,message", WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_wrong_command_line_is_told(cli, db, args, code, message):
    done = cli(*args, code=code, env={"JOBQ_DATABASE": db.uri})
    assert done.stdout == ""
    if message is None:
        latest = json.loads(cli("version", "--json").stdout)["schema"]
        message = f'jobqd migrate: "999" is not a known version: give 1 to {latest}'
    assert done.stderr == message + "\n"
    assert db.states() == {}


BAD_JSON = [
    ("{", ": expected a member's name in quotes at byte 2, found the end"),
    ("{'a': 1}", ": expected a member's name in quotes at byte 2, found '''"),
    ("[1]", " must be a JSON object, got [1]"),
    ('"x"', ' must be a JSON object, got "x"'),
    ("nul", ": expected a value at byte 1, found 'n'"),
    ("", ": expected a value at byte 1, found the end"),
    ('{"a": 1} x', ": expected the end at byte 10, found 'x'"),
    ('{"a": 01}', ": expected no digit after a leading zero at byte 8, found '1'"),
    ('{"a": "\\u0000"}', ": expected no \\u0000, which jsonb cannot hold, at byte 8, found '\\'"),
]


@pytest.mark.parametrize("text,message", BAD_JSON)
def test_args_that_are_no_json_object(cli, db, text, message):
    assert cli("enqueue", "k", text, db=db, code=64).stderr == f"jobqd enqueue: args{message}\n"
    assert cli("enqueue", "k", "--meta", text, db=db, code=64).stderr == f"jobqd enqueue: --meta{message}\n"
    assert db.states() == {}


def test_a_wrong_environment_is_told(cli):
    done = cli("config", env={"JOBQ_LEASE": "soon"}, code=78)
    assert done.stderr == ('jobqd config: JOBQ_LEASE: "soon" is not allowed: 1s to 10m, with a unit (ms, s, m, h, d)\n')


def test_a_connection_string_that_libpq_cannot_read_is_told_before_anything_runs(cli, tmp_path):
    why = 'invalid connection option "nonsense"'
    file = tmp_path / "t.conf"
    file.write_text("[jobqd]\ndatabase = nonsense=1\n")
    for command in ("run", "jobs", "config"):
        assert cli(command, "-c", file, code=78).stderr == f"jobqd {command}: {file}:2: [jobqd] database: {why}\n"
        assert cli(command, "--database", "nonsense=1", code=64).stderr == f"jobqd {command}: --database: {why}\n"
        for name in ("JOBQ_DATABASE", "DATABASE_URL"):
            assert cli(command, env={name: "nonsense=1"}, code=78).stderr == f"jobqd {command}: {name}: {why}\n"


def test_the_database_comes_from_the_environment(cli, db):
    cli("enqueue", "k", env={"DATABASE_URL": db.uri})
    cli("enqueue", "k", env={"DATABASE_URL": "postgresql:///nowhere", "JOBQ_DATABASE": db.uri})
    assert db.states() == {"available": 2}


COMMANDS_OF_ROLES = {
    "jobq_enqueuer": [("enqueue", "k")],
    "jobq_viewer": [("jobs",), ("job", "1"), ("queues",), ("cron", "list")],
    "jobq_operator": [("cancel", "1"), ("retry", "1"), ("delete", "1"), ("purge", "--args", "{}", "--yes"), ("pause", "q"), ("resume", "q"), ("scale", "q", "1"),
                      ("cron", "delete", "c")],
}


@pytest.mark.parametrize("role", COMMANDS_OF_ROLES)
def test_who_may_not_is_told(cli, db, role):
    """And by whom it may be granted; that is enough."""
    with db.connect() as conn:
        conn.execute("DO $$ BEGIN CREATE ROLE nobody_special LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    uri = db.uri.replace("//admin@", "//nobody_special@")
    for command in COMMANDS_OF_ROLES[role]:
        done = cli(*command, "--database", uri, code=77)
        name = " ".join(command[:2] if command[0] == "cron" else command[:1])
        assert done.stderr == f"jobqd {name}: permission denied for schema jobq: as the schema's owner: GRANT {role} TO the role\n"
    db.query(f"GRANT {role} TO nobody_special")
    try:
        for command in COMMANDS_OF_ROLES[role]:
            assert cli(*command, "--database", uri, code=None).returncode != 77
    finally:
        db.query(f"REVOKE {role} FROM nobody_special")


# ---- the embedded database ----

def test_a_command_runs_the_embedded_database_for_its_own_duration(cli):
    with tempfile.TemporaryDirectory(prefix="jobq-test-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # as root, the server runs as another user
        data = pathlib.Path(folder) / "data"
        id = cli("enqueue", "k", "--embedded", data).stdout.strip()
        assert json.loads(cli("job", id, "--embedded", data, "--json").stdout)["state"] == "available"
        assert not (data / "data" / "postmaster.pid").exists()


# ---- the man page ----

def test_the_man_page_names_every_command_and_option(cli):
    page = (pathlib.Path(__file__).resolve().parents[2] / "jobqd" / "jobqd.1.scd").read_text().replace("\\_", "_")
    for command in COMMANDS:
        assert f"\n*{command}*" in page
        for line in cli(command, "--help").stdout.splitlines():
            option = line.strip().split(" ")[0] if line.startswith("      --") else None
            if option and command not in ("run", "config"):
                assert f"*{option}*" in page, f"{command} {option}"
    options = cli("config", "man").stdout.replace("\\_", "_")
    printed = cli("config", "print", env={"JOBQ_DATABASE": "x", "JOBQ_NODE": "n"}).stdout
    for line in printed.splitlines()[1:]:
        assert f"*{line.split(' = ')[0]}* = " in options


def test_the_man_page_names_what_a_worker_finds_in_its_environment():
    root = pathlib.Path(__file__).resolve().parents[2] / "jobqd"
    given = set(re.findall(r'"(JOBQ_[A-Z_]+)', (root / "pool" / "launch.c").read_text()))
    assert given >= {"JOBQ_FD", "JOBQ_JOB_ID", "JOBQ_DEADLINE_MS"}
    page = (root / "jobqd.1.scd").read_text().replace("\\_", "_")
    assert [name for name in sorted(given) if f"*{name}*" not in page] == []
