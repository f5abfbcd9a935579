"""The town sees what must not be: every check of it fails when there is something to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from provisioner.app.leases import ACTOR
from provisioner.model.lab import AuditEntry, Desired, LabState
from tests.chaos.people import People, list_own_files
from tests.chaos.town import Town
from tests.chaos.trouble import AFTER, BEFORE, Crash
from tests.fakes.samples import make_audit
from tests.fakes.vcenter import FakeVm


@pytest.fixture
def town(folder: Path) -> Town:
    made = Town(folder)
    made.provision("ana")
    made.work()
    made.check()
    return made


def get_vm(town: Town) -> FakeVm:
    return town.people.list_genuine()[0]


def double(town: Town) -> None:
    vm = get_vm(town)
    town.world.vcenter.vms["vm-twice"] = replace(vm, moref="vm-twice")


def lose_foreign_file(town: Town) -> None:
    town.meddle(People.attach_disk, 0)
    town.check()
    town.world.vcenter.files -= town.people.foreign_files


def touch_foreign_vm(town: Town) -> None:
    town.people.plant("somebody-elses")
    town.check()
    moref = next(iter(town.people.foreign))
    town.world.vcenter.vms[moref].name = "renamed"


def lose_vm(town: Town) -> None:
    del town.world.vcenter.vms[get_vm(town).moref]


def lose_key(town: Town) -> None:
    town.world.credentials.keys.clear()


def say_gone(town: Town) -> None:
    store, at = town.world.store, town.world.clock.now()
    store.set_desired("ana-mlops", 1, Desired.ABSENT, make_audit(action="teardown"))
    for state in (LabState.TEARING_DOWN, LabState.GONE):
        store.set_state("ana-mlops", 1, state, at)


def want_otherwise(town: Town) -> None:
    town.world.store.set_desired("ana-mlops", 1, Desired.ABSENT, make_audit())


def end_too_early(town: Town) -> None:
    lab = town.world.store.get_lab("ana-mlops")
    town.world.clock.true_at = lab.lease.ends_at + timedelta(minutes=5)
    at = town.world.clock.now()
    town.world.store.record(AuditEntry(at, ACTOR, "teardown", "ana-mlops", "asked"))


@pytest.mark.parametrize(
    "harm",
    [
        double,
        lose_foreign_file,
        touch_foreign_vm,
        lose_vm,
        lose_key,
        say_gone,
        want_otherwise,
        end_too_early,
    ],
)
def test_harm_is_seen(town: Town, harm: Callable[[Town], None]) -> None:
    harm(town)
    with pytest.raises((AssertionError, KeyError)):
        town.check()


def test_a_lab_that_stays_under_way_is_seen(town: Town) -> None:
    town.world.store.set_state("ana-mlops", 1, LabState.TEARING_DOWN, town.world.clock.now())
    with pytest.raises(AssertionError):
        town.check_settled()


def test_work_that_nobody_does_is_seen(town: Town) -> None:
    town.provision("bo")
    with pytest.raises(AssertionError):
        town.check_settled()
    town.work()
    town.check_settled()


def test_a_lab_that_cannot_go_is_seen(town: Town) -> None:
    town.world.vcenter.uuid = "another"
    with pytest.raises(AssertionError):
        town.end()


@pytest.mark.parametrize("place", [BEFORE, AFTER])
def test_a_crash_comes_at_its_moment(town: Town, place: str) -> None:
    trouble = town.world.trouble
    hypervisor = trouble.wrap(town.world.make_hypervisor(), "hypervisor")
    trouble.arm_crash(f"{place}hypervisor.check_sight", 1)
    hypervisor.read_clock()
    hypervisor.check_sight()
    assert not trouble.is_quiet
    with pytest.raises(Crash):
        hypervisor.check_sight()
    assert trouble.is_quiet
    hypervisor.check_sight()


def test_a_clone_that_vcenter_accepted_comes_whoever_dies(folder: Path) -> None:
    town = Town(folder)
    town.provision("ana")
    town.world.trouble.arm_crash("before store.move_guest", 4)
    town.work()
    (vm,) = town.people.list_genuine()
    assert list_own_files(vm) <= town.world.vcenter.files
