"""jobqd bench: each measurement, small: that it prints what it should. No figure is asserted, but those that are counts."""

import json
import os
import tempfile

import pytest


def measure(cli, *args):
    return json.loads(cli("bench", *args, "--json").stdout)


def test_drain_counts_every_claim_as_hot_and_compares_with_the_limit(cli, empty_db):
    report = measure(cli, "drain", "--jobs", 2000, "--workers", 2, "--with-limit", "--database", empty_db.uri)
    assert (report["jobs"], report["workers"], report["keep"]) == (2000, 2, "all")
    (first,) = report["rounds"]
    assert first["n_tup_upd"] == first["n_tup_hot_upd"] == 2000
    for name in ("jobs_per_s", "wal_bytes_per_job", "jobqd_rss_kb", "limit_jobs_per_s", "percent_of_limit"):
        assert first[name] > 0, name
    assert report["best_jobs_per_s"] == report["median_jobs_per_s"] == first["jobs_per_s"]


def test_drain_without_history(cli, empty_db):
    report = measure(cli, "drain", "--jobs", 1000, "--keep", "none", "--rounds", 2, "--database", empty_db.uri)
    assert report["keep"] == "none"
    assert len(report["rounds"]) == 2


def test_drain_with_vacuum_held_back_shows_the_tenths(cli, empty_db):
    report = measure(cli, "drain", "--jobs", 5000, "--vacuum-held", "--database", empty_db.uri)
    tenths = report["rounds"][0]["tenths"]
    assert list(tenths) == [f"tenth_{i}_ms" for i in range(1, 11)]
    assert report["rounds"][0]["last_tenth_to_first"] >= 0


def test_limit(cli, empty_db):
    report = measure(cli, "limit", "--jobs", 3000, "--batch", 256, "--database", empty_db.uri)
    assert report["batch"] == 256
    assert report["best_jobs_per_s"] > 0


def test_explain_walks_the_claim_index_at_every_size(cli, empty_db):
    report = measure(cli, "explain", "--jobs", 20000, "--database", empty_db.uri)
    assert list(report) == [f"claim_512_of_{n}_available" for n in (0, 1000, 20000)]
    for plan in report.values():
        assert "Index Scan using jobs_claim" in plan
        assert "Seq Scan" not in plan and "Buffers:" in plan


def test_latency(cli, empty_db):
    report = measure(cli, "latency", "--jobs", 50, "--pause-ms", 2, "--database", empty_db.uri)
    for name in ("insert_and_commit", "commit_to_start", "one_bare_commit"):
        assert list(report[name]) == ["p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms"]
    assert report["one_bare_commit"]["p50_ms"] > 0
    for percentile, ratio in report["start_to_bare_commit"].items():
        start, bare = (report[name][percentile + "_ms"] for name in ("commit_to_start", "one_bare_commit"))
        assert ratio == pytest.approx(start / bare, rel=0.05, abs=0.02)
    assert list(report["start_to_bare_commit"]) == ["p50", "p99"]
    assert report["later_than_100_ms"] in range(51)


def test_enqueue_shows_each_way_with_one_connection_and_with_more(cli, empty_db):
    report = measure(cli, "enqueue", "--connections", 2, "--seconds", 1, "--database", empty_db.uri)
    assert list(report) == ["jobq_enqueue", "jobq_enqueue_many_of_1000", "sql_insert", "sql_enqueue",
                            "sql_enqueue_many_of_1000"]
    for way in report.values():
        assert list(way) == ["jobs_per_s_of_1_connection", "jobs_per_s_of_2_connections"]


def test_wakeup_compares_notify_on_and_off(cli, empty_db):
    report = measure(cli, "wakeup", "--connections", 2, "--seconds", 1, "--rounds", 1, "--database", empty_db.uri)
    assert set(report["rounds"][0]) == {"notify_on_inserts_per_s", "notify_off_inserts_per_s"}
    assert report["best_on_percent_of_best_off"] > 0


def test_memory_reads_it_after_each_step(cli, empty_db):
    report = measure(cli, "memory", "--jobs", 2500, "--step", 1000, "--database", empty_db.uri)
    assert [step["jobs"] for step in report["steps"]] == [1000, 2000, 2500]
    assert all(step["jobqd_rss_kb"] > 0 for step in report["steps"])


def test_by_itself_it_runs_on_a_database_of_its_own_and_leaves_nothing(cli):
    with tempfile.TemporaryDirectory(prefix="jobq-test-bench-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # the server's user must get through
        done = cli("bench", "limit", "--jobs", 100, env={"TMPDIR": folder, "DATABASE_URL": "postgresql:///not-this-one"})
        assert "best jobs per s" in done.stdout
        assert os.listdir(folder) == []


def test_its_schema_is_gone_afterwards_and_another_is_never_touched(cli, db):
    cli("bench", "limit", "--jobs", 100, db=db)
    assert db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq_bench'") == 0
    assert db.value("SELECT count(*) FROM jobq.jobs") == 0
    refused = cli("bench", "limit", "--schema", "jobq", db=db, code=65)
    assert refused.stderr == ('jobqd bench limit: --schema: "jobq" is not allowed: it must begin with jobq_bench, '
                              "since bench drops it\n")


def test_a_schema_that_is_there_is_refused_unless_forced(cli, empty_db):
    empty_db.query("CREATE SCHEMA jobq_bench")
    refused = cli("bench", "limit", "--jobs", 100, db=empty_db, code=65)
    assert refused.stderr == ("jobqd bench limit: the schema jobq_bench exists: another bench is running, or one was "
                              "killed; --force drops it\n")
    cli("bench", "limit", "--jobs", 100, "--force", db=empty_db)


@pytest.mark.parametrize("args, message", [
    ((), "jobqd bench: no measurement given; the measurements are drain, limit, latency, enqueue, wakeup, memory and explain "
         "(see jobqd bench --help)"),
    (("speed",), 'jobqd bench: unknown measurement "speed"; the measurements are drain, limit, latency, enqueue, wakeup, memory and '
                 "explain (see jobqd bench --help)"),
    (("drain", "--jobs", "0"), 'jobqd bench drain: --jobs: "0" is not allowed: 1 to 100000000'),
    (("drain", "--keep", "some"), 'jobqd bench drain: --keep: "some" is not allowed: all or none'),
    (("drain", "--keep", "none", "--vacuum-held"),
     "jobqd bench drain: --vacuum-held needs --keep all and at least 10 jobs: the claims' times are read from the history"),
    (("limit", "--batch", "500"), 'jobqd bench limit: --batch: "500" is not allowed: a power of two'),
    (("latency", "--pause-ms", "x"), 'jobqd bench latency: --pause-ms: "x" is not allowed: 0 to 60000'),
])
def test_a_wrong_command_line(cli, args, message):
    assert cli("bench", *args, code=64).stderr == message + "\n"


def test_the_worker_is_for_bench_alone(cli):
    refused = cli("bench", "worker", code=65)
    assert refused.stderr == "jobqd bench worker: JOBQ_BENCH_SHARED is not set: only bench's own workers run this\n"


def test_drain_with_a_worker_of_somebody_elses(cli, empty_db, programs):
    command = programs("noop_worker")
    report = measure(cli, "drain", "--jobs", 2000, "--workers", 2, "--command", command, "--database", empty_db.uri)
    assert report["command"] == command
    (first,) = report["rounds"]
    assert first["n_tup_upd"] == 2000 and first["jobs_per_s"] > 0 and "workers_cpu_us_per_job" not in first
    refused = cli("bench", "drain", "--command", command, "--keep", "none", "--database", empty_db.uri, code=64)
    assert "--command needs --keep all" in refused.stderr
