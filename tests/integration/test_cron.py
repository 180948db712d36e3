"""Periodic jobs: the language of schedules in SQL and C, daylight saving, missed slots, rows set by SQL and by
configuration, and what is refused."""

import datetime
import fcntl
import json
import pathlib
import random
import shutil
import subprocess
import threading
import time
import zoneinfo

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from harness.daemon import clean_environment
from harness.waiting import wait_for

UTC = datetime.timezone.utc


def iso(moment):
    """A timestamptz as `cron next` prints it for UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def sql_times(db, schedule, zone, start, n):
    times, at = [], start
    for _ in range(n):
        at = db.value("SELECT jobq.cron_next(%s, %s, %s)", (schedule, at, zone))
        times.append(iso(at))
    return times


def c_times(cli, schedule, zone, start, n):
    printed = cli("cron", "next", schedule, "--from", start, "--timezone", zone, "-n", n).stdout.split()
    return [iso(datetime.datetime.fromisoformat(line.replace("Z", "+00:00"))) for line in printed]


def refused(db, sql, params=None):
    with pytest.raises(psycopg.Error) as caught:
        db.query(sql, params)
    return caught.value.sqlstate, caught.value.diag.message_primary


def slots(db, name):
    """The slots of the jobs that a cron has enqueued, in order."""
    return [row[0] for row in db.query("SELECT meta ->> 'cron_at' FROM jobq.all_jobs WHERE meta ->> 'cron' = %s ORDER BY 1",
                                       (name,))]


def set_back(db, name, interval):
    """As if the slots of that time had come, and nobody was there."""
    db.query("UPDATE jobq.crons SET next_at = next_at - %s::interval WHERE name = %s", (interval, name))


def fire(db):
    return db.query("SELECT * FROM jobq._cron_fire()")[0]


# ---- schedules ----

DAYLIGHT = [
    # Spring: 02:00 to 03:00 is skipped at 01:00Z. All that was to come then comes at the jump, once.
    ("Europe/Stockholm", "30 2 * * *", "2026-03-28T12:00:00Z",
     ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
    ("Europe/Stockholm", "0,15,30 2 * * *", "2026-03-28T12:00:00Z",
     ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]),
    ("Europe/Stockholm", "30 * * * *", "2026-03-29T00:00:00Z",
     ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]),
    ("Europe/Stockholm", "@hourly", "2026-03-29T00:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]),
    ("Europe/Stockholm", "0 3 * * *", "2026-03-28T12:00:00Z", ["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]),
    # Autumn: 02:00 to 03:00 is shown twice, from 00:00Z and from 01:00Z. The first showing counts.
    ("Europe/Stockholm", "30 2 * * *", "2026-10-24T12:00:00Z",
     ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
    ("Europe/Stockholm", "*/30 * * * *", "2026-10-24T23:45:00Z",
     ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]),
    ("Europe/Stockholm", "* * * * *", "2026-10-25T01:20:00Z", ["2026-10-25T02:00:00Z", "2026-10-25T02:01:00Z"]),
    ("Europe/Stockholm", "@every 30m", "2026-10-25T00:45:00Z", ["2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"]),
    ("America/New_York", "30 2 * * *", "2026-03-08T00:00:00Z", ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]),
    ("America/New_York", "30 1 * * *", "2026-11-01T00:00:00Z", ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]),
    ("America/New_York", "0 0 * * *", "2026-10-31T12:00:00Z", ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]),
    # Half an hour: 02:00 to 02:30 is skipped at 15:30Z, 01:30 to 02:00 is shown twice from 14:30Z.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00:00Z", ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]),
    ("Australia/Lord_Howe", "30 2 * * *", "2026-10-03T00:00:00Z", ["2026-10-03T15:30:00Z", "2026-10-04T15:30:00Z"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00:00Z", ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]),
    ("Australia/Lord_Howe", "*/15 * * * *", "2026-04-04T14:20:00Z",
     ["2026-04-04T14:30:00Z", "2026-04-04T14:45:00Z", "2026-04-04T15:30:00Z"]),
    # The whole of 2011-12-30 is skipped, at 10:00Z.
    ("Pacific/Apia", "0 12 * * *", "2011-12-29T00:00:00Z",
     ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]),
    ("Pacific/Apia", "0 * * * *", "2011-12-30T09:00:00Z", ["2011-12-30T10:00:00Z", "2011-12-30T11:00:00Z"]),
    ("Pacific/Apia", "0 9 30 12 *", "2011-12-01T00:00:00Z", ["2011-12-30T10:00:00Z", "2012-12-29T19:00:00Z"]),
    ("Pacific/Apia", "30 23 30 * *", "2011-12-02T00:00:00Z", ["2011-12-30T10:00:00Z", "2012-01-30T09:30:00Z"]),
]


@pytest.mark.parametrize("zone, schedule, start, expected", DAYLIGHT)
def test_daylight_saving(db, cli, zone, schedule, start, expected):
    assert sql_times(db, schedule, zone, start, len(expected)) == expected
    assert c_times(cli, schedule, zone, start, len(expected)) == expected


def random_field(rng, low, high, names=(), last=()):
    def value():
        if names and rng.random() < 0.2:
            return rng.choice(names)
        return str(rng.randint(low, high))

    def item():
        kind = rng.random()
        if last and kind < 0.15:
            return rng.choice(last)
        if kind < 0.5:
            return value()
        a, b = sorted((rng.randint(low, high), rng.randint(low, high)))
        if kind < 0.65:
            return f"{a}-{b}"
        if kind < 0.8:
            return f"{a}-{b}/{rng.randint(1, high)}"
        return f"*/{rng.randint(1, high)}" if kind < 0.95 else "*"
    if rng.random() < 0.4:
        return "*"
    return ",".join(item() for _ in range(rng.choice((1, 1, 1, 2, 3))))


def random_schedule(rng):
    return " ".join((random_field(rng, 0, 59), random_field(rng, 0, 23), random_field(rng, 1, 31, last=("L", "l")),
                     random_field(rng, 1, 12, ("jan", "FEB", "Mar", "dec")),
                     random_field(rng, 0, 7, ("sun", "MON", "Fri"), ("5L", "friL", "0l", "SUNL", "7L"))))


CHANGES = [  # a zone, and a day when its clocks are set
    ("Europe/Stockholm", "2026-03-29"), ("Europe/Stockholm", "2026-10-25"), ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"), ("Australia/Lord_Howe", "2026-10-04"), ("Australia/Lord_Howe", "2026-04-05"),
    ("Pacific/Apia", "2011-12-30"), ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2018-02-18"),
    ("Africa/Casablanca", "2026-02-15"), ("Africa/Casablanca", "2026-03-22"), ("Asia/Kathmandu", "2026-06-01"),
    ("Antarctica/Troll", "2026-03-29"), ("Antarctica/Troll", "2026-10-25"), ("CET", "2026-03-29"), ("UTC", "2028-02-29"),
    ("America/St_Johns", "2006-10-29"), ("Asia/Pyongyang", "2018-05-04"), ("America/Havana", "2026-11-01"),
    ("Pacific/Kwajalein", "1993-08-21"), ("Europe/Dublin", "2026-10-25"), ("Asia/Gaza", "2023-04-29")]


def test_sql_and_c_agree(db, programs):
    """A few thousand random schedules around the days when clocks are set: the same times, and the same errors."""
    rng = random.Random(20261123)
    cases = []
    for _ in range(4000):
        zone, day = rng.choice(CHANGES)
        start = datetime.datetime.fromisoformat(day).replace(tzinfo=UTC) + datetime.timedelta(seconds=rng.randint(-200000, 200000))
        schedule = random_schedule(rng)
        if rng.random() < 0.2:  # a slip of the pen
            at = rng.randrange(len(schedule))
            schedule = schedule[:at] + rng.choice("*/-,Ll0379azé@#? ") + schedule[at + 1:]
        cases.append((schedule, zone, iso(start)))
    answers = subprocess.run([programs("cron_times")], input="".join("|".join(case) + "\n" for case in cases), text=True,
                             capture_output=True, check=True, timeout=250, env=clean_environment()).stdout.splitlines()
    db.query(NEXT_THREE)
    told = [row[0] for row in db.query("SELECT next_three(c ->> 0, c ->> 1, (c ->> 2)::timestamptz)"
                                       "  FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY e (c, n) ORDER BY n",
                                       (json.dumps(cases),))]
    for case, answer, sql in zip(cases, answers, told, strict=True):
        assert answer == sql.replace("jobq.cron_next: ", ""), case
    assert len(cases) * 0.95 > sum("schedule" not in answer for answer in told) > len(cases) * 0.8


NEXT_THREE = """
    CREATE FUNCTION next_three(schedule text, zone text, at timestamptz) RETURNS text LANGUAGE plpgsql SET timezone = 'UTC' AS $$
    DECLARE
        told text;
    BEGIN
        FOR n IN 1..3 LOOP
            at := jobq.cron_next(schedule, at, zone);
            told := concat_ws(' ', told, to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
        END LOOP;
        RETURN told;
    EXCEPTION WHEN invalid_parameter_value THEN
        RETURN SQLERRM;
    END $$"""

ALLOWED = ("five fields (minute, hour, day of month, month, day of week), @yearly, @annually, @monthly, @weekly, @daily, "
           "@midnight, @hourly, @reboot or @every TIME, such as @every 90s")
LISTS = ", *, ranges a-b, steps */n and a-b/n, lists a,b"
MINUTES, HOURS = "0 to 59" + LISTS, "0 to 23" + LISTS
DAYS, MONTHS = "1 to 31, L (the last day)" + LISTS, "1 to 12, jan to dec" + LISTS
WEEKDAYS = "0 to 7 (0 and 7 are Sunday), sun to sat, 5L or friL (the last Friday)" + LISTS
BAD_SCHEDULES = [
    ("", f"must be {ALLOWED}, got nothing"),
    (" \t", f"must be {ALLOWED}, got nothing"),
    ("* " * 200, f"must be {ALLOWED}, got 400 bytes"),
    ("*", f'"*" has 1 field; allowed are {ALLOWED}'),
    ("* * * *", f'"* * * *" has 4 fields; allowed are {ALLOWED}'),
    ("0 * * * * *", f'"0 * * * * *" has 6 fields; allowed are {ALLOWED}'),
    ("@fortnightly", f'"@fortnightly" is not allowed: {ALLOWED}'),
    ("@hourly 5", f'"@hourly 5" is not allowed: {ALLOWED}'),
    ("@every", f'"@every" is not allowed: {ALLOWED}'),
    ("@every 90", '@every "90" is not allowed: 1s to 366d, with a unit (ms, s, m, h, d)'),
    ("@every 999ms", '@every "999ms" is not allowed: 1s to 366d, with a unit (ms, s, m, h, d)'),
    ("@every 367d", '@every "367d" is not allowed: 1s to 366d, with a unit (ms, s, m, h, d)'),
    ("60 * * * *", f'minute "60" is not allowed: {MINUTES}'),
    ("-1 * * * *", f'minute "-1" is not allowed: {MINUTES}'),
    ("1, * * * *", f'minute "" is not allowed: {MINUTES}'),
    ("L * * * *", f'minute "L" is not allowed: {MINUTES}'),
    ("* 24 * * *", f'hour "24" is not allowed: {HOURS}'),
    ("* 5-3 * * *", 'hour "5-3" is not allowed: a range begins with its lower end'),
    ("* * 0 * *", f'day of month "0" is not allowed: {DAYS}'),
    ("* * 1-32 * *", f'day of month "1-32" is not allowed: {DAYS}'),
    ("* * L-3 * *", f'day of month "L-3" is not allowed: {DAYS}'),
    ("* * 15W * *", f'day of month "15W" is not allowed: {DAYS}'),
    ("* * * 13 *", f'month "13" is not allowed: {MONTHS}'),
    ("* * * january *", f'month "january" is not allowed: {MONTHS}'),
    ("* * * * 8", f'day of week "8" is not allowed: {WEEKDAYS}'),
    ("* * * * L", f'day of week "L" is not allowed: {WEEKDAYS}'),
    ("* * * * 05L", f'day of week "05L" is not allowed: {WEEKDAYS}'),
    ("* * * * mon#2", f'day of week "mon#2" is not allowed: {WEEKDAYS}'),
    ("* * * * sat-mon", 'day of week "sat-mon" is not allowed: a range begins with its lower end'),
    ("*/0 * * * *", 'minute "*/0" is not allowed: a step is 1 to 60'),
    ("*/61 * * * *", 'minute "*/61" is not allowed: a step is 1 to 60'),
    ("* * * * */8", 'day of week "*/8" is not allowed: a step is 1 to 7'),
    ("5/15 * * * *", 'minute "5/15" is not allowed: a step stands behind * or a range, as in 5-59/15'),
    ("? * * * *", f'minute "?" is not allowed: {MINUTES}'),
    ("0 0 31 2 *", '"0 0 31 2 *" never comes: none of its months has such a day'),
    ("0 0 30,31 feb *", '"0 0 30,31 feb *" never comes: none of its months has such a day'),
    (" 0 0 31 4,6,9,11 * ", '"0 0 31 4,6,9,11 *" never comes: none of its months has such a day'),
]


@pytest.mark.parametrize("schedule, message", BAD_SCHEDULES)
def test_a_wrong_schedule_is_refused(db, cli, tmp_path, schedule, message):
    """In SQL, in a row, in a file and on the command line: which field, what was found, what is allowed."""
    assert refused(db, "SELECT jobq.cron_next(%s)", (schedule,)) == ("22023", f"jobq.cron_next: schedule: {message}")
    assert refused(db, "INSERT INTO jobq.crons (name, schedule, kind) VALUES ('a', %s, 'k')", (schedule,)) == \
        ("22023", f"jobq.crons: schedule: {message}")
    assert cli("cron", "next", "--", schedule, code=64).stderr == f"jobqd cron next: schedule: {message}\n"
    assert cli("cron", "set", "a", "--kind", "k", "--schedule", schedule, code=64).stderr == \
        f"jobqd cron set: --schedule: {message}\n"
    conf = tmp_path / "j.conf"
    conf.write_text(f"[cron a]\nkind = k\nschedule = {schedule}\n")
    if schedule.strip():
        assert cli("config", "check", "-c", conf, code=78).stderr == \
            f"jobqd config: {conf}:3: [cron a] schedule: {message.replace('400 bytes', '399 bytes')}\n"


BAD_ROWS = [
    ({"name": ""}, 'name must be text of 1 to 128 bytes without control characters, got ""'),
    ({"name": "a\nb"}, 'name must be text of 1 to 128 bytes without control characters, got "a\\nb"'),
    ({"timezone": "Mars/Olympus"}, 'timezone must be the name of a time zone that this server knows, such as '
                                   'Europe/Stockholm, got "Mars/Olympus"'),
    ({"timezone": "europe/stockholm"}, 'timezone must be the name of a time zone that this server knows, such as '
                                       'Europe/Stockholm, got "europe/stockholm"'),
    ({"timezone": "CET-1CEST"}, 'timezone must be the name of a time zone that this server knows, such as '
                                'Europe/Stockholm, got "CET-1CEST"'),
    ({"kind": ""}, 'kind must be text of 1 to 128 bytes, got ""'),
    ({"args": "[1]"}, "args must be a JSON object, got [1]"),
    ({"meta": "1"}, "meta must be a JSON object, got 1"),
    ({"queue": ""}, 'queue must be text of 1 to 128 bytes, got ""'),
    ({"priority": 10}, "priority must be 0 to 9, got 10"),
    ({"max_attempts": 0}, "max_attempts must be 1 to 1000, got 0"),
    ({"timeout_ms": 0}, "timeout_ms must be null or 1 to 2147483647, got 0"),
    ({"missed": "never"}, 'missed must be skip, once or all, got "never"'),
    ({"tags": ["a", None]}, 'tags must be an array of texts without nulls, got ["a", null]'),
    ({"schedule": None}, f"schedule: must be {ALLOWED}, got null"),
]


@pytest.mark.parametrize("wrong, message", BAD_ROWS)
def test_a_wrong_row_is_refused(db, wrong, message):
    row = {"name": "a", "schedule": "@daily", "kind": "k", **wrong}
    columns, values = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    assert refused(db, f"INSERT INTO jobq.crons ({columns}) VALUES ({values})", row) == ("22023", f"jobq.crons: {message}")
    arguments = ", ".join(f"{name} => %({name})s" for name in row)
    assert refused(db, f"SELECT jobq.cron_set({arguments})", row) == ("22023", f"jobq.crons: {message}")
    db.query("INSERT INTO jobq.crons (name, schedule, kind) VALUES ('a', '@daily', 'k')")
    column, = wrong
    assert refused(db, f"UPDATE jobq.crons SET {column} = %s", (wrong[column],)) == ("22023", f"jobq.crons: {message}")
    assert db.query("SELECT schedule, kind, error FROM jobq.crons") == [("@daily", "k", None)]


def test_when_is_asked_with_something_wrong(db):
    assert refused(db, "SELECT jobq.cron_next('@daily', NULL)") == \
        ("22023", "jobq.cron_next: after must be a time of the years 1900 to 9899, got null")
    assert refused(db, "SELECT jobq.cron_next('@daily', 'infinity')") == \
        ("22023", 'jobq.cron_next: after must be a time of the years 1900 to 9899, got "infinity"')
    assert refused(db, "SELECT jobq.cron_next('@daily', now(), NULL)") == \
        ("22023", "jobq.cron_next: timezone must be the name of a time zone that this server knows, such as Europe/Stockholm, "
                  "got null")
    assert db.value("SELECT jobq.cron_next('@reboot')") is None


def test_the_caller_s_own_time_zone_stays(db):
    with db.connect() as conn:
        conn.execute("SET timezone = 'Asia/Tokyo'")
        conn.execute("SELECT jobq.cron_next('0 2 * * *', now(), 'Europe/Stockholm')")
        conn.execute("SELECT jobq.cron_set('a', '0 2 * * *', 'k', timezone => 'Europe/Stockholm')")
        assert conn.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
        assert conn.execute("SELECT jobq.cron_next('0 2 * * *', '2026-01-01T00:00:00Z', 'UTC') = '2026-01-01T02:00:00Z'").fetchone()[0]


def test_leap_days_across_2100(db, cli):
    assert sql_times(db, "0 0 29 2 *", "UTC", "2096-01-01T00:00:00Z", 2) == ["2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"]
    assert c_times(cli, "0 0 29 2 *", "UTC", "2096-01-01T00:00:00Z", 2) == ["2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"]


# ---- the command `cron next` ----

def test_next_prints_local_times_without_a_database(cli):
    env = {"PGHOST": "/nowhere", "TZ": "Asia/Tokyo"}
    assert cli("cron", "next", "30 2 * * *", "--from", "2026-03-28T12:00:00+01:00", "--timezone", "Europe/Stockholm", "-n", 2,
               env=env).stdout == "2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n"
    assert cli("cron", "next", "0 0 1 1 *", "--from", "2026-03-28T12:00:00Z", env=env).stdout.splitlines() == \
        [f"{year}-01-01T00:00:00Z" for year in range(2027, 2032)]
    assert json.loads(cli("cron", "next", "@every 1h30m", "--from", "2026-03-28T12:00:00.250Z", "-n2", "--json").stdout) == \
        ["2026-03-28T13:30:00.250Z", "2026-03-28T15:00:00.250Z"]
    assert len(cli("cron", "next", "* * * * *", "-n", 1000).stdout.splitlines()) == 1000


@pytest.mark.parametrize("args, message", [
    (("--from", "tomorrow"), '--from: "tomorrow" is not a time: write it as 2026-11-22T10:11:12Z or 2026-11-22T10:11:12+01:00'),
    (("--from", "2026-02-30T00:00:00Z"),
     '--from: "2026-02-30T00:00:00Z" is not a time: write it as 2026-11-22T10:11:12Z or 2026-11-22T10:11:12+01:00'),
    (("-n", "0"), '-n: "0" is not allowed: 1 to 1000'),
    (("-n", "1001"), '-n: "1001" is not allowed: 1 to 1000'),
    (("-n",), "-n needs an argument; usage: jobqd cron next [OPTION]... EXPR (see --help)"),
    (("--timezone", "Mars/Olympus"), '--timezone: "Mars/Olympus" is not a time zone: write a name from the time zone database (tzdata, in '
                                     '/usr/share/zoneinfo), such as Europe/Stockholm'),
    (("--timezone", "../passwd"), '--timezone: "../passwd" is not a time zone: write a name from the time zone database (tzdata, in '
                                  '/usr/share/zoneinfo), such as Europe/Stockholm'),
    (("--timezone", "/etc/localtime"), '--timezone: "/etc/localtime" is not a time zone: write a name from the time zone database '
                                       '(tzdata, in /usr/share/zoneinfo), such as Europe/Stockholm'),
    (("--timezone", "zone.tab"), '--timezone: "zone.tab" is not a time zone: write a name from the time zone database (tzdata, in '
                                 '/usr/share/zoneinfo), such as Europe/Stockholm'),
])
def test_next_refuses(cli, args, message):
    env = {"TZDIR": ""}
    done = cli("cron", "next", "* * * * *", *args, code=64, env=env)
    assert (done.stdout, done.stderr) == ("", f"jobqd cron next: {message}\n")


def test_next_on_a_host_without_time_zones(cli, tmp_path):
    env = {"TZDIR": str(tmp_path / "none")}
    assert cli("cron", "next", "* * * * *", "--timezone", "Europe/Stockholm", code=64, env=env).stderr == \
        f'jobqd cron next: --timezone: "Europe/Stockholm" is not known: this host has no time zones in {tmp_path}/none, only ' \
        "UTC; install tzdata\n"
    assert cli("cron", "next", "0 0 * * *", "-n", 1, "--from", "2026-01-01T00:00:00Z", env=env).stdout == "2026-01-02T00:00:00Z\n"


def test_next_of_what_has_no_time(cli):
    assert cli("cron", "next", "@reboot", code=64).stderr == \
        "jobqd cron next: schedule: @reboot has no times: it comes when the first node starts\n"
    assert cli("cron", "sometimes", code=64).stderr == \
        'jobqd cron: unknown command "sometimes"; the commands are list, next, set, pause, resume, delete and run (see jobqd cron --help)\n'


# ---- slots, by SQL alone ----

def test_a_slot_becomes_a_job(db):
    db.query("""SELECT jobq.cron_set('nightly', '0 3 * * *', 'report', '{"daily": true}', 'Europe/Stockholm', queue => 'mail',
                priority => 3, max_attempts => 5, meta => '{"team": 7}', tags => '{x,y}', timeout_ms => 1500)""")
    expected = db.value("SELECT jobq.cron_next('0 3 * * *', now(), 'Europe/Stockholm')")
    assert db.query("SELECT next_at, last_at, last_job_id, error FROM jobq.crons") == [(expected, None, None, None)]
    assert fire(db)[0] == 0 and db.value("SELECT count(*) FROM jobq.jobs") == 0
    set_back(db, "nightly", "1 day")
    due = db.value("SELECT next_at FROM jobq.crons")
    fired, next_ms = fire(db)
    assert fired == 1 and 0 < next_ms <= 25 * 3600 * 1000
    assert fire(db)[0] == 0
    assert db.query("""SELECT id, state::text, kind, args, queue, priority, max_attempts, meta, tags, timeout_ms
                         FROM jobq.jobs""") == \
        [(1, "available", "report", {"daily": True}, "mail", 3, 5, {"team": 7, "cron": "nightly", "cron_at": iso(due)},
          ["x", "y"], 1500)]
    assert db.query("SELECT next_at, last_at, last_job_id FROM jobq.crons") == [(expected, due, 1)]


def whole_minutes(db, n):
    """The last n full minutes, the newest last."""
    return [iso(row[0]) for row in db.query("SELECT date_trunc('minute', now()) - g * interval '1 minute'"
                                            " FROM generate_series(%s - 1, 0, -1) g", (n,))]


@pytest.fixture
def not_at_a_full_minute(db):
    """What a test says of missed minutes would be off by one if the minute changed meanwhile."""
    wait_for(lambda: db.value("SELECT extract(second FROM clock_timestamp()) BETWEEN 1 AND 50"), what="a quiet moment")


def test_missed_slots_all(db, not_at_a_full_minute):
    db.query("SELECT jobq.cron_set('a', '* * * * *', 'k', missed => 'all')")
    set_back(db, "a", "5 minutes")
    assert fire(db)[0] == 5
    assert slots(db, "a") == whole_minutes(db, 5)


def test_missed_slots_all_of_two_days_come_a_thousand_at_a_time(db, not_at_a_full_minute):
    db.query("SELECT jobq.cron_set('a', '* * * * *', 'k', missed => 'all')")
    set_back(db, "a", "2500 minutes")
    assert [fire(db)[:1] for _ in range(3)] == [(1000,), (1000,), (500,)]
    assert slots(db, "a") == whole_minutes(db, 2500)


def test_missed_slots_once(db, not_at_a_full_minute):
    """The newest of them, and that in no time at all, although there are millions."""
    db.query("SELECT jobq.cron_set('a', '* * * * *', 'k'), jobq.cron_set('b', '@every 1s', 'k')")
    set_back(db, "a", "10 years")
    set_back(db, "b", "10 years")
    assert fire(db)[0] == 2
    assert slots(db, "a") == whole_minutes(db, 1)
    assert db.value("SELECT min(next_at) > clock_timestamp() - interval '5 s' FROM jobq.crons")


def test_missed_slots_skip(db, not_at_a_full_minute):
    """One that is not a minute late yet is not missed."""
    db.query("SELECT jobq.cron_set('a', '* * * * *', 'k', missed => 'skip'), "
             "jobq.cron_set('b', '@every 1h', 'k', missed => 'skip')")
    set_back(db, "a", "30 minutes")
    set_back(db, "b", "90 minutes")
    assert fire(db)[0] == 1
    assert slots(db, "a") == whole_minutes(db, 1) and slots(db, "b") == []
    assert db.value("SELECT bool_and(next_at > now()) FROM jobq.crons") and \
        db.value("SELECT last_at FROM jobq.crons WHERE name = 'b'") is None


def test_missed_slots_over_a_day_when_clocks_are_set(db):
    """The newest one is found across the jump, too."""
    for upto, newest in (("2026-03-29T01:10:00Z", "2026-03-29T01:00:00Z"), ("2026-10-25T01:40:00Z", "2026-10-25T00:59:00Z")):
        assert iso(db.value("SELECT jobq._cron_newest((jobq._cron_parse('*/1 2 * * *')).fields, "
                            "jobq.cron_next('*/1 2 * * *', %s::timestamptz - interval '40 days', 'Europe/Stockholm'), %s, "
                            "'Europe/Stockholm')", (upto, upto))) == newest


def test_paused_and_resumed(db, not_at_a_full_minute):
    db.query("SELECT jobq.cron_set('a', '* * * * *', 'k', missed => 'all')")
    assert db.value("SELECT jobq.cron_pause('a')") is True
    assert db.value("SELECT jobq.cron_pause('a')") is False
    assert db.query("SELECT paused, next_at FROM jobq.crons") == [(True, None)]
    assert fire(db) == (0, None)
    db.query("SELECT jobq.cron_set('a', '*/2 * * * *', 'k', missed => 'all')")
    assert db.query("SELECT paused, next_at FROM jobq.crons") == [(True, None)], "a new schedule does not resume it"
    assert db.value("SELECT jobq.cron_resume('a')") is True
    assert db.value("SELECT jobq.cron_resume('a')") is False
    assert db.value("SELECT next_at > now() FROM jobq.crons"), "what came meanwhile is not missed"
    assert fire(db)[0] == 0
    db.query("UPDATE jobq.crons SET paused = true")
    assert db.value("SELECT next_at FROM jobq.crons") is None
    db.query("UPDATE jobq.crons SET paused = false")
    assert db.value("SELECT next_at > now() FROM jobq.crons")


def test_a_clock_that_was_ahead_and_set_back(db):
    """What was enqueued meanwhile does not come again; paused and resumed it goes on from now."""
    db.query("SELECT jobq.cron_set('a', '0 * * * *', 'k', missed => 'all'), jobq.cron_set('b', '@every 1h', 'k')")
    db.query("UPDATE jobq.crons SET next_at = next_at + interval '30 days', last_at = next_at + interval '30 days -1 hour'")
    row = db.query("SELECT * FROM jobq.crons ORDER BY name")
    fired, next_ms = fire(db)
    assert fired == 0 and next_ms > 29 * 86_400_000
    assert db.query("SELECT * FROM jobq.crons ORDER BY name") == row
    db.query("SELECT jobq.cron_pause(name) FROM jobq.crons")
    db.query("SELECT jobq.cron_resume(name) FROM jobq.crons")
    assert db.value("SELECT bool_and(next_at > now() AND next_at <= now() + interval '1 hour') FROM jobq.crons")


def test_a_clock_that_was_set_back_an_hour(db):
    """Resumed, and with another schedule, it goes on after the last slot that was enqueued."""
    db.query("SELECT jobq.cron_set('a', '*/10 * * * *', 'k'), jobq.cron_set('b', '@every 10m', 'k')")
    db.query("UPDATE jobq.crons SET last_at = next_at + interval '50 minutes', next_at = next_at + interval '1 hour'")
    db.query("SELECT jobq.cron_pause(name) FROM jobq.crons")
    db.query("SELECT jobq.cron_resume(name) FROM jobq.crons")
    assert db.value("SELECT bool_and(next_at > last_at AND next_at <= last_at + interval '10 minutes') FROM jobq.crons")
    db.query("SELECT jobq.cron_set('a', '*/5 * * * *', 'k'), jobq.cron_set('b', '@every 5m', 'k')")
    assert db.value("SELECT bool_and(next_at > last_at AND next_at <= last_at + interval '5 minutes') FROM jobq.crons")


def test_run_by_hand_and_deleted(db):
    db.query("SELECT jobq.cron_set('a', '@daily', 'k', '{\"n\": 1}'), jobq.cron_pause('a')")
    before = db.query("SELECT next_at, last_at, last_job_id FROM jobq.crons")
    job = db.value("SELECT jobq.cron_run('a')")
    assert db.query("SELECT id, args, meta FROM jobq.jobs") == [(job, {"n": 1}, {"cron": "a"})]
    assert db.query("SELECT next_at, last_at, last_job_id FROM jobq.crons") == before
    db.query("SELECT jobq.cron_delete('a')")
    assert db.value("SELECT count(*) FROM jobq.crons") == 0


@pytest.mark.parametrize("call", ("cron_pause", "cron_resume", "cron_delete", "cron_run"))
def test_a_name_that_no_cron_has(db, call):
    assert refused(db, f"SELECT jobq.{call}('x \"y\"')") == ("P0002", f'jobq.{call}: no cron has the name "x \\"y\\""')
    assert refused(db, f"SELECT jobq.{call}(NULL)") == ("P0002", f"jobq.{call}: no cron has the name null")


def test_two_callers_never_enqueue_a_slot_twice(db):
    """Both at once, over and over, with slots that come all the time: each slot once."""
    db.query("SELECT jobq.cron_set(n, '@every 1s', 'k', missed => 'all') FROM unnest('{a,b,c,d,e,f,g,h}'::text[]) n")
    db.query("UPDATE jobq.crons SET next_at = next_at - interval '400 s'")
    fired, faults = [], []

    def call():
        try:
            with db.connect() as conn:
                for _ in range(60):
                    fired.append(conn.execute("SELECT fired FROM jobq._cron_fire()").fetchone()[0])
        except psycopg.Error as error:
            faults.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    count, distinct = db.query("SELECT count(*), count(DISTINCT (meta ->> 'cron', meta ->> 'cron_at')) FROM jobq.jobs")[0]
    assert count == distinct == sum(fired) >= 3200
    assert db.value("""SELECT count(*) FROM jobq.crons c WHERE (SELECT count(*) FROM jobq.jobs j WHERE j.meta ->> 'cron' = c.name)
                       <> (SELECT extract(epoch FROM c.last_at - min((j.meta ->> 'cron_at')::timestamptz)) + 1
                             FROM jobq.jobs j WHERE j.meta ->> 'cron' = c.name)""") == 0, "a slot is missing"


def test_who_finds_a_row_locked_leaves_it_alone(db):
    db.query("SELECT jobq.cron_set('a', '@every 1h', 'k'), jobq.cron_set('b', '@every 1h', 'k')")
    db.query("UPDATE jobq.crons SET next_at = now()")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM jobq.crons WHERE name = 'a' FOR UPDATE")
        assert fire(db) == (1, 0)
        assert slots(db, "a") == [] and len(slots(db, "b")) == 1
    assert fire(db)[0] == 1 and len(slots(db, "a")) == 1


def test_a_rollback_takes_the_jobs_back_and_the_slots_stay(db):
    db.query("SELECT jobq.cron_set('a', '@every 1h', 'k')")
    db.query("UPDATE jobq.crons SET next_at = now()")
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT fired FROM jobq._cron_fire()").fetchone() == (1,)
        conn.rollback()
    assert slots(db, "a") == [] and fire(db)[0] == 1


def test_one_that_cannot_be_enqueued_does_not_stop_the_others(db):
    """It is marked with its error, tried again after a minute, and heals by itself."""
    db.query("SELECT jobq.cron_set('bad', '@every 1h', 'k', timezone => 'Europe/Stockholm'), jobq.cron_set('good', '@every 1h', 'k')")
    db.query("ALTER TABLE jobq.crons DISABLE TRIGGER USER")
    db.query("UPDATE jobq.crons SET next_at = now() - interval '1 s'")
    db.query("UPDATE jobq.crons SET schedule = '0 0 * * *', timezone = 'Mars/Olympus' WHERE name = 'bad'")
    db.query("ALTER TABLE jobq.crons ENABLE TRIGGER USER")
    fired, next_ms = fire(db)
    assert fired == 1 and 50_000 < next_ms <= 60_000
    assert db.query("SELECT error, last_at, failed_at IS NOT NULL FROM jobq.crons WHERE name = 'bad'") == \
        [('invalid value for parameter "TimeZone": "Mars/Olympus"', None, True)]
    assert fire(db)[0] == 0
    db.query("ALTER TABLE jobq.crons DISABLE TRIGGER USER")
    db.query("UPDATE jobq.crons SET timezone = 'UTC' WHERE name = 'bad'")
    db.query("ALTER TABLE jobq.crons ENABLE TRIGGER USER")
    db.query("UPDATE jobq.crons SET failed_at = failed_at - interval '61 s'")
    assert fire(db)[0] == 1
    assert db.query("SELECT error, failed_at FROM jobq.crons WHERE name = 'bad'") == [(None, None)]


def test_a_changed_row_is_announced_and_a_fired_one_is_not(db):
    with db.connect() as listener:
        listener.execute("LISTEN jobq")

        def heard():
            db.query("NOTIFY jobq, 'end'")
            found = []
            for notify in listener.notifies():
                if notify.payload == "end":
                    return found
                found.append(notify.payload)
        db.query("SELECT jobq.cron_set('a', '@daily', 'k')")
        assert heard() == ["cron"]
        db.query("UPDATE jobq.crons SET schedule = '* * * * *'")
        assert heard() == ["cron"]
        db.query("SELECT jobq.cron_pause('a')")
        assert heard() == []
        db.query("SELECT jobq.cron_resume('a')")
        assert heard() == ["cron"]
        db.query("UPDATE jobq.crons SET next_at = now()")
        assert heard() == ["cron"]
        assert fire(db)[0] == 1 and "cron" not in heard()


# ---- rights ----

def as_role(db, role, sql, params=None):
    with db.connect() as conn:
        conn.execute(f"SET ROLE {role}")
        cursor = conn.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def test_an_operator_sets_crons_by_function_and_by_plain_sql(db):
    role = "jobq_operator"
    as_role(db, role, "SELECT jobq.cron_set('a', '@daily', 'k')")
    as_role(db, role, "INSERT INTO jobq.crons (name, schedule, kind, timezone) VALUES ('b', '0 2 * * friL', 'k', 'Europe/Stockholm')")
    as_role(db, role, "UPDATE jobq.crons SET schedule = '@hourly', paused = true WHERE name = 'b'")
    assert as_role(db, role, "SELECT jobq.cron_resume('b'), jobq.cron_pause('a'), jobq.cron_run('a') > 0") == [(True, True, True)]
    as_role(db, role, "SELECT jobq.cron_delete('a')")
    as_role(db, role, "DELETE FROM jobq.crons")
    assert as_role(db, role, "SELECT jobq.cron_next('@daily') > now()") == [(True,)]
    for sql in ("SELECT jobq._cron_fire()", "SELECT jobq._cron_declare('a', '{}')", "SELECT jobq._cron_sweep()",
                "UPDATE jobq.crons SET declared_by = '{}'"):
        with pytest.raises(InsufficientPrivilege):
            as_role(db, role, sql)


def test_others_may_ask_when_and_no_more(db):
    for role in ("jobq_viewer", "jobq_enqueuer"):
        assert as_role(db, role, "SELECT jobq.cron_next('0 2 * * *', now(), 'Europe/Stockholm') > now()") == [(True,)]
        for sql in ("SELECT jobq.cron_set('a', '@daily', 'k')", "SELECT jobq.cron_run('a')", "SELECT jobq.cron_pause('a')",
                    "SELECT jobq.cron_resume('a')", "SELECT jobq.cron_delete('a')",
                    "INSERT INTO jobq.crons (name, schedule, kind) VALUES ('a', '@daily', 'k')"):
            with pytest.raises(InsufficientPrivilege):
                as_role(db, role, sql)


# ---- configuration ----

BAD_FILES = [
    ("[cron a]\nkind = k\n", "1: [cron a]: needs schedule = SCHEDULE"),
    ("[cron a]\nschedule = @daily\n", "1: [cron a]: needs kind = KIND"),
    ("[cron a]\nschedule = @daily\nkind = k\n[cron a]\n", "4: [cron a] is defined twice, first on line 1"),
    ("[cron]\nkind = k\n", "1: [cron ]: the name of a cron must have 1 to 128 bytes"),
    ("[cron a]\nkind = k\nevery = 5s\n", "3: [cron a] every: no such option; allowed are schedule, timezone, kind, args, queue, "
     "priority, max_attempts, timeout, missed, overlap, expires, unique_by and meta"),
    ("[cron a]\nargs = [1]\n", "2: [cron a] args: the value must be a JSON object, got [1]; it must be a JSON object"),
    ("[cron a]\nargs = {'a': 1}\n", None),
    ("[cron a]\npriority = 10\n", '2: [cron a] priority: "10" is not allowed: 0 to 9'),
    ("[cron a]\nmax_attempts = 0\n", '2: [cron a] max_attempts: "0" is not allowed: 1 to 1000'),
    ("[cron a]\nmissed = never\n", '2: [cron a] missed: "never" is not allowed: skip, once or all'),
    ("[cron a]\ntimezone = ../x\n",
     '2: [cron a] timezone: "../x" is not allowed: the name of a time zone, such as Europe/Stockholm'),
    ("[cron a]\nschedule = @daily\nkind = k\ntimezone = Mars/Olympus\n",
     '4: [cron a] timezone: "Mars/Olympus" is not a time zone: write a name from the time zone database (tzdata, in /usr/share/zoneinfo), '
     "such as Europe/Stockholm"),
    ("[crons a]\n", "1: [crons a]: no such section; [jobqd], [queue NAME] and [cron NAME] are allowed; "
     "did you mean [cron a]?"),
]


@pytest.mark.parametrize("text, message", BAD_FILES)
def test_a_wrong_section_is_refused(cli, tmp_path, text, message):
    conf = tmp_path / "j.conf"
    conf.write_text(text)
    stderr = cli("config", "check", "-c", conf, code=78, env={"TZDIR": ""}).stderr
    if message is None:
        assert stderr.startswith(f"jobqd config: {conf}:2: [cron a] args: ") and "expected" in stderr
    else:
        assert stderr == f"jobqd config: {conf}:{message}\n"


EXAMPLE = {"schedule": "0 3 * * *", "timezone": "Europe/Stockholm", "kind": "report", "args": '{"daily": true}'}


def write_crons(node, crons):
    """Adds sections [cron NAME] to the node's configuration file."""
    text = node.conf.read_text().split("[cron ")[0]
    node.conf.write_text(text + "".join(f"[cron {name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items())
                                        for name, keys in crons.items()))


def reload(node, crons):
    write_crons(node, crons)
    node.reload()


def test_the_configuration_is_printed_as_it_can_be_read(cli, tmp_path):
    conf = tmp_path / "j.conf"
    conf.write_text("[cron nightly-report]\n" + "".join(f"{k} = {v}\n" for k, v in EXAMPLE.items()) + "missed = all\n")
    assert cli("config", "check", "-c", conf).stdout == f"{conf}: ok, 0 queues, 1 cron\n"
    assert json.loads(cli("config", "check", "-c", conf, "--json").stdout) == {"ok": True, "queues": 0, "crons": 1, "warnings": []}
    printed = cli("config", "print", "-c", conf).stdout
    again = tmp_path / "again.conf"
    again.write_text(printed)
    assert cli("config", "print", "-c", again).stdout == printed
    assert json.loads(cli("config", "print", "-c", conf, "--json").stdout)["crons"] == {"nightly-report": {
        **EXAMPLE, "queue": "default", "priority": "0", "timeout": "0", "missed": "all", "overlap": "allow", "expires": "0", "meta": "{}"}}


def crons(db):
    """Each with the nodes that have declared it."""
    return dict(db.query("SELECT name, ARRAY(SELECT jsonb_object_keys(declared_by) ORDER BY 1) FROM jobq.crons ORDER BY 1"))


def test_sections_become_rows_and_go_when_no_node_has_them(db, jobqd):
    one, two = jobqd(db, {}, lease="1s"), jobqd(db, {}, lease="1s")
    reload(one, {"nightly-report": EXAMPLE})
    wait_for(lambda: crons(db) == {"nightly-report": ["node1"]})
    row = "SELECT schedule, timezone, kind, args, queue, missed, paused, next_at > now(), xmin::text FROM jobq.crons"
    written = db.query(row)
    assert written[0][:8] == ("0 3 * * *", "Europe/Stockholm", "report", {"daily": True}, "default", "once", False, True)
    reload(two, {"nightly-report": EXAMPLE, "more": {"schedule": "@hourly", "kind": "k", "timeout": "30s", "missed": "all"}})
    wait_for(lambda: crons(db) == {"more": ["node2"], "nightly-report": ["node1", "node2"]})
    assert db.query("SELECT timeout_ms, missed FROM jobq.crons WHERE name = 'more'") == [(30000, "all")]
    # The same once more: nothing is written. A row's xmin is the transaction that wrote it last.
    xmin = "SELECT name, xmin::text FROM jobq.crons ORDER BY 1"
    before = db.query(xmin)
    reload(one, {"nightly-report": EXAMPLE, "new": {"schedule": "@daily", "kind": "k"}})
    wait_for(lambda: "new" in crons(db))
    assert [each for each in db.query(xmin) if each[0] != "new"] == before
    reload(one, {})
    wait_for(lambda: crons(db) == {"more": ["node2"], "nightly-report": ["node2"]})
    reload(two, {"nightly-report": {**EXAMPLE, "schedule": "0 4 * * *"}})
    wait_for(lambda: crons(db) == {"nightly-report": ["node2"]})
    wait_for(lambda: db.value("SELECT schedule FROM jobq.crons") == "0 4 * * *")
    reload(two, {})
    wait_for(lambda: crons(db) == {})


def test_what_sql_says_of_a_section_s_row_stays_until_the_section_is_changed(db, jobqd):
    node = jobqd(db, {}, lease="1s")
    db.query("SELECT jobq.cron_set('by-sql', '@daily', 'k')")
    reload(node, {"a": EXAMPLE})
    wait_for(lambda: "a" in crons(db))
    db.query("SELECT jobq.cron_pause('a')")
    db.query("UPDATE jobq.crons SET schedule = '0 5 * * *' WHERE name = 'a'")
    node.stop()
    node.start()
    reload(node, {"a": EXAMPLE, "b": EXAMPLE})
    wait_for(lambda: "b" in crons(db))
    assert db.query("SELECT schedule, paused FROM jobq.crons WHERE name = 'a'") == [("0 5 * * *", True)]
    reload(node, {"a": {**EXAMPLE, "queue": "mail"}})
    wait_for(lambda: crons(db) == {"a": ["node1"], "by-sql": []})
    assert db.query("SELECT schedule, queue, paused FROM jobq.crons WHERE name = 'a'") == [("0 3 * * *", "mail", True)]


SECTION = {"schedule": "@daily", "timezone": "UTC", "kind": "k", "args": {}, "queue": "default", "priority": 0,
           "max_attempts": 20, "missed": "once", "timeout_ms": None, "meta": {}}


def declare(db, node, **sections):
    """What a node of that name would do whose sections have these schedules: changed, busy, fault."""
    return db.query("SELECT * FROM jobq._cron_declare(%s, %s)", (node, json.dumps(
        {name: {**SECTION, "schedule": schedule} for name, schedule in sections.items()})))[0]


def test_an_older_section_does_not_come_back_by_a_reconnection(db, jobqd):
    one, two = jobqd(db, {}, lease="1s"), jobqd(db, {}, lease="1s")
    old, new = ({"schedule": schedule, "kind": "k"} for schedule in ("@every 50s", "@every 70s"))
    row = "SELECT schedule, next_at, updated_at FROM jobq.crons WHERE name = 'flap'"
    reload(one, {"flap": old})
    wait_for(lambda: crons(db) == {"flap": ["node1"]})
    reload(two, {"flap": new})
    wait_for(lambda: crons(db) == {"flap": ["node1", "node2"]})
    written = db.query(row)
    assert written[0][0] == "@every 70s"
    assert db.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE '%maintenance%'") == 2
    # What it says next is everything: as after a reconnection, whenever that was.
    for n in range(3):
        reload(one, {"flap": old, f"extra{n}": new})
        wait_for(lambda n=n: f"extra{n}" in crons(db))
        assert db.query(row) == written
    one.stop()
    one.start()
    reload(one, {"flap": old, "after-restart": new})
    wait_for(lambda: "after-restart" in crons(db))
    assert db.query(row) == written
    reload(one, {"flap": {**old, "schedule": "@every 60s"}})
    wait_for(lambda: db.query(row)[0][0] == "@every 60s")
    reload(two, {"flap": new, "extra": new})
    wait_for(lambda: "extra" in crons(db))
    assert db.query(row)[0][0] == "@every 60s"


def test_of_two_sections_the_one_that_was_changed_last_counts(db):
    schedule = "SELECT schedule FROM jobq.crons"
    for node, said, changed, then in [
            ("n1", "@daily", 1, "@daily"), ("n2", "@weekly", 1, "@weekly"), ("n1", "@daily", 0, "@weekly"),
            ("n3", "@weekly", 0, "@weekly"), ("n1", "@weekly", 0, "@weekly"), ("n1", "@daily", 1, "@daily"),
            ("n2", "@weekly", 0, "@daily"), ("n2", "@hourly", 1, "@hourly"), ("n3", "@weekly", 0, "@hourly")]:
        assert declare(db, node, a=said) == (changed, 0, None), (node, said)
        assert db.value(schedule) == then, (node, said)


# ---- nodes that are gone ----

def there(db, *names, lease="1 minute"):
    """Nodes of just these names."""
    db.query("DELETE FROM jobq.nodes")
    for name in names:
        db.query("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at)"
                 " VALUES (%s, '-', 1, 1, '-', clock_timestamp() + %s::interval)", (name, lease))


def sweep(db):
    return db.query("SELECT * FROM jobq._cron_sweep()")[0]


def watched_for(db, interval):
    db.query("UPDATE jobq._cron_away SET since = since - %s::interval", (interval,))


def away(db):
    return [row[0] for row in db.query("SELECT node FROM jobq._cron_away ORDER BY 1")]


def test_what_only_nodes_have_that_are_gone_for_a_day_goes(db):
    declare(db, "n1", a="@daily", b="@daily")
    declare(db, "n2", b="@daily", c="@daily", d="@daily")
    declare(db, "n3", d="@daily")
    db.query("SELECT jobq.cron_set('by-sql', '@daily', 'k')")
    there(db, "n1", "n2", "n3")
    assert sweep(db) == (0, None) and away(db) == []
    there(db, "n1")
    assert sweep(db) == (0, None) and away(db) == ["n2", "n3"]
    watched_for(db, "23:59")
    assert sweep(db) == (0, None) and len(crons(db)) == 5
    watched_for(db, "1 minute")
    assert sweep(db) == (2, "c, d")
    assert crons(db) == {"a": ["n1"], "b": ["n1"], "by-sql": []}
    assert sweep(db) == (0, None) and away(db) == []
    # Of the last one, too.
    there(db)
    sweep(db)
    watched_for(db, "1 day")
    assert sweep(db) == (2, "a, b")
    assert crons(db) == {"by-sql": []}


def test_a_lease_that_has_ended_is_none(db):
    declare(db, "n2", a="@daily")
    there(db, "n2", lease="-1 second")
    sweep(db)
    watched_for(db, "1 day")
    assert sweep(db) == (1, "a")


@pytest.mark.parametrize("back", (
    lambda db: there(db, "n1", "n2"),
    lambda db: declare(db, "n2", a="@daily"),
), ids=("seen by the sweep", "between two sweeps"))
def test_who_is_back_within_a_day_has_missed_nothing(db, back):
    declare(db, "n2", a="@daily")
    db.query("SELECT jobq.cron_pause('a')")
    row = db.query("SELECT *, xmin::text FROM jobq.crons")
    there(db, "n1")
    sweep(db)
    watched_for(db, "23:59")
    back(db)
    sweep(db)
    there(db, "n1")
    sweep(db)
    watched_for(db, "1 minute")
    assert sweep(db) == (0, None)
    assert db.query("SELECT *, xmin::text FROM jobq.crons") == row


@pytest.mark.parametrize("gap", ("6 minutes", "3 days", "-1 hour"))
def test_a_day_counts_only_if_somebody_watched(db, gap):
    """Nobody was up meanwhile, or the clock was set: then the day begins anew."""
    declare(db, "n1", a="@daily")
    declare(db, "n2", b="@every 1h")
    row = db.query("SELECT *, xmin::text FROM jobq.crons ORDER BY name")
    there(db, "n1")
    sweep(db)
    watched_for(db, "2 days")
    there(db)
    db.query("UPDATE jobq._cron_away SET seen = seen - %s::interval", (gap,))
    there(db, "n1")
    assert declare(db, "n1", a="@daily") == (0, 0, None)
    assert sweep(db) == (0, None)
    assert db.value("SELECT since = seen FROM jobq._cron_away")
    assert db.query("SELECT *, xmin::text FROM jobq.crons ORDER BY name") == row
    watched_for(db, "1 day")
    assert sweep(db) == (1, "b")


def test_a_node_that_comes_back_while_it_is_let_go_of(db):
    """Whoever is first, its cron is there in the end: the other waits, or tries again."""
    declare(db, "n2", a="@daily")
    there(db, "n1")
    sweep(db)
    watched_for(db, "1 day")
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT * FROM jobq._cron_sweep()").fetchone() == (1, "a")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            declare(db, "n2", a="@daily")
    assert declare(db, "n2", a="@daily") == (1, 0, None)
    sweep(db)
    watched_for(db, "1 day")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT * FROM jobq._cron_declare('n2', (SELECT jsonb_build_object('a', declared) FROM jobq.crons))")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            sweep(db)
    assert sweep(db) == (0, None) and crons(db) == {"a": ["n2"]}


def test_a_row_that_is_locked_is_let_go_of_later(db):
    declare(db, "n2", a="@daily", b="@daily")
    sweep(db)
    watched_for(db, "1 day")
    with db.connect(autocommit=False) as conn:
        conn.execute("UPDATE jobq.crons SET priority = 1 WHERE name = 'a'")
        assert sweep(db) == (1, "b")
    assert sweep(db) == (1, "a")


def test_a_stopped_node_s_cron_is_told_of_and_goes_after_a_day(db, jobqd, cli):
    one, two = jobqd(db, QUEUE, lease="1s"), jobqd(db, {}, lease="1s")
    reload(one, {"kept": {"schedule": "@daily", "kind": "k"}})
    reload(two, {"orphan": {"schedule": "@every 1s", "kind": "k"}, "kept": {"schedule": "@daily", "kind": "k"}})
    wait_for(lambda: crons(db) == {"kept": ["node1", "node2"], "orphan": ["node2"]})
    assert "not running" not in cli("cron", db=db).stdout
    two.stop()
    fires(db, "orphan")
    lines = cli("cron", db=db).stdout.splitlines()
    assert "not running" not in lines[1] and lines[2].endswith("declared by node2, which is not running")
    assert [(c["name"], c["declared_by"], c["away"]) for c in json.loads(cli("cron", "--json", db=db).stdout)] == \
        [("kept", ["node1", "node2"], ["node2"]), ("orphan", ["node2"], ["node2"])]
    # The leader looks each minute, and when it begins to lead.
    one.stop()
    db.query("DELETE FROM jobq._cron_away")
    db.query("INSERT INTO jobq._cron_away VALUES ('node2', clock_timestamp() - interval '1 day', clock_timestamp())")
    one.start()
    one.wait_log("cron: deleted crons whose nodes have been gone for a day: orphan")
    assert crons(db) == {"kept": ["node1"]}


# ---- rows that somebody else has locked ----

def test_a_locked_row_holds_up_no_other_section(db):
    declare(db, "n1", a="@daily", b="@daily", c="@daily", gone="@daily")
    with db.connect(autocommit=False) as conn, db.connect() as ours:
        conn.execute("UPDATE jobq.crons SET priority = 1 WHERE name IN ('a', 'b', 'gone')")
        ours.execute("SET statement_timeout = '3s'")
        said = json.dumps({name: {**SECTION, "schedule": "@hourly"} for name in "abcd"})
        assert ours.execute("SELECT * FROM jobq._cron_declare('n1', %s)", (said,)).fetchone() == (2, 3, None)
        assert ours.execute("SELECT * FROM jobq._cron_declare('n1', %s)", (said,)).fetchone() == (0, 3, None)
    assert db.value("SHOW lock_timeout") == "0"
    assert declare(db, "n1", a="@hourly", b="@hourly", c="@hourly", d="@hourly") == (3, 0, None)
    assert db.query("SELECT DISTINCT schedule, count(*) FROM jobq.crons GROUP BY 1") == [("@hourly", 4)]


def test_a_locked_reboot_row_holds_up_no_section(db, jobqd):
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'k')")
    with db.connect(autocommit=False) as conn:
        conn.execute("UPDATE jobq.crons SET priority = 1")
        node = jobqd(db, {}, ready=False)
        write_crons(node, {"a": EXAMPLE})
        node.wait_ready()
        node.reload()
        node.wait_log("cron: cannot apply the configuration's crons and queues yet: another transaction has locked their rows; retrying every 5 s")
        wait_for(lambda: "a" in crons(db))
        assert slots(db, "boot") == []
    wait_for(lambda: len(slots(db, "boot")) == 1)


def test_a_locked_reboot_row_holds_up_no_other(db, jobqd):
    """The others' jobs are enqueued at once, its own when the lock is gone, each of them once."""
    for name in "abc":
        db.query("SELECT jobq.cron_set(%s, '@reboot', 'k')", (name,))
    with db.connect(autocommit=False) as conn:
        conn.execute("UPDATE jobq.crons SET priority = 1 WHERE name = 'b'")
        node = jobqd(db, {}, ready=False)
        node.wait_log("this is the first node up: enqueued 2 @reboot jobs")
        second = jobqd(db, {})
        wait_for(lambda: db.value("SELECT bool_and(booted) AND count(*) = 2 FROM jobq.nodes"))
        assert [len(slots(db, name)) for name in "abc"] == [1, 0, 1]
    wait_for(lambda: len(slots(db, "b")) == 1)
    wait_for(lambda: db.value("SELECT bool_and(boots_left = '{}') FROM jobq.nodes"))
    assert [len(slots(db, name)) for name in "abc"] == [1, 1, 1]
    assert "this is the first node up" not in second.log()


def refuse(db, name, when, how="RAISE EXCEPTION 'not this one'"):
    db.query(f"CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how};"
             " RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;"
             f" CREATE TRIGGER refuse {when} FOR EACH ROW WHEN ({name}) EXECUTE FUNCTION public.refuse()")


@pytest.mark.parametrize("how", ("RAISE EXCEPTION 'not this one'", "ASSERT false, 'not this one'"))
def test_a_cron_that_cannot_be_deleted_holds_up_nothing(db, how):
    declare(db, "n1", a="@daily", b="@daily", c="@daily")
    declare(db, "n2", d="@daily", e="@daily", c="@daily")
    refuse(db, "OLD.name IN ('b', 'e')", "BEFORE DELETE ON jobq.crons", how)
    said = "cron b, which is no longer in any configuration: not this one"
    assert declare(db, "n1", x="@daily") == (3, 0, said)
    assert crons(db) == {"b": ["n1"], "c": ["n2"], "d": ["n2"], "e": ["n2"], "x": ["n1"]}
    there(db, "n1")
    sweep(db)
    watched_for(db, "1 day")
    notices = []
    with db.connect() as conn:
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        assert conn.execute("SELECT * FROM jobq._cron_sweep()").fetchone() == (2, "c, d")
    assert notices == ["cron e, which is no longer in any configuration: not this one"]
    db.query("DROP FUNCTION public.refuse() CASCADE")
    assert declare(db, "n1", x="@daily") == (1, 0, None)
    assert sweep(db) == (1, "e")
    assert crons(db) == {"x": ["n1"]}


def test_a_cron_whose_job_waits_for_a_lock_holds_up_no_other(db):
    """It comes first, and is tried again after a second; nothing stands in its error."""
    for name in "abc":
        db.query("SELECT jobq.cron_set(%s, '@daily', 'k', missed => 'all')", (name,))
    db.query("SET session_replication_role = replica;"
             " UPDATE jobq.crons SET next_at = now() - interval '10 s' + ascii(name) * interval '1 ms';"
             " SET session_replication_role = origin; CREATE TABLE public.ledger (n int); INSERT INTO public.ledger VALUES (1)")
    refuse(db, "NEW.meta ->> 'cron' = 'a'", "BEFORE INSERT ON jobq.jobs", "PERFORM FROM public.ledger FOR UPDATE")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT FROM public.ledger FOR UPDATE")
        fired, next_ms = db.query("SELECT * FROM jobq._cron_fire()")[0]
        assert fired == 2 and 0 < next_ms <= 1000
        assert [len(slots(db, name)) for name in "abc"] == [0, 1, 1]
        assert db.query("SELECT name FROM jobq.crons WHERE error IS NOT NULL") == []
    wait_for(lambda: db.query("SELECT * FROM jobq._cron_fire()")[0][0] == 1, 2)
    assert db.value("SELECT bool_and(failed_at IS NULL) FROM jobq.crons")


def test_a_locked_row_does_not_keep_the_house_connection(db, jobqd):
    db.query(f"ALTER DATABASE {db.name} SET track_functions = 'pl'")
    calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE schemaname = 'jobq' AND funcname = %s"
    node = jobqd(db, QUEUE)
    reload(node, {"lk": EXAMPLE, "tick": {"schedule": "@every 1s", "kind": "k"}})
    fires(db, "tick", 1)
    with db.connect(autocommit=False) as conn:
        conn.execute("UPDATE jobq.crons SET priority = 1 WHERE name = 'lk'")
        reload(node, {"lk": {**EXAMPLE, "schedule": "@hourly"}, "tick": {"schedule": "@every 1s", "kind": "k"}})
        node.wait_log("another transaction has locked")
        before = db.value(calls, ("_cron_declare",))
        fires(db, "tick", 2)
        # Tried again, and the jobs of others come in time.
        wait_for(lambda: db.value(calls, ("_cron_declare",)) > before + 1)
        assert db.value("SELECT max(extract(epoch FROM inserted_at - (meta ->> 'cron_at')::timestamptz)) < 2 FROM jobq.all_jobs")
    wait_for(lambda: db.value("SELECT schedule FROM jobq.crons WHERE name = 'lk'") == "@hourly")
    assert node.log().count("another transaction has locked") == 1
    # One that has come and is locked is not asked for without a pause.
    db.query("SELECT jobq.cron_pause('tick')")
    with db.connect(autocommit=False) as conn:
        conn.execute("UPDATE jobq.crons SET next_at = now() WHERE name = 'lk'")
        conn.commit()
        wait_for(lambda: slots(db, "lk"))
        db.query("UPDATE jobq.crons SET next_at = now() + interval '1 s' WHERE name = 'lk'")
        conn.execute("SELECT FROM jobq.crons WHERE name = 'lk' FOR UPDATE")
        wait_for(lambda: db.value("SELECT next_at < clock_timestamp() FROM jobq.crons WHERE name = 'lk'"))
        before, moment = db.value(calls, ("_cron_fire",)), time.monotonic() + 5
        wait_for(lambda: time.monotonic() > moment)
        assert 2 <= db.value(calls, ("_cron_fire",)) - before < 50
    wait_for(lambda: len(slots(db, "lk")) == 2)


def test_a_section_that_the_server_refuses_does_not_stop_the_others(db, jobqd, tmp_path):
    """The host knows the zone, the server does not."""
    zones = tmp_path / "zones"
    (zones / "Mars").mkdir(parents=True)
    with open("/usr/share/zoneinfo/UTC", "rb") as utc:
        (zones / "Mars" / "Olympus").write_bytes(utc.read())
    node = jobqd(db, {}, env={"TZDIR": str(zones)})
    reload(node, {"bad": {**EXAMPLE, "timezone": "Mars/Olympus"}, "good": {"schedule": "@daily", "kind": "k"}})
    node.wait_log("ERROR.* cron: the database refused crons of the configuration: cron bad: timezone must be the name of a time zone "
                  'that this server knows, such as Europe/Stockholm, got "Mars/Olympus"')
    assert crons(db) == {"good": ["node1"]}


# ---- a daemon ----

QUEUE = {"default": {"exec": "/bin/true", "concurrency": 2}}


def fires(db, name, n=2):
    """Waits for n more jobs of the cron to be completed."""
    before = len(slots(db, name))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE meta ->> 'cron' = %s AND state = 'completed'",
                              (name,)) >= before + n, what=lambda: f"{n} jobs of {name}, there are {slots(db, name)}")


@pytest.mark.parametrize("notify", ("on", "off"))
def test_a_change_by_sql_counts_within_a_second(db, jobqd, notify):
    jobqd(db, QUEUE, notify=notify)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._leader"))
    db.query("SELECT jobq.cron_set('a', '@daily', 'k')")
    db.query("UPDATE jobq.crons SET schedule = '@every 1s' WHERE name = 'a'")
    since = db.value("SELECT clock_timestamp()")
    fires(db, "a")
    # The first slot is a second after the change, in whole seconds; it is enqueued when it comes.
    late = db.value("SELECT max(extract(epoch FROM inserted_at - (meta ->> 'cron_at')::timestamptz)) FROM jobq.all_jobs")
    assert late < 1
    assert db.value("SELECT min(inserted_at) - %s < interval '3 s' FROM jobq.all_jobs", (since,))
    db.query("SELECT jobq.cron_pause('a')")
    n = len(slots(db, "a"))
    db.query("SELECT jobq.cron_set('b', '@every 1s', 'k')")
    fires(db, "b", 3)
    assert len(slots(db, "a")) == n
    db.query("SELECT jobq.cron_resume('a')")
    fires(db, "a")


def test_behind_a_pooler_in_transaction_mode(db, jobqd, pgbouncer):
    node = jobqd(pgbouncer(db), QUEUE)
    reload(node, {"a": {"schedule": "@every 1s", "kind": "k"}})
    fires(db, "a", 3)
    db.query("SELECT jobq.cron_set('b', '@every 1s', 'k', timezone => 'Europe/Stockholm')")
    fires(db, "b")
    assert db.value("SELECT count(*) = count(DISTINCT (meta ->> 'cron', meta ->> 'cron_at')) FROM jobq.all_jobs")


def test_reboot_comes_once_when_the_first_node_comes_up(db, jobqd):
    node = jobqd(db, QUEUE, ready=False, lease="2s")
    node.wait_ready()
    wait_for(lambda: db.value("SELECT booted FROM jobq.nodes"))  # its own coming up is over
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'k')")
    assert db.query("SELECT next_at FROM jobq.crons") == [(None,)]
    node.stop()
    node.start()
    node.wait_log("this is the first node up: enqueued 1 @reboot job")
    second = jobqd(db, QUEUE, lease="2s")
    wait_for(lambda: db.value("SELECT bool_and(booted) AND count(*) = 2 FROM jobq.nodes"))
    assert len(slots(db, "boot")) == 1
    node.stop()
    node.start()
    wait_for(lambda: db.value("SELECT bool_and(booted) AND count(*) = 2 FROM jobq.nodes"))
    assert len(slots(db, "boot")) == 1, "another node was up"
    node.kill()
    second.stop()
    node.expected_exit = 0
    node.start()
    wait_for(lambda: len(slots(db, "boot")) == 2)


def test_reboot_comes_once_when_several_nodes_come_up_at_once(db, jobqd, tmp_path):
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'k')")
    nodes = [jobqd(db, {}, ready=False) for _ in range(4)]
    for node in nodes:
        node.wait_ready()
    wait_for(lambda: db.value("SELECT bool_and(booted) AND count(*) = 4 FROM jobq.nodes"))
    assert len(slots(db, "boot")) == 1
    assert sum("this is the first node up" in node.log() for node in nodes) == 1


def test_reboot_does_not_come_after_a_lost_lease(db, jobqd):
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'k')")
    node = jobqd(db, {}, lease="1s")
    wait_for(lambda: len(slots(db, "boot")) == 1)
    old = db.value("SELECT id FROM jobq.nodes")
    db.query("DELETE FROM jobq.nodes")
    wait_for(lambda: db.value("SELECT booted FROM jobq.nodes WHERE id <> %s", (old,)))
    assert len(slots(db, "boot")) == 1
    assert "must stop its jobs" in node.log()


def test_reboot_does_not_come_after_an_upgrade_in_place(db, jobqd, cli):
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'k')")
    node = jobqd(db, {}, lease="5s")
    wait_for(lambda: len(slots(db, "boot")) == 1)
    write_crons(node, {"a": EXAMPLE})
    cli("upgrade", "-c", node.conf)
    wait_for(lambda: "a" in crons(db))
    assert len(slots(db, "boot")) == 1


# ---- the commands on the database ----

def local_time(db, name):
    """The cron's next slot as the clocks of its own zone show it."""
    at, zone = db.query("SELECT next_at, timezone FROM jobq.crons WHERE name = %s", (name,))[0]
    return at.astimezone(zoneinfo.ZoneInfo(zone)).isoformat()


def test_the_commands(db, cli):
    assert cli("cron", "set", "nightly", "--schedule", "0 3 * * *", "--kind", "report", "--args", '{"a": 1}', "--timezone",
               "Europe/Stockholm", "--queue", "mail", "--priority", 2, "--max-attempts", 3, "--missed", "all", "--meta",
               '{"m": 1}', "--tags", "x,y", "--timeout", "90s", db=db).stdout == "cron nightly: set\n"
    assert db.query("SELECT schedule, kind, args, timezone, queue, priority, max_attempts, missed, meta, tags, timeout_ms "
                    "FROM jobq.crons") == \
        [("0 3 * * *", "report", {"a": 1}, "Europe/Stockholm", "mail", 2, 3, "all", {"m": 1}, ["x", "y"], 90000)]
    assert cli("cron", "pause", "nightly", db=db).stdout == "cron nightly: paused\n"
    assert cli("cron", "pause", "nightly", db=db).stdout == "cron nightly: already paused\n"
    assert cli("cron", "resume", "nightly", db=db).stdout == "cron nightly: resumed\n"
    assert cli("cron", "resume", "nightly", db=db).stdout == "cron nightly: was not paused\n"
    assert cli("cron", "run", "nightly", db=db).stdout == "cron nightly: job 1\n"
    assert cli("cron", "run", "nightly", "nightly", "--json", db=db).stdout == '{"ids":[2,3]}\n'
    header, line = cli("cron", "list", db=db).stdout.splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "TIMEZONE", "KIND", "PAUSED", "NEXT", "LAST", "ERROR"]
    assert line.split() == ["nightly", "0", "3", "*", "*", "*", "Europe/Stockholm", "report", "no",
                            local_time(db, "nightly")]
    listed, = json.loads(cli("cron", "--json", db=db).stdout)
    assert (listed["name"], listed["args"], listed["paused"], listed["error"]) == ("nightly", {"a": 1}, False, None)
    assert cli("cron", "delete", "nightly", db=db).stdout == "cron nightly: deleted\n"
    assert json.loads(cli("cron", "list", "--json", db=db).stdout) == []


@pytest.mark.parametrize("args, code, message", [
    (("pause", "x", "y"), 66, 'jobqd cron pause: no cron has the name "x"\njobqd cron pause: no cron has the name "y"\n'),
    (("run", "x"), 66, 'jobqd cron run: no cron has the name "x"\n'),
    (("set", "a", "--kind", "k"), 64, "jobqd cron set: --schedule is required\n"),
    (("set", "a", "--schedule", "@daily"), 64, "jobqd cron set: --kind is required\n"),
    (("set", "a", "--schedule", "@daily", "--kind", "k", "--priority", "10"), 64,
     'jobqd cron set: --priority: "10" is not allowed: 0 to 9\n'),
    (("set", "a", "--schedule", "@daily", "--kind", "k", "--missed", "no"), 65,
     'jobqd cron set: missed must be skip, once or all, got "no"\n'),
    (("set", "a", "--schedule", "@daily", "--kind", "k", "--timezone", "Mars/Olympus"), 65,
     "jobqd cron set: timezone must be the name of a time zone that this server knows, such as Europe/Stockholm, got "
     '"Mars/Olympus"\n'),
    (("set", "a", "--schedule", "@daily", "--kind", "k", "--timeout", "0"), 64,
     'jobqd cron set: --timeout: "0" is not allowed: 1ms to 24d\n'),
])
def test_the_commands_refuse(db, cli, args, code, message):
    assert cli("cron", *args, db=db, code=code).stderr == message


# ---- an independent implementation ----

FROM = "2026-11-23T10:11:12Z"
CRONER = [  # (schedule, time zone, after)
    ("* * * * *", "UTC", FROM),
    ("0 * * * *", "UTC", FROM),
    ("*/5 * * * *", "UTC", FROM),
    ("*/7 * * * *", "UTC", FROM),
    ("*/60 * * * *", "UTC", FROM),
    ("3-59/10 * * * *", "UTC", FROM),
    ("0,15,30,45 * * * *", "UTC", FROM),
    ("1,2-4,50-58/4 * * * *", "UTC", FROM),
    ("59 23 * * *", "UTC", FROM),
    ("0 0 * * *", "UTC", FROM),
    ("30 4 * * *", "Asia/Kolkata", FROM),
    ("0 9-17 * * *", "America/New_York", FROM),
    ("0 */3 * * *", "UTC", FROM),
    ("0 1-23/5 * * *", "UTC", FROM),
    ("15 10,22 * * *", "Asia/Kathmandu", FROM),
    ("*/20 8-9 * * *", "Australia/Adelaide", FROM),
    ("0 12 * * 1-5", "Europe/London", FROM),
    ("0 12 * * mon-fri", "Europe/London", FROM),
    ("0 12 * * MON,WED,FRI", "Europe/London", FROM),
    ("0 12 * * sat,sun", "Europe/London", FROM),
    ("0 12 * * 0", "UTC", FROM),
    ("0 12 * * 7", "UTC", FROM),
    ("0 12 * * 5-7", "UTC", FROM),
    ("0 12 * * fri-sun", "UTC", FROM),
    ("0 12 * * */2", "UTC", FROM),
    ("0 0 1 * *", "UTC", FROM),
    ("0 0 15 * *", "Pacific/Auckland", FROM),
    ("0 0 31 * *", "UTC", FROM),
    ("0 0 30 * *", "UTC", FROM),
    ("0 0 29 * *", "UTC", FROM),
    ("0 0 */10 * *", "UTC", FROM),
    ("0 0 1,11,21 * *", "UTC", FROM),
    ("0 0 25-31 * *", "UTC", FROM),
    ("0 0 L * *", "UTC", FROM),
    ("0 18 L * *", "America/Los_Angeles", FROM),
    ("0 0 1,L * *", "UTC", FROM),
    ("0 0 L 2 *", "UTC", FROM),
    ("0 0 L feb,apr *", "UTC", FROM),
    ("0 0 29 2 *", "UTC", FROM),
    ("0 0 29 2 *", "UTC", "2092-03-01T00:00:00Z"),
    ("0 0 1 1 *", "UTC", FROM),
    ("0 0 1 jan *", "Asia/Tokyo", FROM),
    ("0 0 1 JAN,Jul *", "UTC", FROM),
    ("0 0 1 */3 *", "UTC", FROM),
    ("0 0 1 2-11/3 *", "UTC", FROM),
    ("0 6 * 6-8 *", "UTC", FROM),
    ("0 0 * * 5L", "UTC", FROM),
    ("0 0 * * friL", "UTC", FROM),
    ("0 0 * * 0L", "UTC", FROM),
    ("0 0 * 2 monL", "UTC", FROM),
    ("0 0 * * tueL,thuL", "UTC", FROM),
    ("0 0 13 * 5", "UTC", FROM),
    ("0 0 1 * mon", "UTC", FROM),
    ("0 0 */10 * 1", "UTC", FROM),
    ("0 0 1 * */3", "UTC", FROM),
    ("0 0 L * 5L", "UTC", FROM),
    ("0 0 1-7 * *", "America/Sao_Paulo", FROM),
    ("@yearly", "UTC", FROM),
    ("@annually", "UTC", FROM),
    ("@monthly", "UTC", FROM),
    ("@weekly", "UTC", FROM),
    ("@daily", "Europe/Stockholm", FROM),
    ("@hourly", "UTC", FROM),
    # Clocks set back by an hour: both take the first showing.
    ("30 2 * * *", "Europe/Stockholm", "2026-10-24T12:00:00Z"),
    ("*/30 * * * *", "Europe/Stockholm", "2026-10-24T23:10:00Z"),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z"),
    # Clocks set forward, and nothing of what is skipped.
    ("0 1,4 * * *", "Europe/Stockholm", "2026-03-28T12:00:00Z"),
    ("0 12 1,15 * *", "America/New_York", "2026-03-01T12:00:00Z"),
]


@pytest.fixture(scope="session")
def croner(build):
    """croner, installed in the build tree: a function from questions to its answers (tests/croner/next.mjs)."""
    source, place = pathlib.Path(__file__).resolve().parents[1] / "croner", build / "tests" / "croner"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lockfile = (source / "package-lock.json").read_bytes()
        installed = place / "installed.json"
        if not installed.exists() or installed.read_bytes() != lockfile:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(source / name, place / name)
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=place, capture_output=True,
                                  text=True, timeout=200)
            assert done.returncode == 0, f"npm ci: exit {done.returncode}\n{done.stdout}{done.stderr}"
            installed.write_bytes(lockfile)
        shutil.copy(source / "next.mjs", place / "next.mjs")

    def ask(questions):
        done = subprocess.run(["node", "next.mjs"], cwd=place, input=json.dumps(questions), capture_output=True, text=True,
                              timeout=100)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return ask


def test_an_independent_implementation_agrees(db, cli, croner):
    """The next 5 times of each, by croner, by SQL and by C."""
    assert len(CRONER) >= 60
    answers = croner([{"schedule": s, "timezone": z, "from": f, "n": 5} for s, z, f in CRONER])
    for (schedule, zone, start), answer in zip(CRONER, answers, strict=True):
        assert len(answer) == 5
        assert sql_times(db, schedule, zone, start, 5) == answer, (schedule, zone, start)
        assert c_times(cli, schedule, zone, start, 5) == answer, (schedule, zone, start)


def test_cron_next_ends_with_the_year_9999(cli):
    assert cli("cron", "next", "@yearly", "--from", "9997-05-01T00:00:00Z", "--json").stdout == \
        '["9998-01-01T00:00:00Z","9999-01-01T00:00:00Z"]\n'
    assert cli("cron", "next", "@every 1s", "--from", "9999-12-31T23:59:59Z", "--json").stdout == "[]\n"
    assert cli("cron", "next", "@every 1h", "--from", "9999-12-31T12:00:00Z", "--timezone", "Pacific/Auckland").stdout == ""
