"""Adds up what the runners reported (JUnit files of ctest and pytest) and prints the last line of a test run.

    python3 tests/harness/tally.py FILE.xml... [--failed "what did not run"]...

A test that was skipped did not run, and counts as failed: what a test needs is installed by run.sh. The exception: C tests that
need root are left out of an ordinary user's run, and skip themselves there; they are not counted.
Exits with 1 when anything failed.
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree

# A cmocka program is one case to ctest and says itself how many it holds.
CMOCKA_RUN = re.compile(r"^\[=+\] (?:.*: )?(\d+) test\(s\) run\.", re.M)
CMOCKA_SKIPPED = re.compile(r"^\[  SKIPPED \] (?:.*: )?(\d+) test\(s\)", re.M)
CMOCKA_FAILED = re.compile(r"^\[  FAILED  \] (?:.*: )?(\d+) test\(s\)", re.M)


def count_case(case):
    """(passed, failed) of one <testcase>."""
    bad = next((case.find(tag) for tag in ("failure", "error", "skipped") if case.find(tag) is not None), None)
    bad_status = case.get("status") not in (None, "run")  # ctest's word
    output = case.findtext("system-out") or ""
    ran = sum(map(int, CMOCKA_RUN.findall(output)))
    if not ran:
        return (0, 1) if bad is not None or bad_status else (1, 0)
    failed = sum(map(int, CMOCKA_FAILED.findall(output)))
    skipped = sum(map(int, CMOCKA_SKIPPED.findall(output)))
    if os.geteuid() == 0:
        failed += skipped
    else:
        ran -= skipped
    if (bad is not None or bad_status) and not failed:
        failed = 1  # every test passed and then the program failed: a leak, for one
    return max(ran - failed, 0), failed


def name_of(case):
    return "::".join(filter(None, (case.get("classname"), case.get("name"))))


def main(arguments):
    passed = failed = 0
    names = []
    words = iter(arguments)
    for word in words:
        if word == "--failed":
            failed += 1
            names.append(next(words))
            continue
        try:
            cases = list(ElementTree.parse(word).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            cases = []
            names.append(f"{word}: {error}")
        if not cases:
            failed += 1
            names.append(f"{word}: no test ran")
        for case in cases:
            good, bad = count_case(case)
            passed += good
            failed += bad
            if bad:
                names.append(f"{name_of(case)}{' (skipped)' if case.find('skipped') is not None else ''}")
    for name in names:
        print(f"failed: {name}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
