"""The worker is killed ten times in a row, and vCenter is silent for half a minute: all ends well.

On real guests: provision and teardown of a lab of its own, followed by one verb each, which keeps
a worker running. What is there in the end is asked by a plain client, Docker and the store's file.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from provisioner.app.worker_process import find_worker
from tests.e2e.conftest import Installation, containers_of, find_vms, make_project

KILLS = 10
SILENCE_S = 30.0
LIVES_S = {"provision": 6.0, "teardown": 1.5}
"""How long a worker lives at most before it is killed: ten of them see a good part of the work."""
DEADLINE_S = 600.0
HIRE, LAB, VM = "cy@example.com", "cy-small", "cy-small-workbench"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a blueprint of one small guest."""
    return make_project(tmp_path, "small", "workbench")


def wait_until(is_so: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end_s, what
        threading.Event().wait(0.02)


def query(lab: Installation, sql: str) -> list[tuple[Any, ...]]:
    """Ask the store's file itself."""
    with closing(sqlite3.connect(f"file:{lab.state}/labctl.db?mode=ro", uri=True)) as raw:
        return raw.execute(sql).fetchall()


def has_begun(lab: Installation, step: str) -> bool:
    try:
        rows = query(lab, f"SELECT step FROM progress WHERE lab_id = '{LAB}'")  # noqa: S608 - ours
    except sqlite3.OperationalError:
        return False  # the store is being made
    return (step,) in rows


def kill_worker(lab: Installation, chance: random.Random, longest_s: float) -> int:
    """Kill the worker that runs, or comes next, after a while."""
    wait_until(lambda: find_worker(lab.state), "a worker runs")
    threading.Event().wait(chance.uniform(0, longest_s))
    worker = find_worker(lab.state)
    if worker is not None:
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: find_worker(lab.state) != worker, "it is dead")
    return worker or 0


@contextmanager
def silent_simulator(lab: Installation, step: str) -> Iterator[None]:
    """Stop the simulator for a while once a step has begun."""

    def stop() -> None:
        wait_until(lambda: has_begun(lab, step), f"{step} begins")
        os.kill(lab.endpoint["pid"], signal.SIGSTOP)
        try:
            threading.Event().wait(SILENCE_S)
        finally:
            os.kill(lab.endpoint["pid"], signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    yield
    thread.join()


def run_under_kills(
    lab: Installation, project: Path, step: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb, kill its workers and silence vCenter meanwhile, then leave it alone."""
    seed = secrets.randbelow(10**6)
    chance, killed = random.Random(seed), set[int]()  # noqa: S311 - to be repeated
    with ThreadPoolExecutor(1) as pool, silent_simulator(lab, step):
        done: Future[Any] = pool.submit(lab.labctl, *words, project=project, timeout_s=DEADLINE_S)
        while len(killed - {0}) < KILLS and not done.done():
            killed.add(kill_worker(lab, chance, LIVES_S[words[0]]))
    ended: subprocess.CompletedProcess[str] = done.result()
    told = f"seed {seed}, killed {killed}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, told
    assert len(killed - {0}) == KILLS, f"the work was over too soon: {told}"
    return ended


def list_children_of_dead_workers(lab: Installation) -> list[str]:
    """List what still runs of Ansible for this installation."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if "ansible" in text and str(lab.state) in text:
            found.append(text)
    return found


def test_what_a_dead_worker_left_running_would_be_seen(installation: Installation) -> None:
    assert list_children_of_dead_workers(installation) == []
    words = ["-c", "input()", "ansible-playbook", str(installation.state)]
    with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE) as left:
        wait_until(lambda: list_children_of_dead_workers(installation), "it is seen")
        left.kill()


def test_a_lab_comes_while_its_workers_are_killed(
    installation: Installation, project: Path, vcenter: Any
) -> None:
    words = ("provision", "small", "--hire", HIRE, "--key", f"{installation.key_file}.pub")
    run_under_kills(installation, project, "power-on", *words)
    (vm,) = find_vms(vcenter, VM)
    assert vm.runtime.powerState == "poweredOn"
    assert query(installation, f"SELECT state FROM labs WHERE lab_id = '{LAB}'") == [("ready",)]  # noqa: S608 - ours
    report = installation.must_json("verify", LAB, project=project)
    assert report["results"]
    assert all(result["passed"] for result in report["results"])
    assert list_children_of_dead_workers(installation) == []
    assert not list((installation.state / "runs").glob("*"))
    assert not list((installation.state / "keys" / LAB).glob("*trial*"))


def test_the_lab_goes_while_its_workers_are_killed(
    installation: Installation, project: Path, vcenter: Any
) -> None:
    (vm,) = find_vms(vcenter, VM)
    moref = vm._moId
    assert moref in containers_of(installation), "negative control"
    run_under_kills(installation, project, "destroy", "teardown", LAB, "--yes")
    assert find_vms(vcenter, VM) == []
    assert moref not in containers_of(installation)
    receipt = installation.must_json("teardown", LAB, "--yes", project=project)
    assert receipt["complete"] is True
    assert all(row["gone"] for row in receipt["evidence"])
