"""jobq.django: a project whose settings name the database, whose apps have jobs, and whose connections break."""

import os
import pathlib
import subprocess
import sys

import pytest

import jobq
from harness.waiting import wait_for

SOURCE = pathlib.Path(jobq.__file__).parents[1]

SETTINGS = """
import os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["shop", "jobq.django.JobqConfig"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["SHOP_NAME"], "USER": "admin",
                         "HOST": os.environ["SHOP_HOST"], "CONN_MAX_AGE": None, "OPTIONS": {"application_name": "it's"}}}
JOBQ = {"DATABASE": "default", "SCHEMA": "jobq"}
"""

JOBS = """
import jobq
from django.db import connection

@jobq.worker("pid")
def pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('application_name')")
        pid, name = cursor.fetchone()
    assert name == "it's"
    return pid
"""

WORKER = """
import django
django.setup()
"""

ENQUEUES = """
import django
django.setup()
import jobq, jobq.django
from django.db import connection, transaction
from shop.jobs import pid

try:
    with transaction.atomic():
        jobq.django.enqueue(pid.job())
        jobq.django.enqueue_on_commit(pid.job())
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    jobq.django.enqueue(pid.options(tags=["in"]).job())
    jobq.django.enqueue_on_commit(pid.options(tags=["after"]).job())
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM jobq.jobs WHERE 'after' = ANY (tags)")
        assert cursor.fetchone() == (0,)
pid.options(tags=["client"]).enqueue()
"""


@pytest.fixture
def project(db, tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    for name, text in {"settings.py": SETTINGS, "shop/__init__.py": "", "shop/jobs.py": JOBS, "work.py": WORKER, "enqueues.py": ENQUEUES}.items():
        (tmp_path / name).write_text(text)
    for name, value in {"DJANGO_SETTINGS_MODULE": "settings", "SHOP_NAME": db.name, "SHOP_HOST": str(db.cluster.dir),
                        "PYTHONPATH": f"{SOURCE}:{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_project(client, jobqd, db, project):
    """Jobs in the transaction and after it; a connection that broke between two jobs costs none of them an attempt."""
    passed = " ".join(f"{name}={os.environ[name]}" for name in ("JOBQ_LIBRARY", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "SHOP_NAME", "SHOP_HOST"))
    done = subprocess.run([sys.executable, "enqueues.py"], cwd=project, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [tags for tags, in db.query("SELECT tags FROM jobq.jobs ORDER BY id")] == [["in"], ["after"], ["client"]]
    jobqd(db, {"default": {"command": "/usr/bin/python3 -m jobq.worker work", "working_directory": str(project), "env": passed,
                           "concurrency": 1}})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed'") == 3)
    for _ in range(3):
        job = client.wait(client.enqueue("pid"), 60)
        assert (job.state, job.attempt) == ("completed", 1), job.errors
        db.query(f"SELECT pg_terminate_backend({job.result})")
        wait_for(lambda pid=job.result: db.value(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == 0)


@pytest.mark.parametrize("settings,message", [
    ("JOBQ = 3", "JOBQ must be a dict with the members DATABASE, DSN, SCHEMA, got 3"),
    ("JOBQ = {'database': 1}", "JOBQ has no member 'database'; allowed are DATABASE"),
    ("JOBQ = {'DATABASE': 'x'}", "DATABASES has no 'x', which JOBQ"),
    ("JOBQ = {'DATABASE': 'x', 'DSN': ''}", "which exclude each other"),
    ("DATABASES['default']['ENGINE'] = 'django.db.backends.sqlite3'", "must be a PostgreSQL, its ENGINE is"),
])
def test_wrong_settings_are_named(settings, message, tmp_path):
    (tmp_path / "settings.py").write_text(f"{SETTINGS}\n{settings}\n".replace('"shop", ', ""))
    done = subprocess.run([sys.executable, "-c", "import django; django.setup()"], cwd=tmp_path, capture_output=True, text=True, timeout=100, env={
        **os.environ, "PYTHONPATH": f"{SOURCE}:{tmp_path}", "DJANGO_SETTINGS_MODULE": "settings", "SHOP_NAME": "x", "SHOP_HOST": "/x"})
    assert message in done.stderr


def test_django_is_needed_by_those_who_import_it_alone():
    code = "import sys, jobq, jobq.testing; assert not any(name.split('.')[0] == 'django' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, env={**os.environ, "PYTHONPATH": str(SOURCE)})
