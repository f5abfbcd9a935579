"""What a real vCenter refuses is refused here, with the same fault type."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim, vmodl

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.conftest import Client

LINKED = "createNewChildDiskBacking"
Nic = vim.vm.device.VirtualEthernetCard
Spec = vim.vm.device.VirtualDeviceSpec


def changed(client: Client, **changes: Any) -> Any:
    """Build a linked clone spec with parts replaced: ``location_x`` or ``x``."""
    spec = client.linked_spec()
    for name, value in changes.items():
        holder = spec.location if name.startswith("location_") else spec
        setattr(holder, name.removeprefix("location_"), value)
    return spec


def nic_on(name: str) -> Any:
    card = vim.vm.device.VirtualVmxnet3(backing=Nic.NetworkBackingInfo(deviceName=name))
    return vim.vm.ConfigSpec(deviceChange=[Spec(operation="add", device=card)])


def disk(operation: str = "add", file_operation: str | None = "create", **values: Any) -> Any:
    path = values.pop("path", "")
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path, diskMode="persistent", thinProvisioned=values.pop("thin", False)
    )
    device = vim.vm.device.VirtualDisk(
        backing=backing, **{"capacityInKB": 1024**2, "key": -1, **values}
    )
    spec = Spec(operation=operation, fileOperation=file_operation, device=device)
    return vim.vm.ConfigSpec(deviceChange=[spec])


CLONES: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "linked without a snapshot": (
        lambda it: changed(it, snapshot=None),
        vmodl.fault.InvalidArgument,
    ),
    "unknown snapshot": (
        lambda it: changed(it, snapshot=vim.vm.Snapshot("snapshot-99", it.si._stub)),
        vmodl.fault.InvalidArgument,
    ),
    "unknown pool": (
        lambda it: changed(it, location_pool=vim.ResourcePool("resgroup-9", it.si._stub)),
        vmodl.fault.InvalidArgument,
    ),
    "unknown datastore": (
        lambda it: changed(it, location_datastore=vim.Datastore("datastore-9", it.si._stub)),
        vmodl.fault.InvalidArgument,
    ),
    "unknown host": (
        lambda it: changed(it, location_host=vim.HostSystem("host-9", it.si._stub)),
        vmodl.fault.InvalidArgument,
    ),
    "customization": (
        lambda it: changed(
            it,
            customization=vim.vm.customization.Specification(
                identity=vim.vm.customization.IdentitySettings(),
                globalIPSettings=vim.vm.customization.GlobalIPSettings(),
            ),
        ),
        vmodl.fault.NotSupported,
    ),
    "a disk move nobody simulates": (
        lambda it: changed(it, location_diskMoveType="moveChildMostDiskBacking"),
        vmodl.fault.NotSupported,
    ),
    "unknown network": (
        lambda it: changed(it, config=nic_on("nowhere")),
        vim.fault.InvalidDeviceBacking,
    ),
    "a larger linked disk": (
        lambda it: changed(it, config=disk("edit", None, key=2000, capacityInKB=64 * 1024**2)),
        vim.fault.InvalidDeviceOperation,
    ),
    "a config nobody simulates": (
        lambda it: changed(it, config=vim.vm.ConfigSpec(vAppConfigRemoved=True)),
        vmodl.fault.NotSupported,
    ),
    "bad UUID": (
        lambda it: changed(it, config=vim.vm.ConfigSpec(instanceUuid="no-uuid")),
        vmodl.fault.InvalidArgument,
    ),
    "odd memory": (
        lambda it: changed(it, config=vim.vm.ConfigSpec(memoryMB=1001)),
        vmodl.fault.InvalidArgument,
    ),
}


@pytest.mark.parametrize("case", CLONES)
def test_clones_that_are_refused_leave_nothing(client: Client, case: str) -> None:
    build, fault = CLONES[case]
    world = client.simulator.world
    before = dict(world.files), set(client.labs.childEntity), set(client.simulator.guests.disks)
    task = client.template.CloneVM_Task(client.labs, "refused", build(client))
    with pytest.raises(fault):
        client.do(task)
    assert task.info.state == "error"
    after = dict(world.files), set(client.labs.childEntity), set(client.simulator.guests.disks)
    assert after == before
    assert not world.reserved_names


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("taken", vim.fault.DuplicateName),
        ("", vim.fault.InvalidName),
        ("x" * 81, vim.fault.InvalidName),
    ],
)
def test_names_that_are_refused(client: Client, name: str, fault: Any) -> None:
    if name == "taken":
        client.clone("taken")
    with pytest.raises(fault):
        client.clone(name)


def test_a_name_is_taken_while_its_clone_runs(start: Callable[..., Client]) -> None:
    client = start(method_delays_s={"PowerOnVM_Task": 0})
    first, second = (
        client.template.CloneVM_Task(client.labs, "twin", client.linked_spec()) for _ in range(2)
    )
    outcomes = []
    for task in (first, second):
        try:
            client.do(task)
            outcomes.append("made")
        except vim.fault.DuplicateName:
            outcomes.append("refused")
    assert sorted(outcomes) == ["made", "refused"]


def test_what_a_marked_template_refuses(client: Client) -> None:
    marked = client.find("DC0/vm/templates/debian-13-marked")
    assert marked.config.template
    for task in (
        marked.PowerOnVM_Task,
        lambda: marked.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=1)),
        lambda: marked.CreateSnapshot_Task("s", "", False, False),
        lambda: marked.CloneVM_Task(client.labs, "x", changed(client, snapshot=None)),
    ):
        with pytest.raises(vmodl.fault.NotSupported):
            client.do(task())
    full = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False)
    with pytest.raises(vmodl.fault.InvalidArgument):
        client.do(marked.CloneVM_Task(client.labs, "from-marked", full))
    full.location.pool = client.pool
    vm = client.do(marked.CloneVM_Task(client.labs, "from-marked", full))
    assert (vm.config.template, vm.resourcePool) == (False, client.pool)
    vm.MarkAsTemplate()
    with pytest.raises(vmodl.fault.NotSupported):
        client.do(vm.PowerOnVM_Task())
    vm.MarkAsVirtualMachine(client.pool)
    client.do(vm.PowerOnVM_Task())


POWER: dict[str, tuple[bool, Callable[[Any], Any], Any]] = {
    "on twice": (True, lambda vm: vm.PowerOnVM_Task(), vim.fault.InvalidPowerState),
    "off twice": (False, lambda vm: vm.PowerOffVM_Task(), vim.fault.InvalidPowerState),
    "reset off": (False, lambda vm: vm.ResetVM_Task(), vim.fault.InvalidPowerState),
    "suspend off": (False, lambda vm: vm.SuspendVM_Task(), vim.fault.InvalidPowerState),
    "destroy on": (True, lambda vm: vm.Destroy_Task(), vim.fault.InvalidPowerState),
    "unregister on": (True, lambda vm: vm.UnregisterVM(), vim.fault.InvalidPowerState),
    "shutdown off": (False, lambda vm: vm.ShutdownGuest(), vim.fault.InvalidPowerState),
    "template on": (True, lambda vm: vm.MarkAsTemplate(), vim.fault.InvalidPowerState),
    "hot CPU": (
        True,
        lambda vm: vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=7)),
        vim.fault.CpuHotPlugNotSupported,
    ),
    "hot memory": (
        True,
        lambda vm: vm.ReconfigVM_Task(vim.vm.ConfigSpec(memoryMB=8192)),
        vim.fault.MemoryHotPlugNotSupported,
    ),
    "stale change": (
        False,
        lambda vm: vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeVersion="0", annotation="x")),
        vim.fault.ConcurrentAccess,
    ),
    "shrink": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk("edit", None, key=2000, capacityInKB=1024)),
        vim.fault.InvalidDeviceOperation,
    ),
    "no such device": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk("remove", None, key=2009)),
        vim.fault.DeviceNotFound,
    ),
    "disk on an unknown datastore": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk(path="[elsewhere] a/b.vmdk")),
        vim.fault.InvalidDatastorePath,
    ),
    "disk that is not there": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk("add", None, path="[datastore-0] a/b.vmdk")),
        vim.fault.FileNotFound,
    ),
    "disk file in the way": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk(path="[datastore-0] debian-13/debian-13.vmdk")),
        vim.fault.FileAlreadyExists,
    ),
    "disk on a taken unit": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk(controllerKey=1000, unitNumber=0)),
        vim.fault.InvalidDeviceSpec,
    ),
    "disk without a controller": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk(controllerKey=1009)),
        vim.fault.MissingController,
    ),
    "huge disk": (
        False,
        lambda vm: vm.ReconfigVM_Task(disk(capacityInKB=1024**4)),
        vim.fault.NoDiskSpace,
    ),
    "no snapshot": (False, lambda vm: vm.RevertToCurrentSnapshot_Task(), vim.fault.NotFound),
    "rename to a taken name": (
        False,
        lambda vm: vm.Rename_Task("templates-twin"),
        vim.fault.DuplicateName,
    ),
}


@pytest.mark.parametrize("case", POWER)
def test_a_refused_change_changes_nothing(client: Client, case: str) -> None:
    is_on, act, fault = POWER[case]
    search = client.content.searchIndex
    if search.FindByInventoryPath("DC0/vm/labs/templates-twin") is None:
        client.clone("templates-twin")
    vm = client.clone(f"refusing {case}")
    if is_on:
        client.do(vm.PowerOnVM_Task())
    before = str(vm.config), vm.runtime.powerState, dict(client.simulator.world.files)
    with pytest.raises(fault):
        client.do(act(vm))
    assert (str(vm.config), vm.runtime.powerState, dict(client.simulator.world.files)) == before
    if is_on:
        client.do(vm.PowerOffVM_Task())
    client.do(vm.Destroy_Task())


def test_guest_calls_need_tools(client: Client) -> None:
    vm = client.clone("no-tools")
    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.toolsRunningStatus", lambda it: it == "guestToolsRunning")
    client.simulator.world.records[vm._moId].guest = None
    with pytest.raises(vim.fault.ToolsUnavailable):
        vm.ShutdownGuest()


def test_a_full_datastore_takes_no_clone(start: Callable[..., Client]) -> None:
    client = start(datastore_gib=5)
    full = vim.vm.CloneSpec(
        location=vim.vm.RelocateSpec(pool=client.pool), powerOn=False, template=False
    )
    store = client.find("DC0/datastore/datastore-0")
    with pytest.raises(vim.fault.NoDiskSpace) as caught:
        client.do(client.template.CloneVM_Task(client.labs, "full", full))
    assert caught.value.datastore == "datastore-0"
    before = store.summary.freeSpace
    client.clone("linked-fits")
    assert before - store.summary.freeSpace == 64 * 1024**2 + 4096
    assert store.summary.capacity == 5 * 1024**3
    full.location.datastore = client.find("DC0/datastore/datastore-1")
    client.do(client.template.CloneVM_Task(client.labs, "elsewhere", full))


def test_a_canceled_clone_leaves_nothing(start: Callable[..., Client]) -> None:
    client = start(method_delays_s={"CloneVM_Task": 30})
    before = dict(client.simulator.world.files)
    task = client.template.CloneVM_Task(client.labs, "canceled", client.linked_spec())
    client.wait_until(task, "info.state", lambda it: it == "running")
    task.CancelTask()
    with pytest.raises(vmodl.fault.RequestCanceled):
        client.do(task)
    assert task.info.cancelled
    assert client.labs.childEntity == []
    assert client.simulator.world.files == before
    with pytest.raises(vim.fault.InvalidState):
        task.CancelTask()


def test_other_tasks_cannot_be_canceled(start: Callable[..., Client]) -> None:
    client = start(method_delays_s={"PowerOnVM_Task": 0.3})
    vm = client.clone("steady")
    task = vm.PowerOnVM_Task()
    with pytest.raises(vmodl.fault.NotSupported):
        task.CancelTask()
    client.do(task)
    assert vm.runtime.powerState == "poweredOn"
