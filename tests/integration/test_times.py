"""A time that is read names its zone, and one that is printed does so, too: whatever TimeZone and DateStyle are."""

import json
import re

import psycopg
import pytest

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
NAIVE = ["2026-02-01", "2026-02-01 10:00", "2026-02-01T10:00:00", "2026-02-01T10:00:00.5", "01/02/2026 10:00"]
ZONED = ["2026-02-01T10:00:00Z", "2026-02-01 10:00:00+00", "2026-02-01T11:00+01:00", "2026-02-01T05:00:00.000000-0500"]


@pytest.fixture
def odd(db):
    """A server whose zone and DateStyle are far from anybody's expectation."""
    name = db.value("SELECT current_database()")
    db.query(f"ALTER DATABASE {name} SET TimeZone = 'Pacific/Apia'")
    db.query(f"ALTER DATABASE {name} SET DateStyle = 'SQL, DMY'")
    db._looker.close()
    return db


def refused(db, sql, *params):
    with pytest.raises(psycopg.Error) as caught:
        db.query(sql, params)
    assert caught.value.sqlstate == "22023"
    return caught.value.diag.message_primary


@pytest.mark.parametrize("time", NAIVE)
@pytest.mark.parametrize("member", ["inserted_before", "inserted_after", "scheduled_before", "scheduled_after", "finished_before",
                                    "finished_after"])
def test_a_filter_refuses_a_time_without_a_zone(odd, member, time):
    for call in ("cancel_many", "retry_many", "delete_many"):
        said = refused(odd, f"SELECT jobq.{call}(%s::jsonb)", json.dumps({member: time}))
        assert said == (f'jobq.{call}: filter.{member} must be a time with its zone, such as "2026-01-31T12:00:00Z" or '
                        f'"2026-01-31T13:00:00+01:00", got "{time}"')


@pytest.mark.parametrize("time", ZONED)
def test_a_filter_takes_a_time_with_its_zone(odd, time):
    early, late = ("2026-02-01T09:59:59Z", "2026-02-01T10:00:01Z")
    for at in (early, late):
        odd.query("INSERT INTO jobq.jobs (kind, scheduled_at) VALUES ('k', %s)", (at,))
    assert odd.value("SELECT jobq.cancel_many(%s::jsonb)", (json.dumps({"scheduled_before": time}),)) == 1


@pytest.mark.parametrize("member", ["scheduled_at", "expires_at"])
@pytest.mark.parametrize("time", NAIVE)
def test_enqueue_many_refuses_a_time_without_a_zone(odd, member, time):
    for call in ("enqueue_many", "try_enqueue_many"):
        said = refused(odd, f"SELECT jobq.{call}(%s::jsonb)", json.dumps([{"kind": "a"}, {"kind": "b", member: time}]))
        assert said == (f'jobq.{call}: jobs[1].{member} must name its zone, as in "2026-01-31T12:00:00Z" or '
                        f'"2026-01-31T13:00:00+01:00", got "{time}"')


@pytest.mark.parametrize("time", ZONED)
def test_enqueue_many_takes_a_time_with_its_zone(odd, time):
    odd.query("SELECT jobq.enqueue_many(%s::jsonb)", (json.dumps([{"kind": "k", "scheduled_at": time}]),))
    assert odd.value("SELECT scheduled_at = '2026-02-01T10:00:00Z' FROM jobq.jobs")


@pytest.mark.parametrize("words", [["enqueue", "k", "--at"], ["enqueue", "k", "--expires-at"], ["jobs", "--before"],
                                   ["cancel", "--before"], ["retry", "--before"], ["delete", "--yes", "--before"]])
def test_the_commands_refuse_a_time_without_a_zone(cli, words):
    """Before they ask any database."""
    option = words[-1]
    for time in ("2099-02-01", "2099-02-01 10:00", "2099-02-01T10:00:00"):
        done = cli(*words, time, "--database", "postgresql://nowhere.invalid/x", code=65)
        assert done.stderr == (f'jobqd {words[0]}: {option}: "{time}" has no time zone: write it as 2026-11-22T10:11:12Z or '
                               "2026-11-22T11:11:12+01:00\n")
    done = cli(*words, "infinity", "--database", "postgresql://nowhere.invalid/x", code=65)
    assert f'{option}: "infinity" is not a time: write it as 2026-11-22T10:11:12Z' in done.stderr


def test_lines_of_input_name_their_zone(odd, cli):
    done = cli("enqueue", "-", input='{"kind": "a"}\n{"kind": "b", "scheduled_at": "2099-02-01 10:00"}\n', db=odd, code=65)
    assert 'line 2: scheduled_at must name its zone, as in "2026-01-31T12:00:00Z"' in done.stderr


@pytest.mark.parametrize("time", ["2099-02-01T10:00:00Z", "2099-02-01 10:00:00+00", "2099-02-01T11:00:00+0100"])
def test_the_commands_take_a_time_with_its_zone(odd, cli, time):
    cli("enqueue", "k", "--at", time, db=odd)
    assert odd.value("SELECT scheduled_at = '2099-02-01T10:00:00Z' FROM jobq.jobs")


def times_of(value):
    """Everything in a document that is a time by its name."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key.endswith("_at") and member is not None:
                yield member
            yield from times_of(member)
    elif isinstance(value, list):
        for member in value:
            yield from times_of(member)


def test_every_output_has_one_format(odd, cli):
    job = odd.enqueue("k")
    odd.query("SELECT jobq.cancel(%s)", (odd.enqueue("c"),))
    odd.query("SELECT jobq.cron_set('x', '@daily', 'k')")
    for words in (["jobs"], ["job", job], ["cron", "list"], ["queues"]):
        found = list(times_of(json.loads(cli(*words, "--json", db=odd).stdout)))
        assert all(re.fullmatch(UTC, time) for time in found), found
        assert found or words == ["queues"]
    shown = cli("job", job, db=odd).stdout
    assert re.search(rf"inserted +{UTC} \(\d+ s ago\)", shown), shown
    later = odd.enqueue("k", scheduled_at="2099-01-01T00:00:00Z")
    assert re.search(r"due +2099-01-01T00:00:00Z \(in \d+ d\)", cli("job", later, db=odd).stdout)


def test_next_is_in_the_cron_s_own_zone(odd, cli):
    odd.query("SELECT jobq.cron_set('a', '30 2 1 7 *', 'k', timezone => 'Europe/Stockholm'), jobq.cron_set('b', '30 2 1 7 *', 'k'),"
              " jobq.cron_set('c', '30 2 1 7 *', 'k', timezone => 'America/St_Johns')")
    a, b, c = cli("cron", "list", db=odd).stdout.splitlines()[1:]
    assert "-07-01T02:30:00+02:00" in a
    assert "-07-01T02:30:00Z" in b
    assert "-07-01T02:30:00-02:30" in c
