#!/usr/bin/python3
"""Runs the fuzz targets that are built, two at a time.

    python3 tests/fuzz/run.py BUILD [--target NAME]... [--seconds N] [--at-once 2] [--junit FILE] [--keep]

Each begins with what its folder of corpus/ holds and is counted as one test. It fails when the target finds something
(the input lies in BUILD/findings then, and what it was is printed), or when it hardly ran. Without --seconds each makes
RUNS inputs, others for each commit, and the same ones whenever that is run again: what it fails stays failed. With it,
others each time. --keep merges what a run has newly reached into corpus/, as the fewest inputs that reach it.
"""

import argparse
import base64
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from xml.sax.saxutils import quoteattr

HERE = pathlib.Path(__file__).resolve().parent
LEAST_RUNS = 1000
MAX_LEN = {"frame": 600, "lines": 1200, "config": 2000, "words": 200, "handover": 600,
           "cron": 120}  # bytes of an input
RUNS = {"frame": 2500000, "lines": 900000, "config": 450000, "words": 4000000, "handover": 2000000,
        "cron": 2500000}  # what takes about half a minute
LONGEST = 200  # seconds that they may take on a slow machine
FIXED_ADDRESSES = ["setarch", "--addr-no-randomize"]  # where the machine lets us


def seed_of_commit():
    """A number from 1 to 2^28 that each commit has for itself; 1 where git knows none."""
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
    return int(commit[:7] or "0", 16) + 1


class Target:
    def __init__(self, program, build, scratch):
        self.name = program.name.removeprefix("fuzz_")
        self.program = str(program)
        self.corpus = HERE / "corpus" / self.name
        self.found = scratch / f"corpus-{self.name}"
        self.found.mkdir()
        self.findings = build / "findings" / self.name
        self.findings.mkdir(parents=True, exist_ok=True)
        self.log = scratch / f"{self.name}.log"
        self.told = ""

    def run(self, seconds):
        """None, or what was found."""
        words = HERE / f"{self.name}.dict"
        begin = self.found.parent / f"begin-{self.name}"  # a folder's files come in any order
        begin.write_text(",".join(sorted(map(str, self.corpus.iterdir()))))
        alike, length = [], [f"-max_total_time={seconds}"]
        if not seconds:  # addresses, times and what a folder holds by and by are not the same in the next run
            alike = FIXED_ADDRESSES if subprocess.run([*FIXED_ADDRESSES, "true"], check=False).returncode == 0 else []
            length = [f"-runs={RUNS[self.name]}", f"-seed={seed_of_commit()}", "-entropic=0", "-reload=0",
                      f"-max_total_time={LONGEST}"]
        with open(self.log, "wb") as log:
            code = subprocess.run(
                [*alike, self.program, *length, f"-max_len={MAX_LEN[self.name]}", "-timeout=20", "-rss_limit_mb=1024",
                 f"-artifact_prefix={self.findings}/", "-print_final_stats=1", f"-dict={words}",
                 f"-seed_inputs=@{begin}", str(self.found)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.findings, check=False).returncode
        log = self.log.read_text(errors="replace")
        runs = int((re.search(r"^stat::number_of_executed_units:\s*(\d+)", log, re.M) or [0, 0])[1])
        edges = re.findall(r" cov: (\d+) ft: (\d+)", log)
        self.told = f"{runs} runs, {edges[-1][0] if edges else 0} edges, {len(list(self.found.iterdir()))} new inputs"
        if code == 0 and runs >= LEAST_RUNS:
            return None
        if code == 0:
            return f"only {runs} runs"
        artifact = re.findall(r"Test unit written to (\S+)", log)
        what = base64.b64encode(pathlib.Path(artifact[-1]).read_bytes()).decode() if artifact else "none"
        return f"exit {code}; the input, base64: {what}\n" + log[-6000:]

    def keep(self):
        """The kept inputs come first: merging prefers what it has seen."""
        merged = pathlib.Path(tempfile.mkdtemp(dir=self.found.parent))
        subprocess.run([self.program, "-merge=1", f"-max_len={MAX_LEN[self.name]}", str(merged), str(self.corpus),
                        str(self.found)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        kept = {file.read_bytes() for file in self.corpus.iterdir()}
        for file in merged.iterdir():
            if file.read_bytes() not in kept:
                shutil.copy(file, self.corpus / f"found-{file.name[:12]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--target", action="append")
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--junit", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true")
    wanted = parser.parse_args()
    folder = wanted.build.resolve() / "tests" / "fuzz"
    built = [folder / file.stem for file in sorted(HERE.glob("fuzz_*.c"))]
    missing = [str(program) for program in built if not program.exists()]
    if missing:
        sys.exit(f"run.py: not built: {' '.join(missing)}")
    cases, faults = [], 0
    with tempfile.TemporaryDirectory(prefix="jobq-fuzz-") as scratch:
        targets = [Target(program, wanted.build.resolve(), pathlib.Path(scratch)) for program in built
                   if not wanted.target or program.name.removeprefix("fuzz_") in wanted.target]
        with concurrent.futures.ThreadPoolExecutor(wanted.at_once) as pool:
            outcomes = list(pool.map(lambda target: target.run(wanted.seconds), targets))
        for target, fault in zip(targets, outcomes):
            faults += fault is not None
            print(f"fuzz {target.name}: {target.told}" + (f"\n{fault}" if fault else ""), flush=True)
            # XML knows fewer characters than a log holds.
            words = re.sub(r"[^\t\n\r -~]", "?", fault or "")
            inside = f"<failure message={quoteattr(words)}/>" if fault else ""
            cases.append(f'<testcase classname="fuzz" name="{target.name}">{inside}</testcase>')
            if wanted.keep and not fault:
                target.keep()
    if wanted.junit:
        wanted.junit.write_text(f'<testsuite name="fuzz">{"".join(cases)}</testsuite>\n')
    sys.exit(1 if faults or not cases else 0)


if __name__ == "__main__":
    main()
