"""The bindings are tested from the source tree, with the library of the build tree."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("JOBQ_BUILD_DIR", ROOT / "build-test")).resolve()
SOURCE = ROOT / "bindings" / "python" / "src"
LIBRARY = BUILD / "libjobq" / "libjobq.so.0"

os.environ["JOBQ_LIBRARY"] = str(LIBRARY)
sys.path[:0] = [str(SOURCE), str(pathlib.Path(__file__).parent)]


@pytest.fixture
def client(db):
    import jobq
    with jobq.Client(db.uri, schema=db.schema) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def django_settings():
    from django.conf import settings
    settings.configure(USE_TZ=True, DATABASES={})
