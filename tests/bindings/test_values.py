"""What a job may take and return, from the table of app.values: each value is the same for the function, or is refused before
there is a job; and no function runs again because of what it returned."""

import collections
import datetime
import enum
import re

import pytest

import jobq
from app import values
from jobq import encoding
from jobq.handlers import check_job
from app.values import DECLARED, JOB, SAME, TABLE
from test_worker import queue  # noqa: F401

N = range(len(TABLE))


def shown(value):
    return repr(value)[:1000]


def test_the_table_is_long():
    assert len(TABLE) >= 200


@pytest.mark.parametrize("n", N, ids=lambda n: f"{n}-{getattr(TABLE[n][0], '__name__', TABLE[n][0])}-{type(TABLE[n][1]).__name__}")
def test_an_argument_is_the_same_or_refused(n):
    """What the worker would convert, without a worker."""
    annotation, value, wanted, _ = TABLE[n]
    if wanted == DECLARED:
        assert re.match(r"take_?\w*'s value cannot be a job's argument: ", values.REFUSED[n])
        return
    assert n not in values.REFUSED, values.REFUSED.get(n)
    handler = jobq.handlers()[f"take-{n}"]
    if wanted == JOB:
        with pytest.raises(jobq.InvalidError, match=r"^args"):
            check(handler.job(value))
        return
    job = handler.job(value)
    check(job)
    got = handler.parameters.convert(job.args)["value"]
    if isinstance(got, datetime.datetime) and isinstance(value, datetime.datetime):
        assert got.timestamp() == value.timestamp() if got.tzinfo else got == value
    elif type(value) is type(got):
        assert got == value or shown(got) == shown(value) or vars(got) == vars(value)


def has_this_repr(annotation, value):
    """A zone's name is not carried, its offset is."""
    return type(value) is annotation and getattr(value, "tzinfo", None) is not values.STOCKHOLM


def check(job):
    """As enqueueing it would, without a database; nesting is libjobq's to count."""
    check_job(job)
    if shown(job.args).count("[") > 150:
        raise jobq.InvalidError("args: nests deeper than 128 levels")


def test_a_float_that_is_written_with_an_exponent_is_whole_in_the_database(client):
    numbers = [1e15, 1e16, 1e300, 1.5, 1e-7]
    got = client.get(client.enqueue("numbers", {"numbers": numbers})).args["numbers"]
    assert [float(each) for each in got] == numbers and [type(each) for each in got] == [float, int, int, float, float]


@pytest.mark.parametrize("program", ["app.values", "--concurrency 8 app.values"], ids=["plain", "many"])
def test_no_function_runs_again_because_of_its_result(client, jobqd, db, queue, program, tmp_path):  # noqa: F811
    log = tmp_path / "ran"
    jobqd(db, {"default": queue(program, env=f"VALUES_RAN={log}", concurrency=2)})
    takes = {n: jobq.handlers()[f"take-{n}"].job(TABLE[n][1]) for n in N if TABLE[n][2] == SAME}
    kind = "give" if program == "app.values" else "later"
    gives = {n: jobq.NewJob(f"{kind}-{n}") for n in N}
    ids = client.enqueue_many([*takes.values(), *gives.values(), jobq.NewJob("give-large")])
    ended = [client.wait(job, 120) for job in ids]
    wrong = []
    for n, job in zip(takes, ended):
        if job.state != "completed" or (has_this_repr(*TABLE[n][:2]) and job.result != shown(TABLE[n][1])):
            wrong.append((n, TABLE[n], job.state, job.result, job.errors))
    for n, job in zip(gives, ended[len(takes):]):
        fault = TABLE[n][3]
        said = job.errors[0].error if job.errors else ""
        if job.state != "completed" or job.attempt != 1 or bool(fault) != bool(job.errors) or not re.search(fault, said):
            wrong.append((n, TABLE[n], job.state, job.result, job.errors))
        elif fault and (job.result is not None or not said.startswith("the result was left out: ")):
            wrong.append((n, "result", job.result, said))
    assert not wrong, "\n".join(str(row)[:500] for row in wrong)
    large = ended[-1]
    assert (large.state, large.result) == ("completed", None)
    assert "the answer takes 5000" in large.errors[0].error and "at most 4194304 are allowed" in large.errors[0].error
    runs = collections.Counter(log.read_text().split())
    assert set(runs.values()) == {1}, runs
    assert sum(runs.values()) == len(ids)


def test_an_enum_is_its_value_whatever_its_base():
    """Also where the base is a type that jobq writes itself, or that is registered."""
    class Code(values.Money, enum.Enum):
        ONE = "1.10"

    assert [encoding.dumps(each) for each in (values.Rate.STANDARD, values.FreeDay.MAY, Code.ONE)] == ['"0.25"', '"2031-05-01"', '"1.10"']
    n = next(n for n in N if TABLE[n][:2] == (values.Rate, values.Rate.STANDARD))
    handler = jobq.handlers()[f"take-{n}"]
    assert handler.job(values.Rate.STANDARD).args == {"value": "0.25"}
    assert handler.parameters.convert({"value": "0.25"})["value"] is values.Rate.STANDARD
