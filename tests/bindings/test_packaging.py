"""The wheel and the sdist: what is in them, and that what they install works without the source tree."""

import ast
import email
import os
import pathlib
import shutil
import subprocess
import tarfile
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bindings" / "python"
VERSIONS = ["3.9", "3.10", "3.11", "3.12", "3.13"]


def run(*args, cwd, **env):
    kept = {name: value for name, value in os.environ.items() if name not in ("JOBQ_LIBRARY", "PYTHONPATH")}
    done = subprocess.run([str(arg) for arg in args], cwd=cwd, capture_output=True, text=True, timeout=280, env={**kept, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checkout(folder):
    """What the package is built from, and no more."""
    folder.mkdir()
    for name in ("libjobq", "include", "bindings"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CMakeLists.txt", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Both, built as a maintainer would. The wheel is built from the sdist, so each is tried."""
    folder = tmp_path_factory.mktemp("dist")
    copy = checkout(folder / "source")
    before = files(copy)
    run("/usr/bin/python3", "-m", "build", "--no-isolation", "-o", folder, copy / "bindings" / "python", cwd=folder)
    assert files(copy) == before
    return folder


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The wheel in an environment of its own, with Debian's packages in reach: its python."""
    folder = tmp_path_factory.mktemp("venv")
    venv.EnvBuilder(system_site_packages=True, with_pip=True, symlinks=True).create(folder)
    wheel, = dist.glob("*.whl")
    run(folder / "bin" / "pip", "install", "--no-index", "--no-deps", wheel, cwd=folder)
    return folder / "bin" / "python"


def test_the_wheel_carries_the_library_and_its_types(dist):
    wheel, = dist.glob("*.whl")
    assert wheel.name.startswith("jobq-0.1.0-py3-none-linux_")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(archive.read("jobq-0.1.0.dist-info/METADATA"))
    sources = {f"jobq/{path.name}" for path in (PACKAGE / "src" / "jobq").glob("*.py")}
    assert sources | {"jobq/libjobq.so.0", "jobq/py.typed", "jobq-0.1.0.dist-info/LICENSE"} <= names
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"], metadata["Requires-Dist"]) == \
        ("jobq", "0.1.0", ">=3.9", None)


def test_the_sdist_carries_what_the_library_is_built_from(dist):
    sdist, = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
    for path in [*(ROOT / "libjobq").glob("*.[ch]"), *(ROOT / "include" / "jobq").glob("*.h"), ROOT / "CMakeLists.txt"]:
        assert f"jobq-0.1.0/csrc/{path.relative_to(ROOT)}" in names


@pytest.fixture
def path_without(tmp_path):
    """A PATH with all that this machine's has, but for the programs that are named."""
    def path(*names):
        folder = tmp_path / f"without-{'-'.join(names)}"
        folder.mkdir()
        for program in pathlib.Path("/usr/bin").iterdir():
            if program.name not in names:
                (folder / program.name).symlink_to(program)
        return str(folder)
    return path


@pytest.fixture(scope="module")
def pip(tmp_path_factory):
    """That of an empty environment, as the README makes it."""
    folder = tmp_path_factory.mktemp("pip")
    venv.EnvBuilder(system_site_packages=True, with_pip=True, symlinks=True).create(folder)
    return folder / "bin" / "pip"


@pytest.mark.parametrize("missing", [["make", "gmake"], ["ninja"]], ids=" ".join)
def test_pip_builds_it_with_either_and_leaves_the_checkout_as_it_was(missing, path_without, pip, tmp_path):
    """cmake does not bring make along everywhere: the quickstart installs it with ninja alone."""
    source = checkout(tmp_path / "source")
    before = files(source)
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    run(pip, "install", "--no-index", "--no-build-isolation", "--target", target, "./bindings/python", cwd=source,
        PATH=path_without(*missing), TMPDIR=str(scratch))
    assert (target / "jobq" / "libjobq.so.0").exists()
    assert files(source) == before
    assert list(scratch.glob("jobq-build-*")) == []


def test_pip_says_what_building_it_takes(path_without, pip, tmp_path):
    done = subprocess.run([pip, "install", "--no-index", "--no-build-isolation", "--target", tmp_path / "target",
                           "./bindings/python"], cwd=checkout(tmp_path / "source"),
                          env={**os.environ, "PATH": path_without("make", "gmake", "ninja")}, capture_output=True, text=True, timeout=280)
    assert done.returncode != 0 and not (tmp_path / "target").exists()
    assert "takes cmake, and ninja or make; not found: ninja, make (Debian: apt-get install cmake" in done.stdout + done.stderr


def test_the_installed_package_works(db, installed, tmp_path):
    said = run(installed, "-c", f"""
import jobq, pathlib
print(pathlib.Path(jobq._native.lib._name).parent == pathlib.Path(jobq.__file__).parent)
with jobq.Client({db.uri!r}) as client:
    job = client.enqueue("hello", {{"name": "you"}})
    print(client.get(job).args)
""", cwd=tmp_path)
    assert said == "True\n{'name': 'you'}\n"


def test_a_worker_of_the_installed_package(db, installed, jobqd, client, tmp_path):
    (tmp_path / "jobs.py").write_text("""
import jobq

@jobq.worker("hello")
def hello(name: str) -> str:
    return f"hello {name}"
""")
    jobqd(db, {"default": {"command": f"{installed} -m jobq.worker jobs", "working_directory": str(tmp_path)}})
    assert client.wait(client.enqueue("hello", {"name": "you"}), 60).result == "hello you"


def test_pytest_finds_the_plugin(installed, tmp_path):
    assert "jobq_client" in run(installed, "-m", "pytest", "-p", "no:cacheprovider", "--fixtures", cwd=tmp_path)


def test_the_versions_are_one():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    module = (PACKAGE / "src" / "jobq" / "_version.py").read_text()
    version = module.split('"')[-2]
    assert f"project(jobq VERSION {version} " in cmake


@pytest.mark.parametrize("version", VERSIONS[:3])
def test_mypy(version, tmp_path):
    """As far as Debian's mypy knows the versions; newer ones only add to the language."""
    run("/usr/bin/python3", "-m", "mypy", "--strict", "--python-version", version, "--cache-dir", tmp_path, "src/jobq", cwd=PACKAGE)


USER = '''
import datetime
from typing import Dict
import jobq

@jobq.worker("resize", queue="media", timeout=datetime.timedelta(minutes=1))
def resize(path: str, width: int = 640) -> Dict[str, int]:
    return {"width": width}

@jobq.worker("with_context")
def with_context(context: jobq.Context, n: int) -> None:
    context.progress(0.5)

@jobq.worker("coroutine")
async def coroutine(n: int) -> int:
    return n

job: jobq.Enqueued = resize.enqueue("/a", width=1)
with_context.options(priority=1).enqueue(n=1)
coroutine.enqueue(1)
with jobq.Client() as client:
    done: bool = client.cancel(job)
'''


@pytest.mark.parametrize("wrong,message", [
    ("", None),
    ("resize.enqueue(1)", 'has incompatible type "int"; expected "str"'),
    ("resize.enqueue()", "Missing positional argument"),
    ("with_context.enqueue(jobq.current(), 1)", "Too many arguments"),
    ("with_context.options().enqueue('1')", 'has incompatible type "str"; expected "int"'),
    ("client.enqueue('a', priority='high')", 'has incompatible type "str"; expected "int"'),
])
def test_mypy_of_an_application(tmp_path, wrong, message):
    """Its calls of .enqueue() are checked against its functions."""
    (tmp_path / "app.py").write_text(f"{USER}\n{wrong}\n")
    done = subprocess.run(["/usr/bin/python3", "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "app.py"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(PACKAGE / "src")})
    assert (message in done.stdout) if message else (done.returncode == 0), done.stdout


@pytest.mark.parametrize("path", sorted((PACKAGE / "src" / "jobq").glob("*.py")), ids=lambda path: path.name)
def test_the_oldest_python_reads_it(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


def pythons():
    """Those between 3.9 and 3.13 that this machine has: Debian's, and what pyenv has built."""
    found = {}
    for version in VERSIONS:
        paths = [*pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"), shutil.which(f"python{version}", path="/usr/bin")]
        found.update({version: str(path) for path in paths if path})
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_each_python_that_is_here(version, db, client, jobqd, tmp_path):
    """Enqueues, waits and works; a version that the machine lacks is read only."""
    python = pythons().get(version)
    if python is None:
        for path in (PACKAGE / "src" / "jobq").glob("*.py"):
            ast.parse(path.read_text(), feature_version=tuple(map(int, version.split("."))))
        return
    (tmp_path / "jobs.py").write_text("""
import datetime
import sys
from typing import Dict, Optional

import jobq

@jobq.worker("version")
def version(context: jobq.Context, at: datetime.datetime, n: Optional[int] = None) -> Dict[str, object]:
    return {"version": list(sys.version_info[:2]), "year": at.year, "id": context.job.id}

@jobq.worker("coroutine")
async def coroutine(n: int) -> int:
    return n
""")
    library = os.environ["JOBQ_LIBRARY"]
    jobqd(db, {"default": {"command": f"{python} -m jobq.worker jobs", "working_directory": str(tmp_path), "preload": "on",
                           "env": f"JOBQ_LIBRARY={library} PYTHONPATH={PACKAGE / 'src'} PYTHONDONTWRITEBYTECODE=1"}})
    said = run(python, "-c", f"""
import datetime, sys
import jobq, jobq.aio, jobq.testing
import jobs
with jobq.Client({db.uri!r}) as client:
    jobq.set_client(client)
    job = jobs.version.enqueue(datetime.datetime(2031, 1, 1, tzinfo=datetime.timezone.utc), n=1)
    done = client.wait(job, 60)
    assert done.result == {{"version": list(sys.version_info[:2]), "year": 2031, "id": job.id}}, done
    assert client.wait(jobs.coroutine.options(unique=True).enqueue(7), 60).result == 7
    assert jobq.testing.perform(jobs.coroutine, {{"n": 1}}).result == 1
    try:
        jobs.coroutine.enqueue("1", 2)
    except jobq.InvalidError as error:
        print(error)
""", cwd=tmp_path, PYTHONPATH=f"{PACKAGE / 'src'}:{tmp_path}", JOBQ_LIBRARY=library, PYTHONDONTWRITEBYTECODE="1")
    assert said == "args: too many positional arguments\n"


def test_asyncio_is_imported_by_those_who_want_it():
    """jobq.aio and jobq.testing come with `import jobq`, when they are named."""
    code = ("import sys, jobq; before = 'asyncio' in sys.modules; print(before, jobq.aio.Client.__module__, jobq.testing.perform.__module__,"
            " hasattr(jobq, 'nothing'))")
    assert run("/usr/bin/python3", "-c", code, cwd=PACKAGE / "src", JOBQ_LIBRARY=os.environ["JOBQ_LIBRARY"]) == "False jobq.aio jobq.testing False\n"
