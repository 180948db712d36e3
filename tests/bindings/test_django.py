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


@pytest.mark.untrapped
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


WARNS = """
import warnings
import django
django.setup()
import jobq, jobq.django
from django.db import connection, transaction
from django.test import TestCase
from jobq import testing
from shop.jobs import pid

def warned(what, within=True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if within:
            with transaction.atomic():
                what()
        else:
            what()
    for warning in caught:
        assert warning.category is jobq.django.OutsideTransactionWarning and warning.filename == __file__, warning
        assert "stays if the transaction rolls back" in str(warning.message) and "jobq.django.enqueue(" in str(warning.message)
    return len(caught)

def inline():
    with testing.inline():
        jobq.get_client().enqueue("pid")

alone = jobq.Client(jobq.django.conninfo())
LOUD = [lambda: pid.enqueue(), lambda: pid.options(tags=["a"]).enqueue(), lambda: jobq.get_client().enqueue_many([pid.job()])]
QUIET = [lambda: pid.options(connection=connection).enqueue(), lambda: jobq.django.enqueue(pid.job()),
         lambda: jobq.django.enqueue_on_commit(pid.job()), lambda: transaction.on_commit(lambda: pid.enqueue()), inline,
         lambda: pid.options(client=alone).enqueue()]
assert [warned(each) for each in LOUD] == [1] * 3
assert [warned(each, within=False) for each in LOUD] == [0] * 3
assert [warned(each) for each in QUIET] == [0] * 6

class Test(TestCase):
    @classmethod
    def setUpTestData(cls):
        assert warned(pid.enqueue, within=False) == 0

    def test(self):
        assert [warned(each, within=False) for each in LOUD + QUIET] == [0] * 9
        assert [warned(each) for each in LOUD] == [1] * 3

import unittest
done = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Test))
assert done.testsRun == 1 and done.wasSuccessful()
"""


@pytest.mark.untrapped
def test_enqueue_by_another_connection_within_a_transaction_warns(db, project):
    """Not on commit, not after it, and not for the blocks that Django's TestCase puts around a test."""
    (project / "warns.py").write_text(WARNS)
    done = subprocess.run([sys.executable, "warns.py"], cwd=project, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


IN_A_TEST = """
import os, time
import django
django.setup()
import jobq, jobq.django
from django.conf import settings
from django.db import connection
from shop.jobs import pid

pid.options(tags=["before"]).enqueue()
connection.close()
for name in (os.environ["SHOP_TEST_NAME"], os.environ["SHOP_NAME"]):
    settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = name  # as Django's test runner does
    pid.options(tags=["in " + name]).enqueue()
    until, found = time.monotonic() + 30, None
    while found != (name == os.environ["SHOP_TEST_NAME"]) and time.monotonic() < until:  # a closed one stays for a moment
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'",
                           [os.environ["SHOP_TEST_NAME"]])
            found = cursor.fetchone()[0]
    print(found)
    connection.close()
"""


@pytest.mark.untrapped
def test_jobs_of_a_test_go_to_the_tests_database(db, template, project, monkeypatch):
    """The test runner renames the database when all apps are there, and drops it in the end: no connection of ours is left in
    it."""
    there = db.cluster.create_database(f"test_{db.name}", template.name)
    monkeypatch.setenv("SHOP_TEST_NAME", there.name)
    (project / "in_a_test.py").write_text(IN_A_TEST)
    done = subprocess.run([sys.executable, "in_a_test.py"], cwd=project, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert there.query("SELECT tags FROM jobq.jobs") == [([f"in {there.name}"],)]
    assert db.query("SELECT tags FROM jobq.jobs ORDER BY id") == [(["before"],), ([f"in {db.name}"],)]
    assert done.stdout.split() == ["1", "0"], "Django's own connection, and none"
    there.drop()


@pytest.mark.parametrize("settings,message", [
    ("JOBQ = 3", "JOBQ must be a dict with the members DATABASE, DSN, SCHEMA, got 3"),
    ("JOBQ = {'database': 1}", "JOBQ has no member 'database'; allowed are DATABASE"),
    ("JOBQ = {'DATABASE': 'x'}", "DATABASES has no 'x', which JOBQ"),
    ("JOBQ = {'DATABASE': 'x', 'DSN': ''}", "which cannot both be set"),
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
