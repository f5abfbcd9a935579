from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from provisioner.errors import (
    NotProvedError,
    TaskFailedError,
    TeardownIncompleteError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestState, LabState
from provisioner.rules.receipt import from_json, is_complete
from tests.workflows.conftest import World, make_world


@pytest.fixture
def ready() -> World:
    world = make_world("workbench", "tracking")
    world.provision()
    return world


def test_a_teardown_leaves_nothing_and_says_so(ready: World) -> None:
    ready.teardown()
    assert ready.get_state() is LabState.GONE
    assert ready.vcenter.vms == {}
    assert ready.credentials.keys == {}
    receipt = from_json(ready.store.find_receipt("ana-mlops") or "")
    assert is_complete(receipt)


def test_access_ends_before_the_first_vm_goes(ready: World) -> None:
    ready.teardown()
    steps = [step for step, _ in ready.steps("ok")]
    assert steps[-6:] == ["sight", "revoke", "revoke", "destroy", "destroy", "receipt"]
    assert [c for _, c, _ in ready.shell.ran if "usermod --expiredate" in c]


def test_a_guest_that_does_not_answer_is_destroyed_all_the_same(ready: World) -> None:
    for machine in ready.shell.machines.values():
        machine.up = False
    ready.teardown()
    assert ready.get_state() is LabState.GONE
    rows = ready.store.list_progress("ana-mlops", step="revoke")
    assert "not revoked" in rows[-1].text


def test_a_foreign_disk_stops_its_vm_and_is_residue(ready: World) -> None:
    vm = next(iter(ready.vcenter.vms.values()))
    vm.disks.append(("[datastore-1] payroll/payroll.vmdk",))
    with pytest.raises(TeardownIncompleteError):
        ready.teardown()
    assert ready.get_state() is LabState.RESIDUE
    assert list(ready.vcenter.vms.values()) == [vm], "the other guest is gone"
    assert ready.credentials.keys, "keys stay as long as a VM does"
    vm.disks.pop()
    ready.teardown()
    assert ready.get_state() is LabState.GONE


def test_a_vcenter_that_is_away_proves_nothing(ready: World) -> None:
    ready.hypervisor.failures["check_sight"] = [TaskFailedError("no answer")]
    with pytest.raises(TaskFailedError):
        ready.teardown()
    assert ready.get_state() is LabState.RESIDUE
    assert ready.vcenter.vms, "nothing was touched"
    ready.teardown()
    assert ready.get_state() is LabState.GONE


def test_the_receipt_waits_for_a_vcenter_that_does_not_answer_just_now(ready: World) -> None:
    ready.hypervisor.failures["collect_evidence"] = [VsphereUnavailableError("no answer")]
    ready.teardown()
    assert ready.hypervisor.failures["collect_evidence"] == []
    assert ready.get_state() is LabState.GONE
    assert is_complete(from_json(ready.store.find_receipt("ana-mlops") or ""))


def test_another_vcenter_proves_nothing(ready: World) -> None:
    ready.vcenter.uuid = "another"
    with pytest.raises(NotProvedError, match="another vCenter answered") as caught:
        ready.teardown()
    assert caught.value.exit_code == 7
    assert ready.get_state() is LabState.RESIDUE
    assert ready.lab.note.startswith("not proved, ")


BLINDNESS: dict[str, Callable[[World], None]] = {
    "another vCenter": lambda world: setattr(world.vcenter, "uuid", "another"),
    "was rolled back": lambda world: setattr(world.vcenter, "events", 1),
    "not everything is visible": lambda world: world.vcenter.inventory.remove("/DC0/vm/labs"),
}


@pytest.mark.parametrize("why", BLINDNESS)
def test_without_sight_nothing_is_touched_and_there_is_no_receipt(ready: World, why: str) -> None:
    BLINDNESS[why](ready)
    with pytest.raises(NotProvedError, match=why):
        ready.teardown()
    assert len(ready.vcenter.vms) == 2
    assert ready.store.find_receipt("ana-mlops") is None
    assert "revoke" not in {step for step, _ in ready.steps("ok")}
    assert ready.credentials.keys


def test_a_guest_that_is_gone_is_so_in_the_journal(ready: World) -> None:
    ready.teardown()
    states = {guest.state for guest in ready.store.list_guests("ana-mlops", 1)}
    assert states == {GuestState.GONE}


def test_a_vm_that_is_not_the_labs_any_more_keeps_no_other_one(ready: World) -> None:
    first, second = ready.vcenter.vms.values()
    first.mark = ""
    with pytest.raises(TeardownIncompleteError, match="bears the UUID"):
        ready.teardown()
    assert list(ready.vcenter.vms.values()) == [first]
    assert second.moref not in ready.vcenter.vms


def test_look_alikes_and_copies_are_untouched(ready: World) -> None:
    ours = next(iter(ready.vcenter.vms.values()))
    alike = ready.vcenter.add_vm("ana-mlops-workbench-2", "their-own-uuid")
    copy = ready.vcenter.add_vm("copy", "another-uuid", mark=ours.mark)
    before = replace(copy)
    ready.teardown()
    assert set(ready.vcenter.vms) == {alike.moref, copy.moref}
    assert ready.vcenter.vms[copy.moref] == before
    assert ready.get_state() is LabState.GONE


def test_a_lab_that_never_got_a_vm_is_torn_down_too(world: World) -> None:
    world.teardown()
    assert world.get_state() is LabState.GONE
