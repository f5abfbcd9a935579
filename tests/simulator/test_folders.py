"""Folders that go, with what is in them."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.simulator.conftest import Client
from tests.simulator.test_by_hand import change
from tests.simulator.test_permissions import below, grant


def fill(client: Client, name: str) -> tuple[Any, Any, Any]:
    """Make a folder with a folder with a VM in it."""
    outer = client.labs.CreateFolder(name)
    inner = outer.CreateFolder("inner")
    vm = client.clone(f"in {name}")
    client.do(inner.MoveIntoFolder_Task([vm]))
    return outer, inner, vm


def files_of(client: Client, vm_name: str) -> list[str]:
    return [path for path in client.simulator.world.files if f"] {vm_name}/" in path]


def is_gone(ref: Any) -> bool:
    try:
        return not ref.name
    except vmodl.fault.ManagedObjectNotFound:
        return True


def test_a_folder_is_destroyed_with_every_vm_below_it(client: Client) -> None:
    outer, inner, vm = fill(client, "doomed")
    assert files_of(client, "in doomed")
    assert vm._moId in client.simulator.guests.disks
    client.do(outer.Destroy_Task())
    assert all(map(is_gone, (outer, inner, vm)))
    assert files_of(client, "in doomed") == []
    assert vm._moId not in client.simulator.guests.disks
    assert "doomed" not in [one.name for one in client.labs.childEntity]


def test_a_folder_is_destroyed_whole_or_not_at_all(client: Client) -> None:
    outer, inner, vm = fill(client, "mixed")
    other = client.clone("stays off")
    client.do(outer.MoveIntoFolder_Task([other]))
    client.do(vm.PowerOnVM_Task())
    with pytest.raises(vim.fault.InvalidPowerState):
        client.do(outer.Destroy_Task())
    client.do(vm.PowerOffVM_Task())
    change(client, vm, disabled_methods=["Destroy_Task"])
    with pytest.raises(vim.fault.MethodDisabled):
        client.do(outer.Destroy_Task())
    assert not any(map(is_gone, (outer, inner, vm, other)))
    change(client, vm, disabled_methods=[])
    client.do(outer.Destroy_Task())
    assert all(map(is_gone, (outer, inner, vm, other)))


def test_a_folder_is_unregistered_and_the_files_stay(client: Client) -> None:
    outer, inner, vm = fill(client, "left")
    files = files_of(client, "in left")
    client.do(vm.PowerOnVM_Task())
    with pytest.raises(vim.fault.InvalidPowerState):
        client.do(outer.UnregisterAndDestroy_Task())
    client.do(vm.PowerOffVM_Task())
    client.do(outer.UnregisterAndDestroy_Task())
    assert all(map(is_gone, (outer, inner, vm)))
    assert files_of(client, "in left") == files != []


@pytest.mark.parametrize("path", ["", "DC0/vm", "DC0/host", "DC0/network"])
def test_a_folder_of_the_datacenter_stays(client: Client, path: str) -> None:
    folder = client.find(path)
    for act in (folder.Destroy_Task, folder.UnregisterAndDestroy_Task):
        with pytest.raises(vmodl.fault.NotSupported):
            client.do(act())
    assert client.find(path) == folder


def test_who_destroys_a_folder_may_delete_what_is_in_it(client: Client) -> None:
    outer, _, vm = fill(client, "guarded")
    delete = "VirtualMachine.Inventory.Delete"
    for privileges, missing in (((delete,), "Folder.Delete"), (("Folder.Delete",), delete)):
        ana = grant(client, below("DC0/vm/labs", *privileges))
        with pytest.raises(vim.fault.NoPermission) as caught:
            ana.find("DC0/vm/labs/guarded").Destroy_Task()
        assert caught.value.privilegeId == missing
    ana = grant(client, below("DC0/vm/labs", delete, "Folder.Delete"))
    ana.do(ana.find("DC0/vm/labs/guarded").Destroy_Task())
    assert is_gone(outer)
    assert is_gone(vm)
