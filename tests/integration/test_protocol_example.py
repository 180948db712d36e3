"""The worker that libjobq/README.md shows is run as it stands there."""

import json
import pathlib
import re

from harness.waiting import wait_for

README = (pathlib.Path(__file__).resolve().parents[2] / "libjobq" / "README.md").read_text()


def test_the_worker_of_the_readme(db, jobqd, tmp_path):
    text, = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    worker = tmp_path / "worker.py"
    worker.write_text(text)
    worker.chmod(0o755)
    node = jobqd(db, {"default": {"command": worker, "concurrency": 2}})
    good = [db.enqueue("resize", json.dumps({"path": f"/srv/{n}\u00e5.jpg", "width": 2 * n})) for n in range(200)]
    wrong = db.enqueue("resize", '{"path": "/srv/x.jpg", "width": "wide"}', max_attempts=1)
    unknown = db.enqueue("rotate", max_attempts=1)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") == 0, what=db.states)
    for n, job in enumerate(good):
        assert db.query("SELECT state::text, result FROM jobq.finished_jobs WHERE id = %s", (job,)) == \
            [("completed", {"path": f"/srv/{n}\u00e5.jpg", "width": n})]
    (state, (error,)), = db.query("SELECT state::text, errors FROM jobq.finished_jobs WHERE id = %s", (wrong,))
    assert (state, error["kind"]) == ("discarded", "error")
    assert error["error"].startswith("TypeError(") and "Traceback" in error["detail"]
    (error,), = db.query("SELECT errors FROM jobq.finished_jobs WHERE id = %s", (unknown,))[0]
    assert error["kind"] == "unhandled"
    assert node.stop() == 0
