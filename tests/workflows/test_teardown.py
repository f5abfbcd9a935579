from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.errors import TeardownIncompleteError, VsphereUnavailableError
from provisioner.model.lab import LabState
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
    assert steps[-5:] == ["revoke", "revoke", "destroy", "destroy", "receipt"]
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
    ready.hypervisor.failures["check_sight"] = [VsphereUnavailableError("no answer")]
    with pytest.raises(VsphereUnavailableError):
        ready.teardown()
    assert ready.get_state() is LabState.RESIDUE
    ready.teardown()
    assert ready.get_state() is LabState.GONE


def test_another_vcenter_proves_nothing(ready: World) -> None:
    ready.vcenter.uuid = "another"
    with pytest.raises(TeardownIncompleteError):
        ready.teardown()
    assert ready.get_state() is LabState.RESIDUE


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
