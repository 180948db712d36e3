"""The last line of a test run tells the truth."""

import pytest

from harness import tally


def cmocka(ran, failed, skipped=0):
    return (f"[==========] Running {ran} test(s).\n[==========] {ran} test(s) run.\n[  PASSED  ] {ran - failed - skipped} test(s).\n"
            + (f"[  SKIPPED ] {skipped} test(s), listed below:\n[  SKIPPED ] b\n\n {skipped} SKIPPED TEST(S)\n" if skipped else "")
            + (f"[  FAILED  ] {failed} test(s), listed below:\n[  FAILED  ] a\n" if failed else ""))


def case(inside="", status="run"):
    return f'<testcase name="n" classname="c" status="{status}">{inside}</testcase>'


CASES = [
    ("a pytest test", '<testcase name="n" classname="c"/>', (1, 0)),
    ("one that failed", '<testcase name="n"><failure message="m"/></testcase>', (0, 1)),
    ("one whose fixture failed", '<testcase name="n"><error message="m"/></testcase>', (0, 1)),
    ("one that was skipped", '<testcase name="n"><skipped message="m"/></testcase>', (0, 1)),
    ("a program with 7 tests", case(f"<system-out>{cmocka(7, 0)}</system-out>"), (7, 0)),
    ("one with two groups", case(f"<system-out>{cmocka(7, 0)}{cmocka(2, 0)}</system-out>"), (9, 0)),
    ("two of its tests failed", case(f"<failure/><system-out>{cmocka(7, 2)}</system-out>", "fail"), (5, 2)),
    ("it crashed", case("<failure/><system-out>[==========] Running 7 test(s).</system-out>", "fail"), (0, 1)),
    ("it leaked in the end", case(f"<failure/><system-out>{cmocka(7, 0)}</system-out>", "fail"), (6, 1)),
    ("it was not there", case("", "notrun"), (0, 1)),
]


@pytest.mark.parametrize("text,expected", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_counts(tmp_path, capsys, text, expected):
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{text}</testsuite>")
    code = tally.main([str(report)])
    assert capsys.readouterr().out.splitlines()[-1] == f"{expected[0]} passed, {expected[1]} failed"
    assert code == (1 if expected[1] else 0)


@pytest.mark.parametrize("user,expected", [(0, "6 passed, 1 failed"), (1000, "6 passed, 0 failed")])
def test_a_skipped_c_test_is_left_out_of_an_ordinary_users_run_only(tmp_path, capsys, monkeypatch, user, expected):
    monkeypatch.setattr("os.geteuid", lambda: user)
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{case(f'<system-out>{cmocka(7, 0, skipped=1)}</system-out>')}</testsuite>")
    tally.main([str(report)])
    assert capsys.readouterr().out.splitlines()[-1] == expected


@pytest.mark.parametrize("arguments", [["missing.xml"], ["--failed", "building build-test"], []])
def test_what_did_not_run_is_a_failure(capsys, arguments):
    assert tally.main(arguments) == 1
    assert "0 passed" in capsys.readouterr().out.splitlines()[-1]
