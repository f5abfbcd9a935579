"""What only the durable engine promises: closing, its file, and that nothing else loads it."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provisioner.engine import DurableEngine
from provisioner.errors import (
    BusyError,
    CapacityError,
    LabctlError,
    StoppedError,
    StoreError,
    UnknownLabError,
)
from provisioner.ports import Flow, Step
from tests.contract.engines import AT, SOON_S, fail, making

Start = Callable[..., DurableEngine]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an engine on the one database of the test."""
    with making(DurableEngine, tmp_path) as make:
        yield make  # type: ignore[misc]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


def change(database: Path, *statements: str) -> list[Any]:
    """Change the database behind the engine's back, and return what the last statement says."""
    with closing(sqlite3.connect(database)) as raw, raw:
        return [raw.execute(statement).fetchall() for statement in statements][-1]


def run_one(engine: DurableEngine) -> None:
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)


# -- closing --------------------------------------------------------------------------------------


def test_what_closing_stopped_is_not_recorded_and_continues_at_the_next_start(start: Start) -> None:
    ran: list[str] = []
    caught: list[LabctlError] = []
    begun, closed = threading.Barrier(4), threading.Event()

    def act(name: str) -> None:
        ran.append(name)
        if closed.is_set():
            return
        begun.wait(SOON_S)
        assert engine._closing.wait(SOON_S)
        if name == "stops":
            raise StoppedError("asked to stop")
        if name == "fails":
            fail("full")

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        try:
            flow.run(*(Step(name, partial(act, name)) for name in ("ends", "stops", "fails")))
        except LabctlError as error:
            caught.append(error)
            raise

    engine = start({"provision": workflow})
    engine.submit(*AT)
    begun.wait(SOON_S)
    engine.close()
    assert sorted(ran) == ["ends", "fails", "stops"]
    assert caught == [], "the workflow does not hear of it: it has not ended"
    assert not [t for t in threading.enumerate() if t.name.startswith(("queue", "step", "Thread"))]

    closed.set()
    engine = start({"provision": workflow})
    with pytest.raises(CapacityError):
        engine.wait(*AT, timeout_s=SOON_S)
    assert ran[3:] == ["stops"]


def test_a_workflow_that_is_no_more_ends_what_was_begun_of_it(start: Start) -> None:
    begun = threading.Event()

    def act() -> None:
        begun.set()
        assert engine._closing.wait(SOON_S)
        raise StoppedError("asked to stop")

    engine = start({"provision": lambda flow, *_: flow.run(Step("a", act))})
    engine.submit(*AT)
    assert begun.wait(SOON_S)
    engine.close()
    engine = start({})
    with pytest.raises(LabctlError, match="internal error: KeyError"):
        engine.wait(*AT, timeout_s=SOON_S)


def test_one_engine_in_a_process_and_one_on_a_database(start: Start, tmp_path: Path) -> None:
    engine = start({})
    with pytest.raises(BusyError):
        start({})
    with pytest.raises(RuntimeError, match="has a durable engine"):
        DurableEngine({}, tmp_path / "other" / "engine.db")
    engine.close()
    start({})


# -- the file -------------------------------------------------------------------------------------


def test_the_file_is_private_and_holds_no_pickle_and_no_foreign_text(
    start: Start, database: Path
) -> None:
    def leak() -> None:
        raise PermissionError("password=hunter2")

    engine = start(
        {
            "provision": lambda flow, *_: flow.run(Step("a", lambda: {"of": ["a"]})),
            "teardown": lambda flow, *_: flow.run(Step("a", leak)),
        }
    )
    run_one(engine)
    engine.submit("teardown", *AT[1:])
    with pytest.raises(LabctlError):
        engine.wait("teardown", *AT[1:], timeout_s=SOON_S)
    files = list(database.parent.glob("engine*"))
    assert {file.name for file in files} >= {"engine.db", "engine.db-wal", "engine.lock"}
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert b"hunter2" not in file.read_bytes()
    assert change(database, "SELECT DISTINCT serialization FROM operation_outputs") == [
        ("portable_json",)
    ]
    rows = change(database, "SELECT error FROM operation_outputs WHERE error IS NOT NULL")
    assert rows == [], "an error is data like any other outcome"


@pytest.mark.parametrize("damage", ["garbage", "page", "schema"])
def test_a_damaged_file_is_refused_and_may_be_deleted(
    start: Start, database: Path, damage: str
) -> None:
    runs: list[int] = []
    workflows = {"provision": lambda *_: runs.append(1)}
    engine = start(workflows)
    run_one(engine)
    engine.close()
    if damage == "garbage":
        database.write_bytes(b"no database" * 1000)
    elif damage == "page":
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'operation_outputs'"
        ((page,),) = change(database, query)
        ((page_size,),) = change(database, "PRAGMA page_size")
        with database.open("r+b") as file:
            file.seek((page - 1) * page_size)
            file.write(b"\xff" * page_size)
    else:
        change(database, "DROP TABLE workflow_status")
    with pytest.raises(StoreError, match="cannot be used") as caught:
        start(workflows)
    assert f"delete {database}*" in caught.value.hint

    for left in database.parent.glob(f"{database.name}*"):
        left.unlink()
    run_one(start(workflows))
    assert runs == [1, 1]


def test_a_file_that_others_may_read_is_refused(start: Start, database: Path) -> None:
    start({}).close()
    database.chmod(0o640)
    with pytest.raises(StoreError, match="open to other users"):
        start({})


def test_what_could_not_be_written_down_is_said_and_continues(start: Start, database: Path) -> None:
    ran: list[str] = []

    def break_it() -> None:
        ran.append("b")
        if len(ran) == 2:
            change(database, "ALTER TABLE operation_outputs RENAME TO away")

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        flow.run(Step("a", partial(ran.append, "a")))
        flow.run(Step("b", break_it))

    engine = start({"provision": workflow})
    engine.submit(*AT)
    with pytest.raises(StoreError, match="OperationalError"):
        engine.wait(*AT, timeout_s=SOON_S)
    assert not engine.is_running(*AT)

    change(database, "ALTER TABLE away RENAME TO operation_outputs")
    run_one(engine)
    assert ran == ["a", "b", "b"]


def test_what_is_under_way_can_be_taken_up_by_another_process_and_version(
    start: Start, database: Path
) -> None:
    run_one(start({"provision": lambda *_: None}))
    query = "SELECT workflow_uuid, name, executor_id, application_version FROM workflow_status"
    assert change(database, query) == [("provision:ana-mlops:1:1", "run", "runner", "1")]


def test_finished_runs_are_forgotten_and_others_are_not(start: Start, database: Path) -> None:
    go, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go.wait(SOON_S)

    errors = ["full"]
    engine = start(
        {
            "provision": lambda flow, *_: flow.run(Step("a", lambda: errors and fail("full"))),
            "teardown": lambda flow, *_: flow.run(Step("a", hold)),
        }
    )
    engine.submit(*AT)
    with pytest.raises(CapacityError):
        engine.wait(*AT, timeout_s=SOON_S)
    errors.clear()
    run_one(engine)
    engine.submit("teardown", *AT[1:])
    assert begun.wait(SOON_S)

    now = datetime.now(UTC)
    engine.forget_finished(now - timedelta(hours=1))
    assert engine.wait(*AT, timeout_s=SOON_S)
    engine.forget_finished(now + timedelta(hours=1))
    with pytest.raises(UnknownLabError):
        engine.wait(*AT, timeout_s=SOON_S)
    assert engine.is_running("teardown", *AT[1:])
    go.set()
    assert engine.wait("teardown", *AT[1:], timeout_s=SOON_S)
    engine.forget_finished(now + timedelta(hours=1))
    for table in ("workflow_status", "workflow_input", "workflow_output", "operation_outputs"):
        assert change(database, f"SELECT * FROM {table}") == [], table  # noqa: S608 - our names


def test_dbos_is_loaded_only_with_the_engine_that_needs_it() -> None:
    code = """
import sys
import provisioner.engine as engine
print('dbos' in sys.modules, engine.{}.__name__, 'dbos' in sys.modules)
"""
    for name, loads in (("InProcessEngine", "False"), ("DurableEngine", "True")):
        said = subprocess.run(
            [sys.executable, "-c", code.format(name)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert said == f"False {name} {loads}\n"
