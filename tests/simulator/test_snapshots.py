"""Snapshots: the tree, the disk chain, what a revert brings back."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim, vmodl

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.conftest import Client


def snap(client: Client, vm: Any, name: str) -> Any:
    return client.do(vm.CreateSnapshot_Task(name, f"about {name}", False, False))


def tree(nodes: Any) -> Any:
    return {node.name: tree(node.childSnapshotList) for node in nodes}


def disk_files(vm: Any) -> list[str]:
    disk = vim.vm.device.VirtualDisk
    backing: Any
    (backing,) = [one.backing for one in vm.config.hardware.device if isinstance(one, disk)]
    names = []
    while backing is not None:
        names.append(backing.fileName.rpartition("/")[2])
        backing = backing.parent
    return names


def own_files(client: Client, vm: Any) -> set[str]:
    files = client.simulator.world.files.items()
    return {path.rpartition("/")[2] for path, file in files if file.owner == vm._moId}


def test_tree_revert_and_removal(client: Client) -> None:
    vm = client.clone("tree")
    one = snap(client, vm, "one")
    two = snap(client, vm, "two")
    client.do(one.RevertToSnapshot_Task())
    three = snap(client, vm, "three")
    assert tree(vm.snapshot.rootSnapshotList) == {"one": {"two": {}, "three": {}}}
    assert vm.snapshot.currentSnapshot == three
    assert vm.rootSnapshot == [one]
    assert one.childSnapshot == [two, three]
    assert vm.snapshot.rootSnapshotList[0].description == "about one"

    client.do(one.RemoveSnapshot_Task(removeChildren=False))
    assert tree(vm.snapshot.rootSnapshotList) == {"two": {}, "three": {}}
    client.do(three.RemoveSnapshot_Task(removeChildren=True))
    client.do(vm.RemoveAllSnapshots_Task())
    assert vm.snapshot is None
    assert disk_files(vm) == ["tree.vmdk", "debian-13.vmdk"]
    assert own_files(client, vm) == {"tree.vmx", "tree.vmdk"}
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = one.vm
    assert not {one._moId, two._moId, three._moId} & client.simulator.guests.disks


def test_the_disk_chain_grows_and_a_revert_starts_a_new_end(client: Client) -> None:
    vm = client.clone("chain")
    snapshot = snap(client, vm, "s")
    assert disk_files(vm) == ["chain-000001.vmdk", "chain.vmdk", "debian-13.vmdk"]
    client.do(vm.PowerOnVM_Task())
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="later")))
    client.do(vm.RevertToCurrentSnapshot_Task())
    assert disk_files(vm) == ["chain-000001.vmdk", "chain.vmdk", "debian-13.vmdk"]
    assert (vm.config.annotation, vm.runtime.powerState) == (None, "poweredOff")
    spec = client.linked_spec()
    spec.snapshot = snapshot
    child = client.do(vm.CloneVM_Task(client.labs, "chain-child", spec))
    assert disk_files(child) == ["chain-child.vmdk", "chain.vmdk", "debian-13.vmdk"]


def test_destroy_takes_the_whole_own_chain_and_nothing_else(client: Client) -> None:
    vm = client.clone("doomed-chain")
    for name in ("a", "b"):
        snap(client, vm, name)
    assert len(own_files(client, vm)) == 4
    client.do(vm.Destroy_Task())
    assert own_files(client, vm) == set()
    assert "[datastore-0] debian-13/debian-13.vmdk" in client.simulator.world.files
    assert client.simulator.guests.disks == {
        disk for disk in client.simulator.guests.disks if disk != vm._moId
    }


def test_files_that_other_vms_stand_on_are_kept(client: Client) -> None:
    vm = client.clone("ground")
    spec = client.linked_spec()
    spec.snapshot = snap(client, vm, "for-child")
    child = client.do(vm.CloneVM_Task(client.labs, "ground-child", spec))
    client.do(vm.RemoveAllSnapshots_Task())
    client.do(vm.Destroy_Task())
    assert own_files(client, vm) == {"ground.vmdk"}
    assert disk_files(child) == ["ground-child.vmdk", "ground.vmdk", "debian-13.vmdk"]
    assert client.do(child.CreateSnapshot_Task("still-works", "", False, False))


def test_what_a_guest_said_is_in_no_snapshot_and_no_clone(client: Client) -> None:
    vm = client.clone("talker")
    client.do(vm.PowerOnVM_Task())
    client.simulator.guests.running[vm._moId].info_set("guestinfo.said", "hello")
    snapshot = snap(client, vm, "s")
    full = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False)
    copy = client.do(vm.CloneVM_Task(client.labs, "talker-copy", full))
    said = [
        [item.key for item in config.extraConfig if item.key == "guestinfo.said"]
        for config in (vm.config, snapshot.config, copy.config)
    ]
    assert said == [["guestinfo.said"], [], []]


def test_a_snapshot_that_does_not_fit_leaves_nothing(start: Callable[..., Client]) -> None:
    client = start(datastore_gib=5)
    vm = client.clone("cramped")
    free = client.find("DC0/datastore/datastore-0").summary.freeSpace
    kind = vim.vm.device.VirtualDisk
    filler = kind(
        key=-1, capacityInKB=free // 1024, backing=kind.FlatVer2BackingInfo(diskMode="persistent")
    )
    change = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=filler)
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    disks = set(client.simulator.guests.disks)
    with pytest.raises(vim.fault.NoDiskSpace):
        snap(client, vm, "no-room")
    assert vm.snapshot is None
    assert client.simulator.guests.disks == disks


def test_the_templates_base_disk_survives_its_snapshots(client: Client) -> None:
    assert "template:debian-13" in client.simulator.guests.disks
    vm = client.clone("of-template", client.linked_spec())
    assert vm.snapshot is None, "a clone starts without snapshots"


def test_a_snapshot_is_renamed(client: Client) -> None:
    vm = client.clone("renamed")
    snapshot = snap(client, vm, "old")
    snapshot.RenameSnapshot("new", None)
    (node,) = vm.snapshot.rootSnapshotList
    assert (node.name, node.description, node.snapshot) == ("new", "about old", snapshot)
    snapshot.RenameSnapshot(None, "about new")
    with pytest.raises(vim.fault.InvalidName):
        snapshot.RenameSnapshot("", "x")
    (node,) = vm.snapshot.rootSnapshotList
    assert (node.name, node.description) == ("new", "about new")
