"""What jobqd says to somebody who does not know it yet: the usage, help, and what was probably meant."""

import os
import shutil
import subprocess

import pytest

from harness.daemon import clean_environment

COMMANDS = ["run", "config", "doctor", "reload", "upgrade", "enqueue", "jobs", "job", "cancel", "retry", "delete", "purge", "queues",
            "pause", "resume", "scale", "cron", "migrate", "bench", "version", "help"]
PARTS = [f"cron {part}" for part in ("list", "next", "set", "pause", "resume", "delete", "run")] + [
    f"bench {part}" for part in ("drain", "limit", "latency", "enqueue", "wakeup", "memory", "explain")]


def test_without_a_command_the_usage_is_printed(cli, empty_db):
    """Not a daemon on whatever DATABASE_URL says."""
    done = cli(code=64, env={"DATABASE_URL": empty_db.uri}, timeout=20)
    assert done.stdout == ""
    assert done.stderr.startswith("usage: jobqd [OPTION]... COMMAND")
    for command in COMMANDS:
        assert f"\n  {command} " in done.stderr
    for title in ("Run", "Jobs", "Queues and crons", "Database", "More"):
        assert f"\n{title}:\n" in done.stderr


@pytest.mark.parametrize("words, message", [
    (["-c", "jobqd.conf"], "no command given; `jobqd run` runs the queues"),
    (["-c"], "the last option needs an argument, and then a command"),
    (["--node", "a", "run"], "the options of a command come after it: write jobqd COMMAND OPTION"),
])
def test_options_without_a_command(cli, words, message):
    done = cli(*words, code=64, timeout=20)
    assert done.stderr.startswith(f"jobqd: {message}\n\nusage: jobqd ")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["help", "--help"]])
def test_the_help_goes_to_standard_output(cli, words):
    done = cli(*words)
    assert done.stdout.startswith("usage: jobqd [OPTION]... COMMAND") and done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS + PARTS)
def test_help_of_each_command(cli, command):
    words = command.split()
    text = cli("help", *words).stdout
    assert text == cli(*words, "--help").stdout
    assert all(len(line) <= 80 for line in text.splitlines()), text
    if command not in ("cron", "bench", "help", "version") and not command.startswith("bench"):
        examples = text.split("\nExamples:\n")[1].split("\n\n")[0].splitlines()
        assert all(line.startswith(f"  jobqd {command}") for line in examples), examples


@pytest.mark.parametrize("words, meant", [
    (["jbos"], "did you mean jobs?"),
    (["enque"], "did you mean enqueue?"),
    (["help", "quues"], "did you mean queues?"),
    (["cron", "lsit"], "did you mean list?"),
    (["bench", "dain"], "did you mean drain?"),
    (["jobs", "--quue", "a"], "did you mean --queue?"),
    (["enqueue", "k", "--max_attempt=3"], "did you mean --max-attempts?"),
    (["enqueue", "k", "--m=3"], "it may be --max-attempts, --meta"),
])
def test_what_was_meant(cli, words, meant):
    done = cli(*words, code=64)
    assert meant in done.stderr


@pytest.mark.parametrize("words", [["frobnicate"], ["jobs", "--frobnicate"], ["cron", "frobnicate"]])
def test_nothing_is_guessed_from_afar(cli, words):
    assert "did you mean" not in cli(*words, code=64).stderr


@pytest.mark.parametrize("text, meant", [
    ("[queue a]\nexec = /bin/true\nconcurency = 3\n", "; did you mean concurrency?"),
    ("[jobqd]\nlogformat = json\n", "; did you mean log_format?"),
    ("[jobqd]\nconcurrency = 3\n", "; it is an option of [queue NAME]"),
    ("[queue a]\nexec = /bin/true\nlease = 3s\n", "; it is an option of [jobqd]"),
    ("[cron a]\nshedule = @daily\n", "; did you mean schedule?"),
    ("[quue a]\n", "; did you mean [queue a]?"),
    ("[job]\n", "; did you mean [jobqd]?"),
])
def test_what_was_meant_in_a_configuration(cli, tmp_path, text, meant):
    conf = tmp_path / "jobqd.conf"
    conf.write_text(text)
    assert cli("config", "check", "-c", conf, code=78).stderr.rstrip("\n").partition("Allowed here are")[0].rstrip(". ").endswith(meant)


# ---- which configuration ----

@pytest.fixture
def confs(tmp_path):
    """Two configurations, told apart by their node's name."""
    made = []
    for name in ("one", "two"):
        conf = tmp_path / f"{name}.conf"
        conf.write_text(f"[jobqd]\nnode = {name}\n")
        made.append(str(conf))
    return made


def node(done):
    return next(line.split(" = ")[1] for line in done.stdout.splitlines() if line.startswith("node = "))


def test_options_may_stand_before_the_command(cli, confs):
    one, two = confs
    assert node(cli("-c", one, "config", "print")) == "one"
    assert node(cli(f"--config={one}", "config", "print")) == "one"
    assert node(cli("-c", one, "config", "print", "-c", two)) == "two"
    assert cli("--schema", "other", "-c", one, "config", "print").stdout.count("schema = other\n") == 1


def test_options_may_stand_before_a_command_of_two_words(cli, db, confs):
    cli("--database", db.uri, "cron", "set", "x", "--schedule", "@daily", "--kind", "k")
    assert "x" in cli("-c", confs[0], "cron", "list", "--database", db.uri).stdout


def test_the_environment_names_a_configuration(cli, confs):
    one, two = confs
    assert node(cli("config", "print", env={"JOBQ_CONFIG": one})) == "one"
    assert node(cli("config", "print", "-c", two, env={"JOBQ_CONFIG": one})) == "two"
    done = cli("config", "check", env={"JOBQ_CONFIG": one + ".gone"}, code=None)
    assert done.returncode != 0 and one + ".gone: No such file or directory" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a mount namespace")
def test_the_host_s_own_configuration_counts_where_it_is(jobqd_program, tmp_path, confs):
    """In a namespace where /etc/jobq/jobqd.conf is there."""
    etc = tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
    shutil.rmtree(etc / "jobq", ignore_errors=True)
    (etc / "jobq").mkdir()
    (etc / "jobq" / "jobqd.conf").write_text("[jobqd]\nnode = the-host-s\n")

    def run(*words, **env):
        return subprocess.run(["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(etc), jobqd_program,
                               *words], env=clean_environment(**env), capture_output=True, text=True, timeout=60)

    done = run("config", "print")
    if "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert node(done) == "the-host-s"
    assert node(run("config", "print", JOBQ_CONFIG=confs[0])) == "one"
    assert node(run("config", "print", "-c", confs[1])) == "two"
    # A benchmark takes a server of its own, not that of the host.
    (etc / "jobq" / "jobqd.conf").write_text("[jobqd]\ndatabase = postgresql://nowhere.invalid/x\n")
    assert "nowhere.invalid" in run("jobs").stderr
    said = run("bench", "enqueue", JOBQ_PG_BINDIR="/nowhere").stderr
    assert "/nowhere" in said and "nowhere.invalid" not in said


def test_a_check_of_nothing_is_refused(cli):
    """A deployment that forgets -c is told; variables alone may configure a node that runs no jobs."""
    done = cli("config", "check", code=78)
    assert done.stderr == ("jobqd config: no configuration file: -c is not given, JOBQ_CONFIG is not set, and "
                           "/etc/jobq/jobqd.conf does not exist\n") and done.stdout == ""
    assert cli("config", "check", "--start", "--json", code=78).stdout == ""
    done = cli("config", "check", env={"JOBQ_DATABASE": "postgresql:///app"})
    assert done.stdout == "no configuration file: ok, 0 queues\n"
    assert "warning: no configuration file was found: the node runs no jobs; give one with -c FILE or JOBQ_CONFIG" in done.stderr
