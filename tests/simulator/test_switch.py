"""A distributed switch, and NICs on its portgroup."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.simulator.conftest import Client
from tests.simulator.test_by_hand import link, read_link
from tests.simulator.test_permissions import CLONE, LABS, below, grant

Nic = vim.vm.device.VirtualEthernetCard
SWITCH = "DC0/network/switch-0"
PORTGROUP = "DC0/network/switched"


def plug(client: Client, vm: Any, **port: Any) -> Any:
    """Build the change that brings a VM's NIC onto the distributed portgroup."""
    (nic,) = [one for one in vm.config.hardware.device if isinstance(one, Nic)]
    named = {"portgroupKey": client.find(PORTGROUP).key, "switchUuid": client.find(SWITCH).uuid}
    connection = vim.dvs.PortConnection(**{**named, **port})
    nic.backing = Nic.DistributedVirtualPortBackingInfo(port=connection)
    change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=nic)
    return vim.vm.ConfigSpec(deviceChange=[change])


def test_the_switch_and_its_portgroup_know_each_other(client: Client) -> None:
    switch, portgroup = client.find(SWITCH), client.find(PORTGROUP)
    assert isinstance(switch, vim.dvs.VmwareDistributedVirtualSwitch)
    assert list(switch.portgroup) == [portgroup]
    assert switch.uuid == switch.config.uuid == switch.summary.uuid
    assert portgroup.config.distributedVirtualSwitch == switch
    assert (portgroup.key, portgroup.config.type) == (portgroup._moId, "ephemeral")
    assert portgroup.summary.network == portgroup
    assert portgroup in client.find("DC0/host/cluster-0").network
    assert portgroup.config.transportZoneUuid is None


def test_a_guest_runs_on_the_portgroup_of_a_switch(client: Client) -> None:
    vm, portgroup = client.clone("switched"), client.find(PORTGROUP)
    client.do(vm.ReconfigVM_Task(plug(client, vm)))
    assert (list(vm.network), list(portgroup.vm)) == ([portgroup], [vm])
    assert vm not in client.find("DC0/network/lab").vm
    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.ipAddress", bool)
    hardware = client.simulator.guests._hardware[vm._moId]
    assert [nic.portgroup for nic in hardware.nics] == ["switched"]
    own = [nic for nic in vm.guest.net if nic.deviceConfigId == 4000]
    assert [nic.network for nic in own] == ["switched"]
    mac = read_link(vm)[2]
    client.do(vm.ReconfigVM_Task(link(vm, connected=False)))
    assert read_link(vm) == (False, False, mac)


def test_a_clone_keeps_the_portgroup(client: Client) -> None:
    vm, portgroup = client.clone("origin"), client.find(PORTGROUP)
    client.do(vm.ReconfigVM_Task(plug(client, vm)))
    spec = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(pool=client.pool), template=False)
    copy = client.do(vm.CloneVM_Task(client.labs, "copy", spec))
    assert list(copy.network) == [portgroup]


@pytest.mark.parametrize(
    "port", [{"portgroupKey": "dvportgroup-9"}, {"portgroupKey": None}, {"switchUuid": "50 2a"}]
)
def test_a_port_of_no_such_switch_is_refused(client: Client, port: dict[str, Any]) -> None:
    vm = client.clone(f"lost {port}")
    with pytest.raises(vim.fault.InvalidDeviceBacking):
        client.do(vm.ReconfigVM_Task(plug(client, vm, **port)))
    assert list(vm.network) == [client.find("DC0/network/lab")]


def test_a_distributed_portgroup_is_none_by_its_name(client: Client) -> None:
    vm = client.clone("by name")
    named = link(vm, connected=True, backing=Nic.NetworkBackingInfo(deviceName="switched"))
    with pytest.raises(vim.fault.InvalidDeviceBacking):
        client.do(vm.ReconfigVM_Task(named))


def test_its_use_is_a_privilege(client: Client) -> None:
    rights = {**CLONE, LABS: [*CLONE[LABS], "VirtualMachine.Config.EditDevice"]}
    vm = client.clone("unplugged")
    ana = grant(client, below("DC0/network"), **rights)
    with pytest.raises(vim.fault.NoPermission) as caught:
        ana.find(f"{LABS}/unplugged").ReconfigVM_Task(plug(client, vm))
    assert caught.value.object == client.find(PORTGROUP)
    ana = grant(client, below("DC0/network", "Network.Assign"), **rights)
    ana.do(ana.find(f"{LABS}/unplugged").ReconfigVM_Task(plug(client, vm)))
    assert list(vm.network) == [client.find(PORTGROUP)]
