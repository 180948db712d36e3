"""What a value may take: how errors are kept within bounds, and what each door refuses."""

import json

import pytest

LONG = "1e131071"  # 8 bytes in a jsonb, 131,072 digits as text


def add_error(db, errors, entry):
    return db.value("SELECT jobq._add_error(%s::jsonb, %s::jsonb)", [errors, entry])


# ---- errors: _add_error ----

@pytest.mark.parametrize("errors, kept", [
    (None, []), ("null", []), ("{}", []), ("3", []), ('"text"', []), ("[]", []), ('{"a": 1}', [{"a": 1}]),
    ('[{"a": 1}]', [{"a": 1}]), ('["x", 3]', [{"error": "x"}, {"error": "this entry was not an object: number"}]),
    (f'[{{"a": {LONG}, "b": 1}}]', [{"b": 1}]), (f'{{"a": [{LONG}], "b": 1}}', [{"b": 1}]),
])
def test_an_error_is_added_whatever_was_there(db, errors, kept):
    assert add_error(db, errors, '{"kind": "error"}') == [*kept, {"kind": "error"}]


@pytest.mark.parametrize("entry, kept", [
    (None, {"error": "this entry was not an object: null"}), ('"text"', {"error": "text"}),
    ("[]", {"error": "this entry was not an object: array"}),
    (f'{{"kind": "x", "n": {LONG}, "z": 0e-16383, "m": -1e40, "list": [1]}}', {"kind": "x"}),
    ('{"n": 1e39, "f": 1e-40}', {"n": 10**39, "f": 1e-40}),
])
def test_whatever_is_added_is_an_object_within_bounds(db, entry, kept):
    assert add_error(db, "[]", entry) == [kept]


@pytest.mark.parametrize("n, sixth", [(99, 6), (100, 7), (101, 8), (500, 407)])
def test_of_many_errors_the_first_five_and_the_newest_are_kept(db, n, sixth):
    errors = add_error(db, json.dumps([{"attempt": i} for i in range(1, n + 1)]), '{"attempt": "new"}')
    assert [e["attempt"] for e in errors] == [1, 2, 3, 4, 5, *range(sixth, n + 1), "new"]
    assert len(errors) == 100


def test_long_texts_of_an_error_are_cut_between_characters(db):
    text = "ä€𝄞b" * 30000
    [kept] = add_error(db, "[]", json.dumps({"error": text, "detail": text + "end", "output": text, "node": "n"}))
    assert kept["node"] == "n"
    assert 4092 < len(kept["error"].encode()) <= 4096 and text.startswith(kept["error"])
    for member in ("detail", "output"):
        head, mark, tail = kept[member].partition("\n[... ")
        said, _, tail = tail.partition(" bytes are left out ...]\n")
        assert mark and text.startswith(head) and (text + "end" * (member == "detail")).endswith(tail)
        assert 65000 < len(kept[member].encode()) <= 65536 and abs(300000 - 65536 - int(said)) < 100


def test_errors_that_grew_before_there_was_a_bound_shrink(db):
    errors = json.dumps([{"attempt": i, "error": "x" * 1_000_000, "other": "y" * 100_000} for i in range(3)])
    assert add_error(db, errors, "{}") == [*({"attempt": i, "error": "x" * 4096} for i in range(3)), {}]


@pytest.mark.parametrize("errors", ["{}", "null", f'[{LONG}]', '"none"'])
def test_a_job_with_odd_errors_expires(db, errors):
    job = db.enqueue("work", expires_at="2000-01-01Z")
    db.query("UPDATE jobq.jobs SET errors = %s WHERE id = %s", [errors, job])
    assert db.value("SELECT jobq._expire_jobs()") == 1
    state, kinds = db.query("SELECT state, jsonb_path_query_array(errors, '$[*].kind') FROM jobq.all_jobs")[0]
    assert (state, kinds) == ("cancelled", ["expired"])


# ---- what an operator sees of such a job ----

@pytest.mark.parametrize("errors", ["{}", "null", "3", '"none"', f'[{LONG}]', '["x", 1]', '{"kind": "x", "error": 3}',
                                    f'[{{"attempt": {LONG}, "run_ms": {LONG}, "kind": [1]}}]', '[{"run_ms": -1e-300}]'])
def test_a_job_is_shown_whatever_its_errors_hold(db, cli, errors):
    job = db.enqueue("work")
    db.query("UPDATE jobq.jobs SET errors = %s WHERE id = %s", [errors, job])
    assert "work" in cli("job", job, db=db).stdout
    assert len(cli("jobs", db=db).stdout) < 1000
    assert json.loads(cli("job", job, "--json", db=db).stdout)["id"] == job
    assert [row["id"] for row in json.loads(cli("jobs", "--json", db=db).stdout)] == [job]
    assert cli("cancel", job, db=db).stdout
    assert "cancelled" in cli("job", job, db=db).stdout


@pytest.mark.parametrize("column, value, what", [
    ("args", f"(SELECT jsonb_build_object('a', jsonb_agg({LONG})) FROM generate_series(1, 9000))", "of at least"),
    *((column, f"jsonb_build_object('a', {LONG})", "a number in an object of 131079 bytes") for column in ("args", "meta", "errors")),
    ("errors", "jsonb_build_object('x', repeat('x', 70000000))", "an object of at least"),
], ids=["numbers", "number in args", "number in meta", "number in errors", "text"])
def test_what_nobody_reads_is_not_sent(db, cli, column, value, what):
    """It may be there from before there was a bound, or by an UPDATE of an operator's."""
    job = db.enqueue("work")
    db.query(f"UPDATE jobq.jobs SET {column} = {value} WHERE id = %s", [job])
    shown = cli("job", job, db=db).stdout
    assert "too long to show: " in shown and what in shown and len(shown) < 2000
    found = json.loads(cli("job", job, "--json", db=db).stdout)
    assert found[column].startswith("too long to show: ")
    assert json.loads(cli("jobs", "--json", db=db).stdout) == [found]
    assert "work" in cli("jobs", db=db).stdout
    cli("delete", job, db=db)
    assert db.states() == {}
