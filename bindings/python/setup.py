"""What pyproject.toml cannot say: the wheel carries libjobq, which CMake builds, and the sdist its sources."""

import atexit
import os
import pathlib
import shutil
import subprocess
import tempfile

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from wheel.bdist_wheel import bdist_wheel

HERE = pathlib.Path(__file__).resolve().parent
#: What libjobq is built from, in the repository's root; in an sdist below csrc.
SOURCES = ("CMakeLists.txt", "libjobq", "include")
BUNDLED = HERE / "csrc"
#: Where what setuptools makes on the way lies: pip builds in the checkout itself, which stays as it is.
SCRATCH = tempfile.mkdtemp(prefix="jobq-build-")
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def source_root():
    """Where CMakeLists.txt is."""
    return BUNDLED if BUNDLED.exists() else HERE.parents[1]


def generator():
    """CMake's default is make, which is not there where cmake and ninja were installed without it."""
    found = {name: shutil.which(name) for name in ("cmake", "ninja", "make")}
    if not found["cmake"] or not (found["ninja"] or found["make"]):
        raise SystemExit("jobq: libjobq is built from its sources, which takes cmake, and ninja or make; not found: "
                         + ", ".join(name for name, path in found.items() if not path)
                         + " (Debian: apt-get install cmake ninja-build gcc pkg-config libpq-dev)")
    return ["-G", "Ninja"] if found["ninja"] and "CMAKE_GENERATOR" not in os.environ else []


class BuildWithLibrary(build_py):
    """Puts libjobq.so.0 beside the modules, which look for it there. JOBQ_WHEEL_LIBRARY names one that is built already."""

    def run(self):
        super().run()
        target = pathlib.Path(self.build_lib) / "jobq" / "libjobq.so.0"
        target.parent.mkdir(parents=True, exist_ok=True)
        built = os.environ.get("JOBQ_WHEEL_LIBRARY")
        shutil.copyfile(built if built else self.build_library(), target)
        target.chmod(0o755)

    def build_library(self):
        folder = pathlib.Path(self.get_finalized_command("build").build_temp).resolve() / "libjobq"
        options = [*generator(), "-DJOBQ_BUILD_DAEMON=OFF", "-DJOBQ_BUILD_TESTS=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        subprocess.run(["cmake", "-S", source_root(), "-B", folder, *options], check=True)
        subprocess.run(["cmake", "--build", folder, "--target", "jobq"], check=True)
        return folder / "libjobq" / "libjobq.so.0"


class WheelOfOnePlatform(bdist_wheel):
    """Any Python 3, but one platform."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


class DistributionOfOnePlatform(Distribution):
    """Makes setuptools install what is not pure Python where such things go."""

    def has_ext_modules(self):
        return True


class SdistWithSources(sdist):
    """Carries what libjobq is built from."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if not name.startswith(SCRATCH)])
        target = pathlib.Path(base_dir) / "csrc"
        target.mkdir()
        for name in SOURCES:
            source = source_root() / name
            if source.is_dir():
                shutil.copytree(source, target / name)
            else:
                shutil.copyfile(source, target / name)


setup(
    distclass=DistributionOfOnePlatform,
    options={"build": {"build_base": SCRATCH}, "egg_info": {"egg_base": SCRATCH}},
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfOnePlatform, "sdist": SdistWithSources},
)
