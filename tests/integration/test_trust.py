"""Who else may change what jobqd reads and runs: said by `config check`, doctor, the start and a reload, with what mends it."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

import pytest

from harness.waiting import wait_for

ROOT = os.geteuid() == 0


@pytest.fixture
def home():
    """A folder in /tmp, whose way down from / belongs to root only."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jobq-trust-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def conf(home):
    """A configuration that nothing is to be said of but, for root, that its program is root's."""
    (home / "etc").mkdir(mode=0o755)
    (home / "bin").mkdir(mode=0o755)
    program = home / "bin" / "run.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = home / "etc" / "jobqd.conf"
    path.write_text(f"[queue default]\nexec = {program}\n")
    path.chmod(0o644)
    return path


def warnings_of(cli, conf):
    """What `config check` warns of, in both of its forms; without the one about root."""
    done = cli("config", "check", "-c", conf)
    said = re.findall(r"^jobqd config: warning: (.*)$", done.stderr, re.M)
    assert done.stdout.startswith(f"{conf}: ok") and len(said) == len(done.stderr.splitlines())
    assert json.loads(cli("config", "check", "--json", "-c", conf).stdout)["warnings"] == said
    about_root = [text for text in said if "; set a dedicated user for each queue" in text]
    assert len(about_root) == (1 if ROOT else 0)
    return [text for text in said if text not in about_root]


def test_nothing_is_said_where_all_is_well(cli, conf):
    assert warnings_of(cli, conf) == []
    if ROOT:
        said = cli("config", "check", "-c", conf).stderr
        assert said == "jobqd config: warning: programs run as root in queue default; set a dedicated user for each queue: user = NAME\n"
        conf.write_text(conf.read_text() + "user = nobody\n")
        assert cli("config", "check", "-c", conf).stderr == ""


CASES = {
    # what is done to the folder; what is said, the path that the remedy names
    "the file, everybody": (lambda h: (h / "etc/jobqd.conf").chmod(0o646), "etc/jobqd.conf can be changed by everybody (mode 0646)",
                            "chmod o-w", "etc/jobqd.conf"),
    "its folder, everybody": (lambda h: (h / "etc").chmod(0o757), "etc/jobqd.conf can be replaced by everybody, who may write",
                              "chmod o-w", "etc"),
    "a folder above": (lambda h: h.chmod(0o777), "etc/jobqd.conf can be replaced by everybody, who may write", "chmod go-w" if ROOT else
                       "chmod o-w", "."),
}
AS_ROOT = {
    "the file, its group": (lambda h: (h / "etc/jobqd.conf").chmod(0o664), "etc/jobqd.conf can be changed by group root (mode 0664)",
                            "chmod g-w", "etc/jobqd.conf"),
    "its folder, its group": (lambda h: (h / "etc").chmod(0o775), "etc/jobqd.conf can be replaced by group root, who may write",
                              "chmod g-w", "etc"),
    "the file's owner": (lambda h: os.chown(h / "etc/jobqd.conf", 65534, -1), "etc/jobqd.conf can be changed by user nobody", "chown root",
                         "etc/jobqd.conf"),
    "the program, everybody": (lambda h: (h / "bin/run.sh").chmod(0o757), "bin/run.sh can be changed by everybody (mode 0757): queue default"
                               " runs it as root", "chmod o-w", "bin/run.sh"),
    "the program's owner": (lambda h: os.chown(h / "bin/run.sh", 65534, -1), "bin/run.sh can be changed by user nobody", "chown root",
                            "bin/run.sh"),
    "the program's folder": (lambda h: (h / "bin").chmod(0o777), "bin/run.sh can be replaced by everybody, who may write", "chmod go-w", "bin"),
}


@pytest.mark.parametrize("case", {**CASES, **(AS_ROOT if ROOT else {})})
def test_who_else_may_change_it_is_said_with_what_mends_it(db, cli, jobqd_program, home, conf, case):
    spoil, says, remedy, where = {**CASES, **AS_ROOT}[case]
    spoil(home)
    # All that hangs below a folder is said, each once.
    found = [text for text in warnings_of(cli, conf) if says in text]
    assert len(found) == 1
    cure = f"{remedy} {(home / where).resolve()}"
    assert found[0].endswith(f"; {cure}")
    told = cli("doctor", "-c", conf, db=db, code=None).stdout
    assert re.search(rf"^warn  trust +{re.escape(found[0].rsplit('; ', 1)[0])} -> {re.escape(cure)}$", told, re.M), told
    subprocess.run(cure.split(), check=True)  # pasted
    assert warnings_of(cli, conf) == []


def test_a_folder_of_another_users_is_not_taken_from_him(cli, home, conf):
    """It may be his home, which `chown root` would lock him out of."""
    if not ROOT:
        return  # only root gives files to another user
    os.chown(home / "etc", 65534, -1)
    found, = warnings_of(cli, conf)
    assert found.startswith(f"{conf} can be replaced by user nobody, who may write {conf.parent} (mode 0755): ")
    assert found.endswith("; move it into a folder owned by root, such as /etc/jobq")
    os.chown(home / "etc", 0, -1)
    os.chown(home / "bin", 65534, -1)
    found, = warnings_of(cli, conf)
    assert found.endswith("; move it into a folder owned by root, or give the queue a user of its own: user = NAME")
    conf.write_text(conf.read_text() + "user = nobody\n")
    assert cli("config", "check", "-c", conf).stderr == ""


def test_what_mends_it_is_for_the_shell(cli, home, conf):
    odd = home / "it's a folder; $(touch x)"
    odd.mkdir(mode=0o755)
    new = odd / "a b.conf"
    new.write_text(conf.read_text())
    new.chmod(0o646)
    found, = warnings_of(cli, new)
    subprocess.run(["sh", "-c", found.rsplit("; chmod", 1)[1].join(["chmod", ""])], check=True, cwd=home)
    assert stat.S_IMODE(new.stat().st_mode) == 0o644 and not (home / "x").exists()
    assert warnings_of(cli, new) == []


def test_each_link_of_a_chain_is_looked_at(cli, home, conf):
    """One in the middle, which stands neither where the first does nor where the file is."""
    shared, links = home / "shared", home / "links"
    shared.mkdir(mode=0o755), links.mkdir(mode=0o755)
    (shared / "etc").symlink_to("../etc")
    (links / "current.conf").symlink_to("../shared/./etc/jobqd.conf")
    assert warnings_of(cli, links / "current.conf") == []
    shared.chmod(0o777)
    found, = warnings_of(cli, links / "current.conf")
    assert f"{links}/current.conf can be replaced by everybody, who may write {shared} (mode 0777)" in found
    shared.chmod(0o1777)  # a link there is its owner's to replace
    assert warnings_of(cli, links / "current.conf") == []
    if ROOT:
        os.lchown(shared / "etc", 65534, -1)
        found, = warnings_of(cli, links / "current.conf")
        assert f"{links}/current.conf can be replaced by user nobody, who owns the link {shared}/etc: " in found
        subprocess.run(found.rsplit("; ", 1)[1].split(), check=True)
        assert warnings_of(cli, links / "current.conf") == []


def test_a_link_is_looked_at_where_it_stands_and_where_it_leads(cli, home, conf):
    links = home / "links"
    links.mkdir()
    (links / "current.conf").symlink_to(conf)
    assert warnings_of(cli, links / "current.conf") == []
    links.chmod(0o777)
    assert f"{links}/current.conf can be replaced by everybody, who may write {links} " in warnings_of(cli, links / "current.conf")[0]
    links.chmod(0o755)
    conf.parent.chmod(0o777)
    assert f"who may write {conf.parent} " in warnings_of(cli, links / "current.conf")[0]
    links.chmod(0o1777)  # with the sticky bit no other user can replace it
    conf.parent.chmod(0o1777)
    assert warnings_of(cli, links / "current.conf") == []


def test_a_password_that_everybody_may_read_is_said(cli, conf):
    text = conf.read_text()
    for secret in ("[jobqd]\ndatabase = postgresql://u:s3cret@h/db\n" + text, text + "env = API_TOKEN=s3cret\n"):
        conf.write_text(secret)
        found, = warnings_of(cli, conf)
        assert found == f"{conf} holds a password, and everybody may read it (mode 0644); chmod o-r {conf}"
        conf.chmod(0o640)
        assert warnings_of(cli, conf) == []
        conf.chmod(0o644)


def test_the_embedded_folder_is_looked_at(cli, home, conf):
    data = home / "data"
    data.mkdir()
    conf.write_text(f"[jobqd]\nembedded = {data}\n{conf.read_text()}")
    assert warnings_of(cli, conf) == []
    data.chmod(0o777)
    found, = warnings_of(cli, conf)
    assert found == f"{data} can be changed by everybody (mode 0777): the embedded database is in it; chmod {'g' if ROOT else ''}o-w {data}"
    data.chmod(0o755)
    if ROOT:
        os.chown(data, 65534, -1)
        found, = warnings_of(cli, conf)
        assert found.startswith(f"{data} can be changed by user nobody (mode 0755): the embedded database is in it")


def test_the_start_and_a_reload_say_it(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 1}})
    assert "can be changed by everybody" not in node.log()
    node.conf.chmod(0o666)
    says = f"WARNING jobqd: {re.escape(str(node.conf))} can be changed by everybody \\(mode 0666\\): .*; chmod g?o-w {re.escape(str(node.conf))}"
    node.reload()
    node.wait_log(says)
    node.stop()
    node.start()
    wait_for(lambda: len(re.findall(says, node.log())) == 2)
    assert stat.S_IMODE(node.conf.stat().st_mode) == 0o666  # it only looks


@pytest.mark.root
@pytest.mark.parametrize("section", ["jobqd", "queue default"])
@pytest.mark.parametrize("option", ["on_failure", "on_discard"])
def test_the_programs_of_hooks_count(cli, home, conf, section, option):
    hook = home / "bin" / "hook.sh"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o757)
    conf.write_text(f"{conf.read_text()}[jobqd]\nnode = a\n".replace(f"[{section}]\n", f"[{section}]\n{option} = {hook}\n"))
    found, = warnings_of(cli, conf)
    whose = "jobqd" if section == "jobqd" else "queue default"
    assert f"bin/hook.sh can be changed by everybody (mode 0757): {whose} runs it as root" in found


# ---- what is printed ----

def test_config_print_shows_no_secret_unless_told_to(cli, home):
    conf = home / "jobqd.conf"
    conf.write_text("[jobqd]\ndatabase = postgresql://u:topsecret@h/db\n[queue a]\nexec = /bin/true --token topsecret\n"
                    "env = PLAIN=topsecret API_KEY=topsecret URL=https://u:topsecret@h/ HOME\n"
                    "on_failure = /bin/true --password=topsecret\non_discard = /bin/true --api-key topsecret\n")
    for form in ([], ["--json"]):
        hidden = cli("config", "print", *form, "-c", conf).stdout
        assert "topsecret" not in hidden and "PLAIN=****" in hidden and "HOME" in hidden
        assert cli("config", "print", *form, "--show-secrets", "-c", conf).stdout.count("topsecret") == 7
    for command in (["doctor"], ["config", "check"], ["jobs"]):
        done = cli(*command, "-c", conf, code=None)
        assert "topsecret" not in done.stdout + done.stderr
