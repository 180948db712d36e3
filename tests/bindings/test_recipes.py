"""The README's recipes, each as an application of its own with real requests, its jobs run by a jobqd."""

import asyncio
import configparser
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
import sqlalchemy
import sqlalchemy.orm

import jobq
from readme import recipe

HANDLER = """
    import jobq

    @jobq.worker("resize", queue="media")
    def resize(path: str) -> dict:
        return {"resized": path}
"""


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


def worker_of(command, folder, env=""):
    return {"command": command.replace("python3", "/usr/bin/python3", 1), "working_directory": str(folder),
            "env": f"JOBQ_LIBRARY={os.environ['JOBQ_LIBRARY']} PYTHONPATH={pathlib.Path(jobq.__file__).parents[1]} {env}"}


@pytest.fixture
def handler(tmp_path):
    """A resize of the application's, for those recipes that have none, and its queue."""
    write(tmp_path, {"recipe_jobs.py": HANDLER})
    names = {}
    exec(compile(textwrap.dedent(HANDLER), "recipe_jobs.py", "exec"), names)
    yield names["resize"], worker_of("python3 -m jobq.worker recipe_jobs", tmp_path)
    from jobq.handlers import _handlers
    del _handlers["resize"]


def photos(db):
    return [row[0] for row in db.query("SELECT path FROM photos ORDER BY path")]


def jobs(db):
    return db.value("SELECT count(*) FROM jobq.all_jobs WHERE kind = 'resize'")


# ---- Django ----

SETTINGS = """
    import os
    ALLOWED_HOSTS = ["testserver"]
    DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "HOST": "{host}", "USER": "admin", "NAME": "{name}"}}}}
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    INSTALLED_APPS = ["myapp", "jobq.django.JobqConfig"]
    ROOT_URLCONF = "mysite.urls"
    SECRET_KEY = "x"
    USE_TZ = True
"""

MODELS = """
    from django.db import models

    class Photo(models.Model):
        path = models.TextField()

        class Meta:
            db_table = "photos"
"""

URLS = """
    from django.urls import path
    from myapp.views import upload
    urlpatterns = [path("photos", upload)]
"""

#: What a browser would do, and a transaction that takes the view's along.
REQUESTS = """
    import contextlib
    import django
    django.setup()
    import jobq
    from django.db import connection, transaction
    from django.test import Client
    from myapp.models import Photo
    with connection.schema_editor() as editor:
        editor.create_model(Photo)
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        assert Client().post("/photos", {"path": "/srv/lost.jpg"}).status_code == 200
        raise ZeroDivisionError
    print(Client().post("/photos", {"path": "/srv/a.jpg"}).content.decode())
"""


@pytest.mark.untrapped
def test_django(client, db, jobqd, tmp_path):
    files = dict.fromkeys(["mysite/__init__.py", "myapp/__init__.py"], "")
    found = recipe("Django")
    for language, text in found:
        if language == "python" and text.startswith("# myapp/"):
            files[text.splitlines()[0][2:]] = text
    files.update({
        "mysite/settings.py": SETTINGS.format(host=db.cluster.dir, name=db.name), "mysite/urls.py": URLS,
        "myapp/models.py": MODELS, "requests.py": REQUESTS})
    write(tmp_path, files)
    assert {"myapp/views.py", "myapp/jobs.py", "myapp/worker.py"} <= files.keys()
    done = subprocess.run([sys.executable, "requests.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, env={
        **os.environ, "PYTHONPATH": str(pathlib.Path(jobq.__file__).parents[1]), "DJANGO_SETTINGS_MODULE": "mysite.settings"})
    assert done.returncode == 0, done.stderr
    assert photos(db) == ["/srv/a.jpg"] and jobs(db) == 1
    config = configparser.ConfigParser()
    config.read_string(found[-1][1])
    queue = config["queue media"]
    jobqd(db, {"media": worker_of(queue["command"], tmp_path, queue["env"])})
    assert client.wait(json.loads(done.stdout)["job"], 60).result == {"resized": "/srv/a.jpg"}


# ---- SQLAlchemy, Flask ----


def photo_class():
    """With a constraint that the database checks when the transaction commits."""
    base = sqlalchemy.orm.declarative_base()

    class Photo(base):
        __tablename__ = "photos"
        __table_args__ = (sqlalchemy.UniqueConstraint("path", deferrable=True, initially="DEFERRED"),)
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        path = sqlalchemy.Column(sqlalchemy.Text)

    return Photo


@pytest.mark.untrapped
def test_flask_and_sqlalchemy(client, db, jobqd, handler):
    import flask
    resize, queue = handler
    photo, app = photo_class(), flask.Flask("recipe")
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", connect_args={"host": str(db.cluster.dir), "user": "admin", "dbname": db.name})
    photo.metadata.create_all(engine)
    (_, text), = recipe("SQLAlchemy")
    exec(text, {"app": app, "request": flask.request, "Session": sqlalchemy.orm.Session, "engine": engine, "Photo": photo,
                "resize": resize})
    browser = app.test_client()
    job = browser.post("/photos", data={"path": "/srv/a.jpg"}).get_json()["job"]
    assert browser.post("/photos", data={"path": "/srv/a.jpg"}).status_code == 500  # the commit fails
    assert photos(db) == ["/srv/a.jpg"] and jobs(db) == 1
    jobqd(db, {"media": queue})
    assert client.wait(job, 60).result == {"resized": "/srv/a.jpg"}
    engine.dispose()


# ---- FastAPI ----


@pytest.mark.untrapped
def test_fastapi(db, jobqd, handler):
    import fastapi
    import httpx
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    resize, queue = handler
    photo = photo_class()
    engine = create_async_engine("postgresql+asyncpg://", connect_args={
        "host": str(db.cluster.dir), "user": "admin", "database": db.name})

    async def get_session():
        async with AsyncSession(engine) as session:
            yield session

    (_, text), = recipe("FastAPI")
    names = {"asynccontextmanager": contextlib.asynccontextmanager, "jobq": jobq, "FastAPI": fastapi.FastAPI,
             "Depends": fastapi.Depends, "AsyncSession": AsyncSession, "get_session": get_session, "Photo": photo, "resize": resize}
    exec(text.replace("postgresql:///app", db.uri), names)
    app = names["app"]
    if tuple(map(int, fastapi.__version__.split(".")[:2])) < (0, 93):
        app.router.lifespan_context = names["lifespan"]

    async def main():
        async with engine.begin() as conn:
            await conn.run_sync(photo.metadata.create_all)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with names["lifespan"](app), httpx.AsyncClient(transport=transport, base_url="http://test") as browser:
            job = (await browser.post("/photos", params={"path": "/srv/a.jpg"})).json()["job"]
            assert (await browser.post("/photos", params={"path": "/srv/a.jpg"})).status_code == 500  # the commit fails
            assert photos(db) == ["/srv/a.jpg"] and jobs(db) == 1
            jobqd(db, {"media": queue})
            assert (await browser.get(f"/photos/{job}", timeout=60)).json() == {"resized": "/srv/a.jpg"}
        await engine.dispose()

    asyncio.run(main())
