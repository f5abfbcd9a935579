"""What a person, or another program, does to VMs in vCenter, by a plain client."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.simulator.conftest import Client
from tests.simulator.test_control import ask

FOLDERS = "DC0/vm/labs"


def change(client: Client, vm: Any, **asked: Any) -> None:
    body = {"uuid": vm.config.instanceUuid if vm.config else vm.summary.config.instanceUuid}
    assert ask(client.simulator, "POST", "vm", {**body, **asked})[0] == 200


def test_a_vm_is_moved_to_another_folder(client: Client) -> None:
    vm, other = client.clone("moved"), client.labs.CreateFolder("other / place")
    assert client.find(f"{FOLDERS}/other %2f place") == other
    client.do(other.MoveIntoFolder_Task([vm]))
    assert (vm.parent, other.childEntity) == (other, [vm])
    assert vm not in client.labs.childEntity
    assert client.find(f"{FOLDERS}/other %2f place/moved") == vm
    with pytest.raises(vim.fault.DuplicateName):
        client.labs.CreateFolder("other / place")


def test_moves_that_are_refused_move_nothing(client: Client) -> None:
    vm, twin = client.clone("stays"), client.clone("twin")
    other = client.labs.CreateFolder("taken")
    client.do(other.MoveIntoFolder_Task([twin]))
    twin = client.clone("twin")
    with pytest.raises(vim.fault.DuplicateName):
        client.do(other.MoveIntoFolder_Task([vm, twin]))
    for folder, refs in (("DC0/host", [vm]), (FOLDERS, [client.find("DC0/host/cluster-0")])):
        with pytest.raises(vmodl.fault.NotSupported):
            client.do(client.find(folder).MoveIntoFolder_Task(refs))
    assert vm.parent == twin.parent == client.labs
    with pytest.raises(vmodl.fault.NotSupported):
        client.find("DC0/host").CreateFolder("x")


def test_a_folder_is_renamed(client: Client) -> None:
    folder = client.labs.CreateFolder("old")
    client.do(folder.Rename_Task("new"))
    assert client.find(f"{FOLDERS}/new") == folder
    with pytest.raises(vmodl.fault.NotSupported):
        client.do(client.find("DC0/host/cluster-0").Rename_Task("mine"))


def test_a_suspended_vm_goes_on(client: Client) -> None:
    vm = client.clone("suspended")
    client.do(vm.PowerOnVM_Task())
    boot = vm.runtime.bootTime
    client.do(vm.SuspendVM_Task())
    assert vm.runtime.powerState == "suspended"
    with pytest.raises(vim.fault.InvalidPowerState):
        client.do(vm.Destroy_Task())
    client.do(vm.PowerOnVM_Task())
    assert (vm.runtime.powerState, vm.runtime.bootTime) == ("poweredOn", boot)


def test_what_a_backup_disables(client: Client) -> None:
    vm = client.clone("backed up")
    assert "Destroy_Task" not in vm.disabledMethod
    change(client, vm, disabled_methods=["Destroy_Task", "RemoveSnapshot_Task"])
    assert {"Destroy_Task", "RemoveSnapshot_Task", "PowerOffVM_Task"} <= set(vm.disabledMethod)
    with pytest.raises(vim.fault.MethodDisabled) as caught:
        vm.Destroy_Task()
    assert caught.value.source
    client.do(vm.CreateSnapshot_Task("s", "", False, False))
    with pytest.raises(vim.fault.MethodDisabled):
        vm.snapshot.currentSnapshot.RemoveSnapshot_Task(False)
    client.do(vm.PowerOnVM_Task())
    assert {"Destroy_Task", "PowerOnVM_Task"} <= set(vm.disabledMethod)
    client.do(vm.PowerOffVM_Task())
    change(client, vm, disabled_methods=[])
    client.do(vm.Destroy_Task())


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("orphaned", vim.fault.InvalidState),
        ("inaccessible", vim.fault.InvalidState),
        ("disconnected", vmodl.fault.HostNotConnected),
    ],
)
def test_a_vm_that_vcenter_lost(client: Client, state: str, fault: Any) -> None:
    vm = client.clone(state)
    change(client, vm, connection_state=state)
    assert vm.runtime.connectionState == state
    assert (vm.name, vm.config is None) == (state, state == "inaccessible")
    for act in (
        vm.PowerOnVM_Task,
        vm.Destroy_Task,
        lambda: vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=1)),
        lambda: vm.CloneVM_Task(client.labs, "copy", client.linked_spec()),
    ):
        with pytest.raises(fault):
            act()
    change(client, vm, connection_state="connected")
    client.do(vm.PowerOnVM_Task())
    change(client, vm, connection_state=state)
    if state == "disconnected":
        with pytest.raises(fault):
            vm.UnregisterVM()
    else:
        vm.UnregisterVM()
        assert client.content.searchIndex.FindByInventoryPath(f"{FOLDERS}/{state}") is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"name": "debian-13", "power": "on"}, "give an object with some of name, uuid"),
        ({"name": "nobody"}, "0 VMs have the name 'nobody'"),
        ({"disabled_methods": []}, "0 VMs have the name None"),
        ({"name": "debian-13", "disabled_methods": ["Login"]}, "no VM has a method 'Login'"),
        ({"name": "debian-13", "disabled_methods": [["x"]]}, "no VM has a method ['x']"),
        ({"name": "debian-13", "connection_state": "lost"}, "connection_state is one of"),
    ],
)
def test_changes_that_make_no_sense_are_refused(client: Client, body: Any, text: str) -> None:
    status, answer = ask(client.simulator, "POST", "vm", body)
    assert (status, text in answer["error"]) == (400, True), answer
    assert client.template.runtime.connectionState == "connected"


def test_the_later_of_two_tasks_on_a_vm_is_refused(start: Callable[..., Client]) -> None:
    client = start(method_delays_s={"ReconfigVM_Task": 0.5})
    vm = client.clone("busy")
    first = vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=1))
    for later in (
        vm.PowerOnVM_Task(),
        vm.CreateSnapshot_Task("s", "", False, False),
        vm.CloneVM_Task(client.labs, "copy", client.linked_spec()),
    ):
        with pytest.raises(vim.fault.TaskInProgress) as caught:
            client.do(later)
        assert caught.value.task == first
    with pytest.raises(vim.fault.TaskInProgress):
        vm.UnregisterVM()
    client.do(first)
    assert (vm.config.hardware.numCPU, vm.runtime.powerState) == (1, "poweredOff")
    client.do(vm.PowerOnVM_Task())


@pytest.mark.parametrize("linked", [False, True])
def test_clones_share_their_source(start: Callable[..., Client], *, linked: bool) -> None:
    """One that reads the source's own disks keeps others out; a snapshot stays as it is."""
    client = start(method_delays_s={"CloneVM_Task": 0.5})
    spec = client.linked_spec()
    if not linked:
        spec.snapshot = spec.location.diskMoveType = None
    clones = [client.template.CloneVM_Task(client.labs, f"{n}", spec) for n in range(2)]
    power_on = client.template.PowerOnVM_Task()
    if linked:
        client.do(power_on)
        assert clones[0].info.state == "running"
    else:
        with pytest.raises(vim.fault.TaskInProgress):
            client.do(power_on)
    for one in clones:
        client.do(one)


def test_who_works_on_a_snapshot_works_on_its_vm(start: Callable[..., Client]) -> None:
    client = start(method_delays_s={"RevertToSnapshot_Task": 0.5})
    reverting = client.template.snapshot.currentSnapshot.RevertToSnapshot_Task()
    with pytest.raises(vim.fault.TaskInProgress):
        client.do(client.template.PowerOnVM_Task())
    client.do(reverting)


def link(vm: Any, *, connected: bool, **changes: Any) -> Any:
    """Build the change of the link of a VM's NIC, as found, with what else shall change."""
    (nic,) = [one for one in vm.config.hardware.device if hasattr(one, "macAddress")]
    nic.connectable.connected = nic.connectable.startConnected = connected
    for name, value in changes.items():
        setattr(nic, name, value)
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=nic)
    return vim.vm.ConfigSpec(deviceChange=[change])


def read_link(vm: Any) -> tuple[Any, ...]:
    (nic,) = [one for one in vm.config.hardware.device if hasattr(one, "macAddress")]
    return nic.connectable.connected, nic.connectable.startConnected, nic.macAddress


def test_the_network_of_a_running_vm_is_cut_and_connected(client: Client) -> None:
    vm = client.clone("cut")
    client.do(vm.PowerOnVM_Task())
    address = client.wait_until(vm, "guest.ipAddress", bool)
    mac = read_link(vm)[2]
    client.do(vm.ReconfigVM_Task(link(vm, connected=False)))
    assert read_link(vm) == (False, False, mac)
    assert vm.guest.ipAddress is None
    client.do(vm.PowerOffVM_Task())
    client.do(vm.PowerOnVM_Task())
    assert read_link(vm) == (False, False, mac)
    client.do(vm.ReconfigVM_Task(link(vm, connected=True)))
    assert read_link(vm) == (True, True, mac)
    assert client.wait_until(vm, "guest.ipAddress", bool) == address
    other = link(vm, connected=False, macAddress="00:50:56:aa:bb:cc")
    with pytest.raises(vim.fault.InvalidPowerState):
        client.do(vm.ReconfigVM_Task(other))
    assert read_link(vm) == (True, True, mac)


def test_a_vm_that_is_off_is_connected_to_nothing(client: Client) -> None:
    vm = client.clone("off")
    client.do(vm.ReconfigVM_Task(link(vm, connected=False)))
    client.do(vm.ReconfigVM_Task(link(vm, connected=True)))
    assert read_link(vm)[:2] == (False, True)
    client.do(vm.PowerOnVM_Task())
    assert read_link(vm)[:2] == (True, True)


def test_a_template_goes_and_its_clones_live(start: Callable[..., Client]) -> None:
    client = start()
    vm, files = client.clone("child"), client.simulator.world.files
    (disk,) = [one for one in vm.config.hardware.device if hasattr(one, "capacityInKB")]
    parent = disk.backing.parent.fileName
    client.do(client.template.snapshot.currentSnapshot.RemoveSnapshot_Task(True))
    assert parent in files
    client.do(client.template.Destroy_Task())
    assert parent in files, "the clone stands on it"
    assert "[datastore-0] debian-13/debian-13.vmx" not in files
    client.do(vm.PowerOnVM_Task())
