"""What jobqd tells the service manager, and by what the watchdog is fed; the unit that is installed."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid

import pytest

from faultproxy import FaultProxy
from harness.notify import Manager
from harness.waiting import wait_for

WATCHDOG_MS = 800  # a feed every 200 ms


@pytest.fixture
def manager(tmp_path):
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


@pytest.fixture
def noop(programs):
    return {"default": {"command": programs("noop_worker"), "concurrency": 2}}


def names(manager):
    """The order of the states that were told."""
    return [name for _, said in manager.listen() for name in ("READY", "RELOADING", "STOPPING") if name in said]


def is_silent(manager, ms):
    """Whether nothing at all is said for so long: what does not come cannot be waited for otherwise."""
    manager.listen()
    before = len(manager.heard)
    end = time.monotonic() + ms / 1000
    wait_for(lambda: time.monotonic() > end)
    manager.listen()
    return len(manager.heard) == before


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_life_is_told(db, jobqd, noop, tmp_path, kind):
    manager = Manager(tmp_path / "notify" if kind == "path" else f"@jobq-{uuid.uuid4().hex}")
    node = jobqd(db, noop, env=manager.environment())
    manager.wait("READY")
    assert manager.wait("MAINPID") == str(node.pid)
    manager.wait_status("serving 1 queue: 0 of 2 workers busy, 0 jobs held; database up")
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    node.reload()
    wait_for(lambda: names(manager) == ["READY", "RELOADING", "READY"], what=lambda: manager.heard[-20:])
    assert before <= int(manager.wait("MONOTONIC_USEC")) / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)
    assert node.stop() == 0
    assert names(manager) == ["READY", "RELOADING", "READY", "STOPPING"]
    assert manager.values("WATCHDOG") == []  # nobody asked for it
    manager.close()


def test_a_refused_reload_ends_as_well(db, jobqd, noop, manager):
    node = jobqd(db, noop, env=manager.environment())
    manager.wait("READY")
    node.conf.write_text("[jobqd]\nlaese = 3\n")
    node.signal(signal.SIGHUP)
    wait_for(lambda: names(manager) == ["READY", "RELOADING", "READY"], what=lambda: manager.heard[-20:])
    node.wait_log("not reloaded; the old one stays in force")


def test_it_is_not_ready_before_it_serves(db, jobqd, noop, manager):
    """Its database is away: more time is asked for, and it is said why. Then it comes."""
    with FaultProxy(f"{db.cluster.dir}/.s.PGSQL.5432") as proxy:
        proxy.refuse()
        node = jobqd(f"postgresql://admin@127.0.0.1:{proxy.port}/{db.name}", noop, env=manager.environment(WATCHDOG_MS),
                     ready=False)
        manager.wait_status("starting: the database is unavailable")
        manager.wait_more("EXTEND_TIMEOUT_USEC", 2)
        assert "READY" not in names(manager)
        proxy.accept()
        manager.wait("READY")
        manager.wait_status("serving 1 queue")
        assert node.stop() == 0


def test_a_database_that_is_away_is_no_reason_to_kill(db, jobqd, noop, manager):
    """Neither one that refuses nor one that hangs: the watchdog is fed, and the status tells."""
    with FaultProxy(f"{db.cluster.dir}/.s.PGSQL.5432") as proxy:
        node = jobqd(f"postgresql://admin@127.0.0.1:{proxy.port}/{db.name}", noop, env=manager.environment(WATCHDOG_MS),
                     lease="6s")
        manager.wait("READY")
        proxy.stall()
        manager.wait_status("database unavailable")
        manager.wait_more("WATCHDOG", 5)
        proxy.resume()
        manager.wait_status("database up")
        assert "not feeding the watchdog" not in node.log()


def test_the_watchdog_is_fed_until_the_daemon_hangs(db, jobqd, noop, manager):
    node = jobqd(db, noop, env=manager.environment(WATCHDOG_MS))
    manager.wait("READY")
    manager.wait_more("WATCHDOG", 10)
    fed = [at for at, said in manager.listen() if "WATCHDOG" in said]
    assert max(b - a for a, b in zip(fed, fed[1:])) < 10 * WATCHDOG_MS / 1000  # the machine may be slow
    node.signal(signal.SIGSTOP)
    wait_for(lambda: pathlib.Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    assert is_silent(manager, 2 * WATCHDOG_MS)
    node.signal(signal.SIGCONT)
    manager.wait_more("WATCHDOG", 3)
    assert "not feeding the watchdog" not in node.log()


def test_a_loop_that_turns_and_does_nothing_is_not_fed(db, jobqd, noop, manager):
    """A queue waits for an answer that nobody will bring: only a restart mends that."""
    node = jobqd(db, noop, env={**manager.environment(WATCHDOG_MS), "JOBQ_TEST_LOST_CYCLE": "1"})
    manager.wait_status("stuck: a queue has waited")
    node.wait_log("ERROR systemd: not feeding the watchdog: a queue has waited [0-9.]+ m?s for the answer to a database request")
    fed = len(manager.values("WATCHDOG"))
    manager.wait_more("STATUS")  # the loop turns, and the figure of the trouble grows
    assert len(manager.values("WATCHDOG")) == fed
    node.kill()


def test_a_connection_that_ought_to_have_been_given_up_starves_it(db, jobqd, noop, manager):
    """The loop turns, and says so. It is fed again if the answer comes after all."""
    with FaultProxy(f"{db.cluster.dir}/.s.PGSQL.5432") as proxy:
        node = jobqd(f"postgresql://admin@127.0.0.1:{proxy.port}/{db.name}", noop, lease="1s",
                     env={**manager.environment(WATCHDOG_MS), "JOBQ_TEST_OVERDUE_MS": "1000"})
        manager.wait_more("WATCHDOG", 3)
        proxy.stall()
        manager.wait_status("stuck: a request to the database has no answer")
        node.wait_log("ERROR systemd: not feeding the watchdog: a request to the database has no answer, [0-9.]+ m?s after its "
                      "connection should have been closed")
        fed = len(manager.values("WATCHDOG"))
        manager.wait_more("STATUS", 3)
        assert len(manager.values("WATCHDOG")) == fed
        proxy.resume()
        node.wait_log("INFO systemd: feeding the watchdog again")
        manager.wait_more("WATCHDOG", 2)
        assert node.stop() == 0


def test_the_watchdog_of_another_process_is_left_alone(db, jobqd, noop, manager):
    jobqd(db, noop, env=manager.environment(WATCHDOG_MS, pid=1))
    manager.wait("READY")
    manager.wait_status("serving")
    assert manager.values("WATCHDOG") == []


def test_a_drain_is_given_the_time_that_it_takes(db, jobqd, programs, manager, tmp_path):
    began = tmp_path / "began"
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}}, env=manager.environment(WATCHDOG_MS))
    db.enqueue("sleep", f'{{"file": "{began}", "ms": 1500}}')
    wait_for(began.exists)
    node.signal(signal.SIGTERM)
    manager.wait("STOPPING")
    manager.wait_status("draining: 1 of 1 workers busy, 1 job held; database up")
    manager.wait_more("EXTEND_TIMEOUT_USEC", 2)
    manager.wait_more("WATCHDOG", 1)
    assert node.wait() == 0
    assert db.states() == {"completed": 1}


def test_a_manager_that_does_not_listen_harms_nobody(db, jobqd, noop, manager):
    """Its queue is full, and then it is gone: said once, READY=1 again and again until it could be sent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other, pytest.raises(BlockingIOError):
        while True:
            other.sendto(b"X=1", manager.address)
    node = jobqd(db, noop, env=manager.environment(WATCHDOG_MS))
    node.wait_log("WARNING systemd: cannot notify the service manager: Resource temporarily unavailable")
    manager.wait("READY")
    node.wait_log("INFO systemd: the service manager can be notified again")
    os.rename(manager.address, manager.address + ".gone")
    node.wait_log("cannot notify the service manager: No such file or directory")
    db.enqueue("noop")
    db.wait_for_states({"completed": 1})
    os.rename(manager.address + ".gone", manager.address)
    manager.wait_more("WATCHDOG")
    assert node.log().count("cannot notify the service manager") == 2


def test_an_address_that_is_none_is_named(db, jobqd, noop):
    node = jobqd(db, noop, env={"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "100000"})
    node.wait_log("WARNING systemd: NOTIFY_SOCKET=vsock:2:1234 is neither a path nor @ with an abstract name")


def test_workers_and_the_embedded_database_hear_nothing_of_it(request, jobqd, noop, manager):
    folder = pathlib.Path("/tmp") / f"jobq-{uuid.uuid4().hex[:8]}"  # where the server's user may enter
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    node = jobqd(None, noop, embedded=folder, env={**manager.environment(60000), "DATABASE_URL": "x", "JOBQ_LOG_FORMAT": "text"})
    manager.wait("READY")
    wait_for(lambda: any("noop_worker" in c for c in node.workers().values()))
    found = node.workers()
    assert any("postgres" in command for command in found.values()), found
    for pid, command in found.items():
        try:
            told = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        assert not any(name in told for name in (b"NOTIFY_SOCKET", b"WATCHDOG_", b"DATABASE_URL", b"JOBQ_LOG")), command


def test_an_upgrade_in_place_is_ready_again(db, jobqd, noop, manager):
    node = jobqd(db, noop, env=manager.environment(WATCHDOG_MS))
    manager.wait("READY")
    node.signal(signal.SIGUSR2)
    wait_for(lambda: names(manager) == ["READY", "READY"], what=lambda: manager.heard[-20:])
    assert manager.values("MAINPID") == [str(node.pid)] * 2
    manager.wait_more("WATCHDOG", 2)


# ---- the unit ----

@pytest.fixture
def unit(build, tmp_path):
    """The installed unit, with a program that is there."""
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(tmp_path / "root")], check=True, capture_output=True)
    found = tmp_path / "root/lib/systemd/system/jobqd.service"
    assert (tmp_path / "root/lib/sysusers.d/jobqd.conf").read_text().splitlines()[-1].startswith("u jobq ")
    return found


def test_the_unit_is_installed_and_says_what_jobqd_does(unit):
    text = unit.read_text()
    program = unit.parents[3] / "bin" / "jobqd"
    assert program.exists() and f"ExecStart={program} run -c /etc/jobq/jobqd.conf" in text.splitlines()
    for line in ("Type=notify", "KillMode=mixed", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=on-failure", "WatchdogSec=30s",
                 "OOMPolicy=continue", "Delegate=memory pids"):
        assert line in text.splitlines(), line


@pytest.fixture
def copy(unit, jobqd_program):
    """The unit with a program that can be started, and its hardening, which is not there before it is put there."""
    path = unit.parent / "jobqd-test.service"
    lines = unit.read_text().splitlines()
    path.write_text("\n".join(f"ExecStart={jobqd_program} run" if line.startswith("ExecStart=") else line for line in lines))

    def harden():
        folder = path.with_name("jobqd-test.service.d")
        folder.mkdir()
        shutil.copy(unit.parents[3] / "share" / "doc" / "jobq" / "hardening.conf", folder)
        return folder / "hardening.conf"
    return path, harden


def exposure(path):
    said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True, check=False)
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said.stdout)[1])


@pytest.mark.parametrize("hardened", [False, True], ids=["as it is", "hardened"])
def test_systemd_understands_the_unit(copy, hardened):
    path, harden = copy
    if hardened:
        harden()
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "jobqd-test.service" in line or "hardening" in line]
    assert said == []


def test_the_unit_leaves_little_exposed(copy):
    """By settings that no handler notices; the others are in the file beside it."""
    path, harden = copy
    plain = exposure(path)
    harden()
    hardened = exposure(path)
    print(f"systemd-analyze security: {plain}, with hardening.conf {hardened}")
    assert plain <= 4.6 and hardened <= 3.6


def test_the_hardening_says_what_it_forbids(copy):
    path, harden = copy
    lines = harden().read_text().splitlines()
    for setting in ("SystemCallArchitectures=native", "SystemCallErrorNumber=EPERM", "LimitCORE=0"):
        assert setting in lines and setting not in path.read_text().splitlines()
    forbidden, = [line.split("=~")[1].split() for line in lines if line.startswith("SystemCallFilter=~")]
    # Whole groups, of which systemd knows each.
    listed = subprocess.run(["systemd-analyze", "syscall-filter", *forbidden], capture_output=True, text=True, check=True).stdout
    calls = {line.strip() for line in listed.splitlines() if line.startswith("    ") and not line.strip().startswith(("#", "@"))}
    assert {"reboot", "init_module", "swapon", "settimeofday", "iopl"} <= calls
    # What jobqd and ordinary handlers do.
    assert not calls & {"clone", "clone3", "execve", "execveat", "setpriority", "sched_setaffinity", "setresuid", "setsid", "prctl", "unshare",
                        "mount", "memfd_create", "pidfd_open", "pidfd_send_signal", "keyctl", "ptrace", "close_range", "prlimit64"}
