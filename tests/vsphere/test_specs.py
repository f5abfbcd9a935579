"""Golden tests of the clone call: what is sent, field by field, as pyVmomi itself renders it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyVmomi import vim, vmodl
from pyVmomi.VmomiJSONEncoder import VmomiJSONEncoder

from provisioner.model.lab import TemplatePin
from provisioner.model.observed import ObservedNic, ObservedVm, Ownership, PowerState
from provisioner.ports import CloneOrder
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY
from provisioner.vsphere.devices import choose_address, sort_nics
from provisioner.vsphere.lookup import SWITCH_PATH, describe_networks
from provisioner.vsphere.specs import (
    Portgroup,
    Source,
    build_clone_spec,
    build_extra_config,
    build_nic_changes,
)
from tests.contract.guests import GUESTINFO, make_identity

STANDARD = Portgroup(vim.Network("network-1"), "lab")
DISTRIBUTED = Portgroup(
    vim.dvs.DistributedVirtualPortgroup("dvportgroup-9"), "sealed", "dvportgroup-9", "50 2a"
)


def render(value: Any) -> Any:
    """Render a spec as plain data, without what is unset."""

    def prune(item: Any) -> Any:
        if isinstance(item, dict):
            pruned = {key: prune(child) for key, child in item.items()}
            return {key: child for key, child in pruned.items() if child not in (None, [], {})}
        return [prune(child) for child in item] if isinstance(item, list) else item

    return prune(json.loads(json.dumps(value, cls=VmomiJSONEncoder, strip_dynamic=True)))


def make_nic(key: int, kind: Any = vim.vm.device.VirtualVmxnet3) -> Any:
    return kind(key=key, macAddress="00:50:56:80:00:01", controllerKey=100, unitNumber=7)


def connected(operation: str, key: int, backing: dict[str, Any], kind: str = "Vmxnet3") -> Any:
    device = {
        "_vimtype": f"vim.vm.device.Virtual{kind}",
        "key": key,
        "addressType": "assigned",
        "backing": backing,
        "connectable": {
            "_vimtype": "vim.vm.device.VirtualDevice.ConnectInfo",
            "connected": False,
            "startConnected": True,
            "allowGuestControl": True,
        },
    }
    spec = "vim.vm.device.VirtualDeviceSpec"
    return {"_vimtype": spec, "operation": operation, "device": device}


ON_STANDARD = {
    "_vimtype": "vim.vm.device.VirtualEthernetCard.NetworkBackingInfo",
    "deviceName": "lab",
    "network": "vim.Network:network-1",
}
ON_DISTRIBUTED = {
    "_vimtype": "vim.vm.device.VirtualEthernetCard.DistributedVirtualPortBackingInfo",
    "port": {
        "_vimtype": "vim.dvs.PortConnection",
        "portgroupKey": "dvportgroup-9",
        "switchUuid": "50 2a",
    },
}


def test_a_clone_is_linked_off_and_whole() -> None:
    pin = TemplatePin("uuid", "1", "snapshot-2", 1)
    order = CloneOrder(
        make_identity(), "ana", "debian-13", 3, 6144, ("lab",), "datastore-1", GUESTINFO, pin
    )
    template = vim.VirtualMachine("vm-1")
    source = Source(
        template, vim.vm.Snapshot("snapshot-2"), (make_nic(4000),), ("guestinfo.old", "nvram")
    )
    spec = build_clone_spec(
        order,
        "the mark",
        "the dossier",
        source,
        pool=vim.ResourcePool("resgroup-1"),
        datastore=vim.Datastore("datastore-1"),
        portgroups=[STANDARD],
    )
    option = "vim.option.OptionValue"
    assert render(spec) == {
        "_vimtype": "vim.vm.CloneSpec",
        "powerOn": False,
        "template": False,
        "snapshot": "vim.vm.Snapshot:snapshot-2",
        "location": {
            "_vimtype": "vim.vm.RelocateSpec",
            "pool": "vim.ResourcePool:resgroup-1",
            "datastore": "vim.Datastore:datastore-1",
            "diskMoveType": "createNewChildDiskBacking",
        },
        "config": {
            "_vimtype": "vim.vm.ConfigSpec",
            "instanceUuid": order.identity.instance_uuid,
            "numCPUs": 3,
            "numCoresPerSocket": 1,
            "memoryMB": 6144,
            "extraConfig": [
                {"_vimtype": option, "key": "guestinfo.old", "value": ""},
                {"_vimtype": option, "key": "guestinfo.userdata", "value": "I2Nsb3Vk"},
                {"_vimtype": option, "key": "guestinfo.userdata.encoding", "value": "base64"},
                {"_vimtype": option, "key": MARK_KEY, "value": "the mark"},
                {"_vimtype": option, "key": DOSSIER_KEY, "value": "the dossier"},
            ],
            "deviceChange": [connected("edit", 4000, ON_STANDARD)],
        },
    }


def test_nics_follow_the_order_of_the_networks() -> None:
    nics = [make_nic(4000, vim.vm.device.VirtualE1000)]
    assert render(build_nic_changes(nics, [DISTRIBUTED, STANDARD, STANDARD])) == [
        connected("edit", 4000, ON_DISTRIBUTED, "E1000"),
        connected("add", -1, ON_STANDARD),
        connected("add", -2, ON_STANDARD),
    ]


def test_surplus_nics_are_removed() -> None:
    changes = render(build_nic_changes([make_nic(4000), make_nic(4001)], [STANDARD]))
    assert [(one["operation"], one["device"]["key"]) for one in changes] == [
        ("edit", 4000),
        ("remove", 4001),
    ]


def test_no_mac_is_carried_over() -> None:
    assert "macAddress" not in json.dumps(render(build_nic_changes([make_nic(4000)], [STANDARD])))


def test_inherited_guestinfo_is_blanked_and_ours_is_set() -> None:
    keys = ("guestinfo.userdata", "guestinfo.labctl.hostkey", "disk.EnableUUID", MARK_KEY)
    wanted = {"guestinfo.userdata": "new", "guestinfo.labctl.hostkey": "", MARK_KEY: "m"}
    for inherited, dossier, told in (
        (keys, "", {}),
        (keys, "d", {DOSSIER_KEY: "d"}),
        ((*keys, DOSSIER_KEY), "", {DOSSIER_KEY: ""}),
    ):
        options = build_extra_config("m", dossier, (("guestinfo.userdata", "new"),), inherited)
        assert {one.key: one.value for one in options} == wanted | told


def test_nics_come_in_the_order_of_the_networks_whatever_their_keys() -> None:
    nics = [ObservedNic(key, f"mac-{key}", net, connected=True) for key, net in NUMBERED]
    vm = ObservedVm(
        "vm-1", "vm", "uuid", Ownership.OURS, None, PowerState.OFF, 1, 512, (), tuple(nics)
    )
    wanted = ("dvportgroup-9", "lab", "lab")
    sorted_nics = sort_nics(vm, wanted).nics
    assert [nic.device_key for nic in sorted_nics] == [4001, 205, 4000, 4002]
    assert tuple(nic.network for nic in sorted_nics[:3]) == wanted


NUMBERED = [(205, "lab"), (4000, "lab"), (4001, "dvportgroup-9"), (4002, "added by hand")]
MAC = "00:50:56:80:00:01"
NicInfo = vim.vm.GuestInfo.NicInfo


@pytest.mark.parametrize(
    ("nics", "expected"),
    [
        ([], None),
        ([(None, ["192.0.2.1"]), ("02:42:ac:11:00:01", ["172.17.0.1"])], None),
        ([(MAC, ["fe80::1", "169.254.3.4", "127.0.0.1", "::1"])], None),
        ([(MAC, ["fe80::1%eth0", "2001:db8::5", "192.0.2.9"])], "192.0.2.9"),
        ([(MAC, ["2001:db8::5"])], "2001:db8::5"),
        ([(MAC.upper(), ["192.0.2.9"])], "192.0.2.9"),
        ([(MAC, ["not an address", "192.0.2.9"])], "192.0.2.9"),
        ([(MAC, [])], None),
    ],
)
def test_an_address_is_chosen(nics: list[tuple[str, list[str]]], expected: str | None) -> None:
    seen = [NicInfo(macAddress=mac, ipAddress=addresses) for mac, addresses in nics]
    assert choose_address(seen, MAC) == expected


class Collector:
    """A vCenter that answers a read by what is known of each object."""

    def __init__(self, known: dict[str, dict[str, Any]]) -> None:
        self.known = known
        self.propertyCollector = self

    def RetrievePropertiesEx(self, specSet: list[Any], options: Any) -> Any:  # noqa: N802, N803, ARG002 - vSphere's names
        query = vmodl.query.PropertyCollector
        return query.RetrieveResult(
            objects=[
                query.ObjectContent(
                    obj=one.obj,
                    propSet=[
                        vmodl.DynamicProperty(name=path, val=value)
                        for path, value in self.known[one.obj._moId].items()
                    ],
                )
                for one in specSet[0].objectSet
            ]
        )


SWITCH = vim.dvs.VmwareDistributedVirtualSwitch("dvs-3")


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (
            {
                "dvportgroup-9": {"key": "dvportgroup-9", SWITCH_PATH: SWITCH},
                "dvs-3": {"uuid": "50 2a"},
            },
            DISTRIBUTED,
        ),
        ({"dvportgroup-9": {"key": "dvportgroup-9", SWITCH_PATH: SWITCH}, "dvs-3": {}}, None),
        ({"dvportgroup-9": {}}, None),
    ],
    ids=["all is read", "not its switch", "not the portgroup"],
)
def test_a_portgroup_of_a_distributed_switch_is_described_or_a_problem(
    known: dict[str, dict[str, Any]], found: Portgroup | None
) -> None:
    problems: list[str] = []
    paths = {"lab": "/DC0/network/lab", "sealed": "/DC0/network/sealed"}
    refs = {"lab": STANDARD.ref, "sealed": DISTRIBUTED.ref}
    described = describe_networks(Collector(known), paths, refs, problems)
    assert described == {"lab": STANDARD, **({"sealed": found} if found else {})}
    assert [problem.partition(": ")[0] for problem in problems] == (
        [] if found else ["networks.sealed"]
    )
