"""The checker checks: a ledger in which a job ran twice at once is refused."""

import pytest

from harness.ledger import Ledger


def ledger_of(tmp_path, *lines):
    path = tmp_path / "ledger"
    path.write_text("".join(line + "\n" for line in lines))
    return Ledger(path).read()


def test_one_run_after_the_other_is_fine(tmp_path):
    ledger = ledger_of(tmp_path, "W 10 1 100", "W 11 1 100", "S 10 7 1 200", "E 10 7 1 300", "S 11 7 2 400", "E 11 7 2 500")
    ledger.check_never_twice_at_once()
    assert [run.attempt for run in ledger.by_job()[7]] == [1, 2]
    assert ledger.ended == 2


def test_a_killed_process_leaves_a_run_without_an_end(tmp_path):
    ledger = ledger_of(tmp_path, "W 10 1 100", "W 11 1 100", "S 10 7 1 200", "S 11 7 2 400", "E 11 7 2 500")
    ledger.check_never_twice_at_once()
    assert ledger.workers[0].current.job == 7


def test_a_lock_that_a_dying_process_still_held_is_no_fault(tmp_path):
    ledger_of(tmp_path, "W 10 1 100", "W 11 1 100", "S 10 7 1 200", "O 11 7 2 390 10 2", "S 11 7 2 400",
              "E 11 7 2 500").check_never_twice_at_once()


@pytest.mark.parametrize("fault, lines", [
    ("two runs at the same time", ["S 10 7 1 200", "S 11 7 2 250", "E 10 7 1 300", "E 11 7 2 400"]),
    ("an attempt ran again", ["S 10 7 1 200", "E 10 7 1 300", "S 11 7 1 400", "E 11 7 1 500"]),
    ("ran twice at the same time", ["S 10 7 1 200", "O 11 7 2 250 10 5000", "S 11 7 2 5000250"]),
    ("ran twice at the same time", ["S 10 7 1 200", "O 11 7 2 250 10 1", "E 10 7 1 300", "S 11 7 2 400"]),
])
def test_twice_at_once_is_found(tmp_path, fault, lines):
    ledger = ledger_of(tmp_path, "W 10 1 100", "W 11 1 100", *lines)
    with pytest.raises(AssertionError, match=fault):
        ledger.check_never_twice_at_once()
