"""The durable engine's processes are killed, with SIGKILL, wherever they are."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from provisioner.engine import DurableEngine
from provisioner.errors import BusyError
from tests.contract.conftest import wait_until
from tests.contract.engine_child import AT, GROUP, Doomed, Plan

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
STEPS = ("a", *GROUP, "c")
MOMENTS = ("before", "after", "recorded")


def start(plan: Plan) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.contract.engine_child", plan.to_text()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def run(plan: Plan) -> tuple[Any, list[str]]:
    """Run a process to its end, and return what it says and which steps it began, in order."""
    process = start(plan)
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == (-signal.SIGKILL if plan.victim else 0)
    log = Path(plan.folder) / f"{process.pid}.log"
    lines = log.read_text().splitlines() if log.exists() else []
    began = [line.removeprefix("began ") for line in lines if line.startswith("began ")]
    assert len(began) == len(set(began)), "no process began a step twice"
    return (json.loads(said) if said else None), began


def get_done_before(victim: str) -> list[str]:
    """List what is recorded when the process dies at this step."""
    if victim in GROUP:
        return ["a", next(name for name in GROUP if name != victim)]
    return list(STEPS[: STEPS.index(victim)])


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("victim", STEPS)
def test_only_what_was_under_way_runs_again(tmp_path: Path, victim: str, moment: str) -> None:
    said, began = run(Plan(str(tmp_path), victim, moment))
    assert said is None
    kept = get_done_before(victim) + ([victim] if moment == "recorded" else [])
    assert set(kept) <= set(began)
    assert victim in began

    said, again = run(Plan(str(tmp_path), submits=False))
    assert said == {"values": [f"value of {name}" for name in STEPS]}
    assert sorted(again) == sorted(set(STEPS) - set(kept))


def test_a_step_that_failed_is_not_run_again_by_a_crash(tmp_path: Path) -> None:
    run(Plan(str(tmp_path), "b2", "before", fails="b1"))
    failed = {"kind": "CapacityError", "what": "b1 has no room", "hint": "free a host"}

    said, again = run(Plan(str(tmp_path), submits=False))
    assert said == {"error": failed}
    assert sorted(again) == ["b2", "b3"]

    said, again = run(Plan(str(tmp_path)))
    assert said == {"values": [f"value of {name}" for name in STEPS]}
    assert sorted(again) == ["b1", "c"]


def test_a_crash_while_it_continues_loses_nothing_either(tmp_path: Path) -> None:
    said, _ = run(Plan(str(tmp_path), fails="b1"))
    assert said["error"]["what"] == "b1 has no room"
    _, began = run(Plan(str(tmp_path), "c", "before"))
    assert sorted(began) == ["b1", "c"]
    said, again = run(Plan(str(tmp_path), submits=False))
    assert said == {"values": [f"value of {name}" for name in STEPS]}
    assert again == ["c"]


def test_edited_code_takes_up_what_older_code_began(tmp_path: Path) -> None:
    run(Plan(str(tmp_path), "b2", "before"))
    said, again = run(Plan(str(tmp_path), edition=2, submits=False))
    assert said == {"values": [f"value of {name}" for name in (*STEPS, "d")]}
    assert sorted(again) == ["b2", "b3", "c", "d"]


def test_a_new_step_before_recorded_ones_stops_the_run_until_it_is_asked_for_again(
    tmp_path: Path,
) -> None:
    run(Plan(str(tmp_path), "b2", "before"))
    said, again = run(Plan(str(tmp_path), edition=3, submits=False))
    assert (said["error"]["kind"], again) == ("StoppedError", [])
    assert "step new: is new here" in said["error"]["what"]

    said, again = run(Plan(str(tmp_path), edition=3))
    assert said == {"values": [f"value of {name}" for name in ("new", *STEPS)]}
    assert sorted(again) == ["b2", "b3", "c", "new"]


def test_no_number_of_crashes_is_too_many(tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), "c", "before")
    run(plan)
    with closing(sqlite3.connect(plan.database)) as raw, raw:
        raw.execute("UPDATE workflow_status SET recovery_attempts = 500")
    said, again = run(Plan(str(tmp_path), submits=False))
    assert (len(said["values"]), again) == (len(STEPS), ["c"])


def test_without_its_database_a_run_starts_anew(tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), "c", "before")
    run(plan)
    for file in tmp_path.glob("engine.db*"):
        file.unlink()
    said, again = run(Plan(str(tmp_path)))
    assert len(said["values"]) == len(STEPS)
    assert sorted(again) == sorted(STEPS)


def test_a_second_process_is_refused_until_the_first_one_is_dead(tmp_path: Path) -> None:
    plan = Plan(str(tmp_path), "b2", "held")
    process = start(plan)
    try:
        log = tmp_path / f"{process.pid}.log"
        wait_until(lambda: log.exists() and "began b2" in log.read_text())
        with pytest.raises(BusyError, match="another labctl"):
            DurableEngine({}, plan.database)
    finally:
        process.kill()
        process.communicate()
    doomed = Doomed(Plan(str(tmp_path)))
    engine = DurableEngine({"provision": doomed.workflow}, plan.database)
    try:
        assert engine.wait(*AT, timeout_s=DEADLINE_S)
    finally:
        engine.close()
    assert doomed.values == [f"value of {name}" for name in STEPS]
