"""A verb follows its work in the store, and keeps a worker running meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from provisioner.app.following import STARTS, follow
from provisioner.app.wiring import House
from provisioner.app.worker_process import find_end, find_worker, start_worker
from provisioner.errors import LabctlError, TaskFailedError, to_data
from provisioner.model.lab import Progress, StepStatus, WorkItem, WorkStatus
from tests.fakes.samples import NOW, make_audit, make_lab

DEADLINE_S = 60.0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(ask_password=lambda who: who, state=tmp_path / "state")
    yield made
    worker = find_worker(made.state)
    if worker is not None and worker != os.getpid():
        os.kill(worker, signal.SIGKILL)
    made.close()


def row(text: str, minute: int) -> Progress:
    at = NOW + timedelta(minutes=minute)
    return Progress("ana-mlops", 1, at, "provision", "clone", "", StepStatus.NOTE, text)


def ask(house: House) -> WorkItem:
    audit = replace(make_audit(), at=NOW + timedelta(minutes=5))
    return house.store.add_lab(make_lab(), (), audit)


@pytest.mark.usefixtures("holder")
def test_the_rows_of_the_work_come_in_order_and_older_ones_do_not(house: House) -> None:
    item, seen = ask(house), list[str]()
    house.store.add_progress(row("of an earlier try", 1))
    house.store.add_progress(row("first", 6))

    def work() -> None:
        house.store.add_progress(row("second", 7))
        house.store.set_work(item.serial, WorkStatus.DONE, NOW)

    thread = threading.Timer(0.3, work)
    thread.start()
    follow(house, item, lambda one: seen.append(one.text))
    thread.join()
    assert seen == ["first", "second"]


def test_an_error_of_the_work_comes_back_as_itself(house: House) -> None:
    item = ask(house)
    error = to_data(TaskFailedError("the clone failed", hint="look at its task"))
    house.store.set_work(item.serial, WorkStatus.FAILED, NOW, error)
    with pytest.raises(TaskFailedError, match="the clone failed") as caught:
        follow(house, item, lambda _: None)
    assert caught.value.hint == "look at its task"


def test_a_worker_that_cannot_stay_is_not_started_for_ever(house: House) -> None:
    item = ask(house)
    (house.state / "engine.db").mkdir(parents=True)
    with pytest.raises(LabctlError, match=f"{STARTS} ended before the work did") as caught:
        follow(house, item, lambda _: None)
    assert "worker.log" in caught.value.hint
    assert "engine.db" in (house.state / "worker.log").read_text()
    assert house.store.get_work(item.serial).status is WorkStatus.WAITING


def test_a_worker_started_by_a_verb_ends_on_sigterm(house: House) -> None:
    house.store.list_labs()
    worker = start_worker(house)
    wait_until(lambda: find_worker(house.state) == worker)
    os.kill(worker, signal.SIGTERM)
    ends: list[int | None] = [None]

    def has_ended() -> bool:
        ends.append(find_end(worker))
        return ends[-1] is not None

    wait_until(has_ended)
    assert ends[-1] == 0
    assert find_worker(house.state) is None
    assert "Traceback" not in (house.state / "worker.log").read_text()


def wait_until(check: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.05)
