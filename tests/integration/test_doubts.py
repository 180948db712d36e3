"""What a configuration may say and is seldom meant so: lines for a shell, and names of databases that are nearly URIs; and
an environment that replaces the file's database."""

import json

import pytest

SHELL = [
    ("/bin/true | tee x", "|"),
    ("/bin/true |tee x", "|"),
    ("/bin/true && /bin/false", "&&"),
    ("/bin/true || /bin/false", "||"),
    ("/bin/true x; /bin/false", ";"),
    ("/bin/true > /tmp/out", ">"),
    ("/bin/true >>/tmp/out", ">>"),
    ("/bin/true 2>&1", ">"),
    ("/bin/cat < /etc/hosts", "<"),
    ("/bin/true &", "&"),
    ("/bin/ls /var/log/*.log", "*"),
    ("/bin/echo $HOME", "$"),
    ("/bin/echo ${HOME}", "$"),
    ("/bin/echo $(date)", "$"),
    ("/bin/echo `date`", "`"),
    ("/bin/ls ~/x", "~"),
]

FINE = [
    "/bin/sh -c 'true | tee x && echo *'",
    '/bin/sh -c "echo `date` > /tmp/x; ls ~/ # no"',
    "/bin/echo http://a/?b=1&c=2",
    "/bin/grep a|b",
    r"/bin/echo \* \> \$HOME",
    "/bin/true ; a comment | with * all > of && it",
    "/bin/echo a#b $ 5~6",
]


def conf(tmp_path, line):
    path = tmp_path / "jobqd.conf"
    path.write_text(f"[jobqd]\nnode = a\n[queue q]\n{line}\n")
    return path


@pytest.mark.parametrize("option", ["on_failure", "on_discard"])
def test_a_hook_for_a_shell_is_told(cli, tmp_path, option):
    path = conf(tmp_path, f"exec = /bin/true\n{option} = /bin/true | tee x")
    assert f"{path}:5: [queue q] {option}: no shell reads this line" in cli("config", "check", "-c", path).stderr


@pytest.mark.parametrize("option", ["exec", "command"])
@pytest.mark.parametrize("value, found", SHELL)
def test_a_line_for_a_shell_is_told(cli, tmp_path, option, value, found):
    path = conf(tmp_path, f"{option} = {value}")
    done = cli("config", "check", "-c", path)
    assert (f"jobqd config: warning: {path}:4: [queue q] {option}: no shell reads this line, so the program gets {found} "
            "literally; put the line into a script") in done.stderr
    assert len(json.loads(cli("config", "check", "--json", "-c", path).stdout)["warnings"]) >= 1


def test_a_comment_behind_a_value_is_told(cli, tmp_path):
    path = conf(tmp_path, "exec = /bin/true # the nightly one")
    assert (f"{path}:4: [queue q] exec: # does not begin a comment after a value: the program gets it and what follows as arguments; "
            "put the comment on a line of its own, or begin it with ;") in cli("config", "check", "-c", path).stderr


@pytest.mark.parametrize("value", FINE)
def test_what_is_no_line_for_a_shell(cli, tmp_path, value):
    done = cli("config", "check", "-c", conf(tmp_path, f"exec = {value}"))
    assert "shell" not in done.stderr and "comment" not in done.stderr


@pytest.mark.parametrize("name, shown", [
    ("postgres//app", "postgres//app"), ("postgres:/app", "postgres:/app"), ("postgresql:app", "postgresql:app"),
    ("localhost/app", "localhost/app"), ("app:secret@host", "****@host")])
def test_a_database_s_name_that_is_nearly_a_uri(cli, tmp_path, name, shown):
    path = tmp_path / "jobqd.conf"
    path.write_text(f"[jobqd]\ndatabase = {name}\n")
    told = (f': "{shown}" is neither a URI such as postgresql://USER@HOST/NAME nor a keyword string such as host=HOST dbname=NAME\n')
    assert cli("config", "check", "-c", path, code=78).stderr == f"jobqd config: {path}:2: [jobqd] database{told}"
    assert cli("jobs", "--database", name, code=64).stderr == f"jobqd jobs: --database{told}"
    assert cli("jobs", env={"DATABASE_URL": name}, code=78).stderr == f"jobqd jobs: DATABASE_URL{told}"


def test_a_plain_name_is_a_database_s(cli, tmp_path):
    path = tmp_path / "jobqd.conf"
    path.write_text("[jobqd]\ndatabase = app\n")
    cli("config", "check", "-c", path)


@pytest.mark.parametrize("key, value, variable", [
    ("embedded", "/var/lib/jobq/data", {"JOBQ_DATABASE": "postgresql:///app"}),
    ("database", "postgresql:///app", {"JOBQ_EMBEDDED": "/var/lib/jobq/data"})])
def test_the_environment_replaces_no_database_in_silence(cli, tmp_path, key, value, variable):
    """JOBQ_DATABASE was exported for the application's client: jobqd would wait for a database that it should start itself."""
    path = tmp_path / "jobqd.conf"
    path.write_text(f"[jobqd]\n{key} = {value}\n[queue q]\nexec = /bin/true\n")
    [name] = variable
    for command in (["run"], ["config", "check"]):
        done = cli(*command, "-c", path, env=variable, code=78, timeout=30)
        assert (f"{name} is set in the environment and overrides {key} in {path}: unset {name}, remove {key} from the file, or give "
                "the one that you mean on the command line") in done.stderr
    meant = ["--database", "postgresql:///other"] if key == "embedded" else ["--embedded", str(tmp_path / "other")]
    cli("config", "check", "-c", path, *meant, env=variable)
    assert "overrides" not in cli("config", "print", "-c", path, env=variable).stderr


@pytest.mark.parametrize("kind", ['{"a":1}', '  {"a": 1}', '[1]', '"k"'])
def test_a_kind_that_looks_like_json(cli, kind):
    done = cli("enqueue", kind, "--database", "postgresql://nowhere.invalid/x", code=64)
    assert "looks like JSON: the kind comes first, then the args, as in: jobqd enqueue resize '{\"photo\": 7}'" in done.stderr


def test_a_queue_that_the_file_does_not_have(cli, tmp_path):
    """Another node may serve it: a warning, with the line."""
    path = tmp_path / "t.conf"
    path.write_text("[jobqd]\non_discard_kind = gone\non_discard_queue = dead\n[queue reports]\nexec = /bin/true\non_discard_queue = report\n"
                    "[cron a]\nschedule = @daily\nkind = k\nqueue = repotrs\n[cron b]\nschedule = @daily\nkind = k\n"
                    "[cron c]\nschedule = @daily\nkind = k\nqueue = reports\n")
    said = [line for line in cli("config", "check", "-c", path).stderr.splitlines() if "section" in line]
    assert said == [
        f"jobqd config: warning: {path}:10: [cron a] queue: this file has no [queue repotrs] section; did you mean reports? Otherwise "
        "another node must serve it",
        f"jobqd config: warning: {path}:11: [cron b]: this file has no [queue default] section; add it, or have another node serve this "
        "queue",
        f"jobqd config: warning: {path}:3: [jobqd] on_discard_queue: this file has no [queue dead] section; add it, or have another node "
        "serve this queue",
        f"jobqd config: warning: {path}:6: [queue reports] on_discard_queue: this file has no [queue report] section; did you mean "
        "reports? Otherwise another node must serve it"]
