"""What one process decides while another one acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.app.labs import Labs
from provisioner.app.leases import Leases
from provisioner.app.worker import Worker
from provisioner.errors import StoreError
from provisioner.model.lab import Desired, LabState, WorkStatus
from tests.chaos.house import FakeHouse, World, write_project
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab

GRACE_IS_OVER_S = 17 * 24 * 3600 + 60


@pytest.fixture
def world(tmp_path: Path) -> World:
    write_project(tmp_path / "project")
    return World(tmp_path)


def never(_seconds: float) -> None:
    raise KeyboardInterrupt


def adopt(world: World, state: LabState) -> None:
    lab = replace(make_lab(), state=state, ready_at=NOW)
    world.store.adopt_lab(lab, make_guests(lab), make_audit())


def test_a_lab_that_is_extended_at_the_last_moment_is_not_destroyed(world: World) -> None:
    adopt(world, LabState.EXPIRED)
    world.clock.advance(GRACE_IS_OVER_S)
    worker, client = FakeHouse(world, never), FakeHouse(world, never)
    extended: list[bool] = []

    def extend() -> None:
        Leases(client).extend(client.store.get_lab("ana-mlops"), days=7, until=None)
        extended.append(True)

    world.trouble.arm(extend, "after store.find_last_work", 0)
    Leases(worker).tick()
    assert extended, "the operator was told that it is"
    lab = world.store.get_lab("ana-mlops")
    assert (lab.desired, lab.state) == (Desired.PRESENT, LabState.EXPIRED)


def test_forgetting_a_lab_leaves_the_keys_of_its_next_generation(world: World) -> None:
    adopt(world, LabState.READY)
    world.credentials.ensure_lab_key("ana-mlops", 1)

    def begin_the_next_one() -> None:
        following = make_lab(generation=2)
        world.store.add_lab(following, make_guests(following), make_audit())
        world.credentials.ensure_lab_key("ana-mlops", 2)

    world.trouble.arm(begin_the_next_one, "after store.set_state", 0)
    Labs(FakeHouse(world, never)).forget("ana-mlops", "the vCenter burnt")
    assert set(world.credentials.keys) == {("ana-mlops", "2")}


class Picky:
    """An engine that cannot take the work of one lab."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def submit(self, workflow: str, lab_id: str, *run: int) -> None:
        if lab_id == "ana-mlops":
            raise StoreError("the engine's database is damaged")
        self._engine.submit(workflow, lab_id, *run)

    def wait(self, *run: Any, timeout_s: float) -> bool:
        return bool(self._engine.wait(*run, timeout_s=timeout_s))


def test_work_that_cannot_be_begun_keeps_no_other_work(world: World) -> None:
    for lab_id in ("ana-mlops", "bo-mlops"):
        lab = make_lab(lab_id)
        world.vcenter.events = lab.event_key
        world.store.add_lab(lab, make_guests(lab), make_audit(lab_id))
    house = FakeHouse(world, world.clock.advance)
    engine: Any = Picky(house.open_engine())
    Worker(house, engine, 1.0).run()
    item = world.store.find_last_work("ana-mlops")
    assert item is not None
    assert (item.status, item.error and item.error["kind"]) == (WorkStatus.FAILED, "StoreError")
    assert world.store.get_lab("ana-mlops").state is LabState.FAILED
    assert world.store.get_lab("bo-mlops").state is LabState.READY
