"""CloneSpec and ConfigSpec honoured in full, and what a clone inherits."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim

if TYPE_CHECKING:
    from tests.simulator.conftest import Client

Option = vim.option.OptionValue
Nic = vim.vm.device.VirtualEthernetCard
Disk = vim.vm.device.VirtualDisk
Spec = vim.vm.device.VirtualDeviceSpec
UUIDS = ("11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-000000000000")


def options(vm: Any) -> dict[str, str]:
    found = {item.key: item.value for item in vm.config.extraConfig}
    assert found.pop("svga.present") == "TRUE", "every VM has some of its own"
    return found


def devices(vm: Any, kind: Any) -> list[Any]:
    return [device for device in vm.config.hardware.device if isinstance(device, kind)]


def files(client: Client, folder: str) -> set[str]:
    browser = client.find("DC0/datastore/datastore-0").browser
    results = client.do(browser.SearchDatastoreSubFolders_Task("[datastore-0]"))
    return {
        f"{result.folderPath}/{file.path}"
        for result in results
        for file in result.file
        if result.folderPath == f"[datastore-0] {folder}"
    }


def test_the_browser_tells_what_is_asked(client: Client) -> None:
    browser = client.find("DC0/datastore/datastore-0").browser
    kind = vim.host.DatastoreBrowser
    path, pattern = "[datastore-0] debian-13", ["*.vmx"]
    (plain,) = client.do(
        browser.SearchDatastore_Task(path, kind.SearchSpec(matchPattern=pattern))
    ).file
    assert (plain.path, plain.fileSize, plain.modification) == ("debian-13.vmx", None, None)
    flags = {"fileType": True, "fileSize": True, "modification": True, "fileOwner": False}
    spec = kind.SearchSpec(matchPattern=pattern, details=kind.FileInfo.Details(**flags))
    (told,) = client.do(browser.SearchDatastore_Task(path, spec)).file
    assert told.fileSize > 0
    assert told.modification <= client.si.CurrentTime()


def test_everything_in_one_call(client: Client) -> None:
    spec = client.linked_spec(
        uuid=UUIDS[0],
        instanceUuid=UUIDS[1],
        numCPUs=3,
        memoryMB=3072,
        annotation="for ana",
        extraConfig=[Option(key="labctl.mark", value="m"), Option(key="guestinfo.a", value="1")],
        deviceChange=[
            Spec(
                operation="edit",
                device=vim.vm.device.VirtualVmxnet3(
                    key=4000, backing=Nic.NetworkBackingInfo(deviceName="sealed")
                ),
            ),
            Spec(
                operation="add",
                device=vim.vm.device.VirtualVmxnet3(
                    key=-1,
                    addressType="manual",
                    macAddress="00:50:56:3A:00:01",
                    backing=Nic.NetworkBackingInfo(deviceName="lab"),
                ),
            ),
            Spec(
                operation="add",
                fileOperation="create",
                device=Disk(
                    key=-2,
                    capacityInKB=1024**2,
                    backing=Disk.FlatVer2BackingInfo(diskMode="persistent", thinProvisioned=True),
                ),
            ),
        ],
    )
    spec.powerOn = True
    vm = client.clone("whole", spec)
    config = vm.config
    assert (config.uuid, config.instanceUuid) == UUIDS
    assert (config.hardware.numCPU, config.hardware.memoryMB) == (3, 3072)
    assert config.annotation == "for ana"
    assert options(vm) == {"labctl.mark": "m", "guestinfo.a": "1"}
    assert [nic.backing.deviceName for nic in devices(vm, Nic)] == ["sealed", "lab"]
    assert devices(vm, Nic)[1].macAddress == "00:50:56:3a:00:01"
    assert sorted(network.name for network in vm.network) == ["lab", "sealed"]
    base, added = devices(vm, Disk)
    assert base.backing.parent.fileName == "[datastore-0] debian-13/debian-13.vmdk"
    assert base.backing.uuid != base.backing.parent.uuid
    assert (added.capacityInBytes, added.unitNumber) == (1024**3, 1)
    assert files(client, "whole") == {
        f"[datastore-0] whole/{name}" for name in ("whole.vmx", "whole.vmdk", "whole_1.vmdk")
    }
    assert vm.runtime.powerState == "poweredOn"
    assert vm.runtime.host is not None
    hardware = client.simulator.world.records[vm._moId].hardware(client.simulator.world)
    assert (hardware.cpus, hardware.memory_mib, dict(hardware.guestinfo)) == (
        3,
        3072,
        {"guestinfo.a": "1"},
    )
    assert [nic.portgroup for nic in hardware.nics] == ["sealed", "lab"]


def test_extra_config_is_inherited_overridden_and_deleted_by_key(client: Client) -> None:
    first = client.clone(
        "parent",
        extraConfig=[Option(key=key, value="parent") for key in ("keep", "change", "drop")],
    )
    spec = client.linked_spec(
        extraConfig=[Option(key="change", value="child"), Option(key="drop", value="")]
    )
    spec.snapshot = client.do(first.CreateSnapshot_Task("base", "", False, False))
    second = client.do(first.CloneVM_Task(client.labs, "child", spec))
    assert options(second) == {"keep": "parent", "change": "child"}
    assert second.config.uuid != first.config.uuid
    assert second.config.instanceUuid != first.config.instanceUuid
    assert devices(second, Nic)[0].macAddress != devices(first, Nic)[0].macAddress


def test_a_taken_instance_uuid_is_replaced(client: Client) -> None:
    wanted = "99999999-2222-4333-8444-555555555555"
    assert client.clone("uuid-first", instanceUuid=wanted).config.instanceUuid == wanted
    assert client.clone("uuid-second", instanceUuid=wanted).config.instanceUuid != wanted


def test_a_full_clone_has_no_parent_and_its_disk_can_grow(client: Client) -> None:
    spec = vim.vm.CloneSpec(
        location=vim.vm.RelocateSpec(
            pool=client.pool, datastore=client.find("DC0/datastore/datastore-1")
        ),
        powerOn=False,
        template=False,
    )
    vm = client.clone("full-clone", spec)
    (disk,) = devices(vm, Disk)
    assert disk.backing.parent is None
    assert disk.backing.fileName == "[datastore-1] full-clone/full-clone.vmdk"
    assert [store.name for store in vm.datastore] == ["datastore-1"]
    disk.capacityInKB, disk.capacityInBytes = 40 * 1024**2, 40 * 1024**3
    client.do(
        vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[Spec(operation="edit", device=disk)]))
    )
    assert devices(vm, Disk)[0].capacityInKB == 40 * 1024**2


def test_a_clone_can_be_a_template(client: Client) -> None:
    spec = client.linked_spec()
    spec.template = True
    vm = client.clone("new-template", spec)
    assert vm.summary.config.template
    assert vm.resourcePool is None


def attach(client: Client, vm: Any, path: str, **values: Any) -> Any:
    backing = Disk.FlatVer2BackingInfo(fileName=path, diskMode="persistent")
    spec: Any = Spec(operation="add", device=Disk(key=-1, backing=backing, **values))
    if values:
        spec.fileOperation = "create"
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec])))
    return devices(vm, Disk)[-1]


def detach(client: Client, vm: Any, disk: Any, file_operation: str | None = None) -> None:
    spec = Spec(operation="remove", fileOperation=file_operation, device=disk)
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[spec])))


def test_disks_are_kept_or_deleted_with_the_vm_they_are_attached_to(client: Client) -> None:
    owner, other = client.clone("disk-owner"), client.clone("disk-user")
    path = "[datastore-0] foreign/foreign.vmdk"
    made = attach(client, owner, path, capacityInKB=2048)
    detach(client, owner, made)
    client.do(owner.Destroy_Task())
    assert files(client, "foreign") == {"[datastore-0] foreign/foreign.vmdk"}, "detached: kept"
    found = attach(client, other, path)
    assert (found.capacityInKB, found.backing.uuid) == (2048, made.backing.uuid)
    assert path in [file.name for file in other.layoutEx.file]
    client.do(other.Destroy_Task())
    assert files(client, "foreign") == set(), "attached: deleted"
    assert files(client, "debian-13") >= {"[datastore-0] debian-13/debian-13.vmdk"}
    assert files(client, "disk-user") == set()


def test_remove_with_destroy_deletes_the_file(client: Client) -> None:
    vm = client.clone("disk-destroyer")
    disk = attach(client, vm, "[datastore-0]", capacityInKB=2048)
    assert disk.backing.fileName == "[datastore-0] disk-destroyer/disk-destroyer_1.vmdk"
    detach(client, vm, disk, "destroy")
    assert files(client, "disk-destroyer") == {
        "[datastore-0] disk-destroyer/disk-destroyer.vmdk",
        "[datastore-0] disk-destroyer/disk-destroyer.vmx",
    }


def test_nics_are_added_disconnected_and_removed(client: Client) -> None:
    vm = client.clone("nics")
    (first,) = devices(vm, Nic)
    first.connectable.startConnected = False
    added = vim.vm.device.VirtualE1000e(
        key=-1,
        backing=Nic.NetworkBackingInfo(network=client.find("DC0/network/sealed"), deviceName=""),
    )
    client.do(
        vm.ReconfigVM_Task(
            vim.vm.ConfigSpec(
                deviceChange=[
                    Spec(operation="edit", device=first),
                    Spec(operation="add", device=added),
                ]
            )
        )
    )
    one, two = devices(vm, Nic)
    assert (one.macAddress, one.connectable.startConnected) == (first.macAddress, False)
    assert (two.key, two.backing.deviceName) == (4001, "sealed")
    hardware = client.simulator.world.records[vm._moId].hardware(client.simulator.world)
    assert [(nic.portgroup, nic.connected) for nic in hardware.nics] == [
        ("lab", False),
        ("sealed", True),
    ]
    client.do(
        vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[Spec(operation="remove", device=one)]))
    )
    assert [nic.key for nic in devices(vm, Nic)] == [4001]


def test_rename_and_change_version(client: Client) -> None:
    vm = client.clone("old-name")
    version = vm.config.changeVersion
    client.do(vm.Rename_Task("new-name"))
    assert client.find("DC0/vm/labs/new-name") == vm
    spec = vim.vm.ConfigSpec(changeVersion=version, name="newer-name", numCPUs=1)
    with pytest.raises(vim.fault.ConcurrentAccess):
        client.do(vm.ReconfigVM_Task(spec))
    spec.changeVersion = version = vm.config.changeVersion
    client.do(vm.ReconfigVM_Task(spec))
    assert (vm.name, vm.config.hardware.numCPU) == ("newer-name", 1)
    assert vm.config.changeVersion != version


def test_unregister_keeps_the_files(client: Client) -> None:
    vm = client.clone("unregistered")
    vm.UnregisterVM()
    assert client.content.searchIndex.FindByInventoryPath("DC0/vm/labs/unregistered") is None
    assert len(files(client, "unregistered")) == 2
    again = client.clone("unregistered")
    assert again.config.files.vmPathName == "[datastore-0] unregistered_1/unregistered_1.vmx"
