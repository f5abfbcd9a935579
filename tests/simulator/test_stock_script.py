"""What a script does that knows only vSphere: log in, look, clone, power, snapshot, destroy."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject, versionIdMap

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.conftest import Client


def test_clone_power_snapshot_revert_destroy(client: Client) -> None:
    vm = client.clone("stock", annotation="made by a test")
    assert vm.summary.config.annotation == "made by a test"
    client.do(vm.PowerOnVM_Task())
    address = client.wait_until(vm, "guest.ipAddress", bool)
    assert address == vm.guest.ipAddress
    assert vm.guest.toolsRunningStatus == "guestToolsRunning"
    assert vm.guestHeartbeatStatus == "green"

    snapshot = client.do(vm.CreateSnapshot_Task("before", "", False, False))
    assert vm.snapshot.currentSnapshot == snapshot
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="changed")))
    client.do(snapshot.RevertToSnapshot_Task())
    assert vm.config.annotation == "made by a test"
    assert vm.runtime.powerState == "poweredOff"
    assert vm.guest.ipAddress is None

    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.toolsRunningStatus", lambda it: it == "guestToolsRunning")
    vm.ShutdownGuest()
    client.wait_until(vm, "runtime.powerState", lambda it: it == "poweredOff")
    client.do(vm.Destroy_Task())
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = vm.name
    assert client.content.searchIndex.FindByInventoryPath("DC0/vm/labs/stock") is None


@pytest.mark.parametrize(
    ("method", "ends_as"),
    [
        ("ResetVM_Task", "poweredOn"),
        ("SuspendVM_Task", "suspended"),
        ("PowerOffVM_Task", "poweredOff"),
    ],
)
def test_power_methods(client: Client, method: str, ends_as: str) -> None:
    vm = client.clone(f"power-{method}")
    client.do(vm.PowerOnVM_Task())
    client.do(getattr(vm, method)())
    assert vm.runtime.powerState == ends_as
    if ends_as == "suspended":
        client.do(vm.PowerOnVM_Task())
        assert vm.runtime.powerState == "poweredOn"


def test_reboot_keeps_the_address(client: Client) -> None:
    vm = client.clone("reboot")
    client.do(vm.PowerOnVM_Task())
    before = client.wait_until(vm, "guest.ipAddress", bool)
    booted = vm.runtime.bootTime
    vm.RebootGuest()
    client.wait_until(vm, "runtime.bootTime", lambda it: it is not None and it > booted)
    assert client.wait_until(vm, "guest.ipAddress", bool) == before


def _everything(client: Client) -> list[Any]:
    content = client.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    managers = [
        content.sessionManager,
        content.authorizationManager,
        content.taskManager,
        content.eventManager,
        content.viewManager,
    ]
    return [client.si, view, content.rootFolder, *managers, *view.view]


def test_every_attribute_of_every_object_can_be_read(client: Client) -> None:
    vm = client.clone("readable")
    client.do(vm.PowerOnVM_Task())
    snapshot = client.do(vm.CreateSnapshot_Task("one", "", False, False))
    read = 0
    for ref in [*_everything(client), snapshot]:
        for info in type(ref)._GetPropertyList():
            if versionIdMap[info.version] < "9":
                getattr(ref, info.name)
                read += 1
    assert read > 400


def test_all_properties_at_once_are_those_that_are_set(client: Client) -> None:
    query = vmodl.query.PropertyCollector
    refs = _everything(client)
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=ref) for ref in refs],
        propSet=[query.PropertySpec(type=ManagedObject, all=True)],
    )
    contents = client.collector.RetrieveProperties([spec])
    assert [item.obj for item in contents] == refs
    assert not [missing for item in contents for missing in item.missingSet]
    by_ref = {item.obj: {prop.name: prop.val for prop in item.propSet} for item in contents}
    template = by_ref[client.template]
    assert template["name"] == "debian-13"
    assert "parentVApp" not in template
    assert template["config"].hardware.numCPU == client.template.config.hardware.numCPU


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("DC0", vim.Datacenter),
        ("DC0/host/cluster-0", vim.ClusterComputeResource),
        ("DC0/host/cluster-0/esxi-0.lab.example", vim.HostSystem),
        ("DC0/datastore/datastore-1", vim.Datastore),
        ("DC0/network/sealed", vim.Network),
        ("/DC0/vm/templates/debian-13-marked", vim.VirtualMachine),
        ("DC0/vm/nothing", type(None)),
    ],
)
def test_inventory_paths(client: Client, path: str, kind: type) -> None:
    found = client.content.searchIndex.FindByInventoryPath(path)
    assert type(found) is kind


def test_names_with_slashes_are_escaped_and_found(client: Client) -> None:
    vm = client.clone("a/b%c")
    assert vm.name == "a%2fb%25c"
    assert client.find("DC0/vm/labs/a%2fb%25c") == vm
    assert client.content.searchIndex.FindChild(client.labs, "a%2Fb%25c") == vm


def test_find_by_uuid(client: Client) -> None:
    vm = client.clone("uuids")
    find = client.content.searchIndex.FindByUuid
    assert find(None, vm.config.uuid.upper(), True, False) == vm
    assert find(None, vm.config.instanceUuid, True, True) == vm
    assert find(None, vm.config.instanceUuid, True, False) is None


def test_find_by_dns_name_and_address(client: Client) -> None:
    vm, index = client.clone("by-name"), client.content.searchIndex
    assert index.FindByDnsName(None, "by-name", True) is None
    client.do(vm.PowerOnVM_Task())
    address = client.wait_until(vm, "guest.ipAddress", bool)
    assert index.FindByDnsName(None, "BY-NAME", True) == vm
    assert index.FindByDnsName(None, "by-name", False) is None
    assert index.FindByIp(None, address, True) == vm
    assert index.FindByIp(None, "198.18.99.99", True) is None
    host = index.FindByDnsName(None, "esxi-0.lab.example", False)
    assert host == client.find("DC0/host/cluster-0/esxi-0.lab.example")


def test_two_guests_have_different_macs_and_addresses(client: Client) -> None:
    vms = [client.clone(f"pair-{number}") for number in range(2)]
    for vm in vms:
        client.do(vm.PowerOnVM_Task())
        client.wait_until(vm, "guest.ipAddress", bool)
    macs = [device.macAddress for vm in vms for device in _nics(vm)]
    assert len(set(macs)) == 2
    assert all(mac.startswith("00:50:56:") for mac in macs)
    assert len({vm.guest.ipAddress for vm in vms}) == 2
    for vm, mac in zip(vms, macs, strict=True):
        own = [nic for nic in vm.guest.net if nic.deviceConfigId == 4000]
        assert [nic.macAddress for nic in own] == [mac]
        assert own[0].network == "lab"
        assert own[0].ipConfig.ipAddress[0].prefixLength == 15
        assert [nic.deviceConfigId for nic in vm.guest.net] == [-1, 4000]


def _nics(vm: Any) -> list[Any]:
    kind = vim.vm.device.VirtualEthernetCard
    return [device for device in vm.config.hardware.device if isinstance(device, kind)]


def test_events_have_growing_keys(client: Client, start: Callable[..., Client]) -> None:
    vm = client.clone("eventful")
    client.do(vm.PowerOnVM_Task())
    client.do(vm.PowerOffVM_Task())
    spec = vim.event.EventFilterSpec(
        entity=vim.event.EventFilterSpec.ByEntity(entity=vm, recursion="self")
    )
    manager = client.content.eventManager
    events = manager.QueryEvents(spec)
    kinds = [type(event).__name__.rpartition(".")[2] for event in events]
    assert kinds == ["VmClonedEvent", "VmPoweredOnEvent", "VmPoweredOffEvent"]
    keys = [event.key for event in events]
    assert keys == sorted(keys)
    assert manager.latestEvent.key == keys[-1]
    other = start(first_event_key=500_001)
    assert other.content.eventManager.latestEvent.key == 500_001


def test_privileges_are_those_of_the_user(client: Client) -> None:
    manager = client.content.authorizationManager
    user = client.content.sessionManager.currentSession
    wanted = ["VirtualMachine.Interact.PowerOn", "System.View"]
    for found in (
        manager.HasUserPrivilegeOnEntities([client.labs], user.userName, wanted),
        manager.HasPrivilegeOnEntities([client.labs], user.key, wanted),
    ):
        assert found[0].entity == client.labs
        assert [(one.privId, one.isGranted) for one in found[0].privAvailability] == [
            (privilege, True) for privilege in wanted
        ]
    (stranger,) = manager.HasUserPrivilegeOnEntities([client.labs], "somebody@else", wanted)
    assert not any(one.isGranted for one in stranger.privAvailability)
    (fetched,) = manager.FetchUserPrivilegeOnEntities([client.labs], user.userName)
    assert set(wanted) <= set(fetched.privileges)
