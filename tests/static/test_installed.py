"""What is installed by a build with the default options, as a user makes it: hardened, without what is for tests."""

import platform
import re
import subprocess

import pytest

from harness.schema import ROOT


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Where it is installed."""
    folder = tmp_path_factory.mktemp("installed")
    for step in (["cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", "-DJOBQ_BUILD_TESTS=OFF", "-DJOBQ_WERROR=ON",
                  "-DCMAKE_C_COMPILER_LAUNCHER=ccache", f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}"],
                 ["cmake", "--build", folder / "build"], ["cmake", "--install", folder / "build"]):
        done = subprocess.run(list(map(str, step)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "prefix"


PROGRAMS = ["bin/jobqd", "libexec/jobq/jobq-bench"]


def found(prefix, name):
    if name == "libjobq.so":
        [library] = [path for path in prefix.rglob("libjobq.so.*.*")]
        return library
    return prefix / name


def readelf(*args):
    return subprocess.run(["readelf", "-W", *map(str, args)], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", [*PROGRAMS, "libjobq.so"])
def test_what_is_installed_is_hardened(prefix, name):
    file = found(prefix, name)
    assert re.search(r"Type:\s+DYN", readelf("-h", file)), "position independent"
    segments = readelf("-l", file)
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK .* RW +0x", segments), "no code on the stack"
    assert re.search(r"\bNOW\b", readelf("-d", file)), "all names are bound at the start, and read only then"
    symbols = readelf("--dyn-syms", file)
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__(sn|vsn)?printf_chk|__memcpy_chk|__read_chk|__fprintf_chk", symbols), "_FORTIFY_SOURCE"
    if platform.machine() == "x86_64":
        # The property of the whole file is the linker's, who leaves it out where Debian's own start files have none.
        assert file.read_bytes().count(b"\xf3\x0f\x1e\xfa") > 100, "endbr64 where a function begins"


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_seam_for_tests_is_installed(prefix, name):
    """JOBQ_TEST_UNFENCED switches the promise off that no job runs in two places at once."""
    assert b"JOBQ_TEST_" not in found(prefix, name).read_bytes()


def test_assertions_stay(prefix):
    """In every build type."""
    assert b"Assertion" in (prefix / "bin/jobqd").read_bytes() or "__assert_fail" in readelf("--dyn-syms", prefix / "bin/jobqd")
    types = re.findall(r"CMAKE_C_FLAGS_(\w+) ", (ROOT / "CMakeLists.txt").read_text())
    assert {"RELWITHDEBINFO", "RELEASE", "MINSIZEREL"} <= set(types)
    assert "NDEBUG" not in (ROOT / "CMakeLists.txt").read_text()


def test_bench_is_found_beside_what_is_installed(prefix, tmp_path):
    assert "usage: jobqd bench" in subprocess.run([prefix / "bin/jobqd", "bench", "--help"], check=True, capture_output=True,
                                                  text=True).stdout
    moved = tmp_path / "moved"
    prefix.rename(moved)
    try:
        said = subprocess.run([moved / "bin/jobqd", "bench", "--help"], check=True, capture_output=True, text=True).stdout
        assert "usage: jobqd bench" in said, "both were moved"
        bench = moved / "libexec/jobq/jobq-bench"
        bench.rename(moved / "elsewhere")
        done = subprocess.run([moved / "bin/jobqd", "bench", "drain"], capture_output=True, text=True)
        assert done.returncode == 69 and "jobqd bench: cannot execute " in done.stderr and "package jobq-bench" in done.stderr
        (moved / "elsewhere").rename(bench)
    finally:
        moved.rename(prefix)
