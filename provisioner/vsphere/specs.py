"""What a clone call says, built from plain values: pure, so that golden tests can read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from provisioner.ports import CloneOrder
from provisioner.rules.mark import MARK_KEY

LINKED = "createNewChildDiskBacking"
GUESTINFO = "guestinfo."
Nic = vim.vm.device.VirtualEthernetCard
Change = vim.vm.device.VirtualDeviceSpec


@dataclass(frozen=True)
class Portgroup:
    """A network of the site as found: on a standard switch, or on the distributed one named."""

    ref: Any
    name: str
    key: str = ""
    switch_uuid: str = ""

    @property
    def title(self) -> str:
        """What an ObservedNic on it calls its network."""
        return self.key or self.name


@dataclass(frozen=True)
class Source:
    """The snapshot that is cloned: its NICs by device key, and the guestinfo keys it carries."""

    snapshot: Any
    nics: tuple[Any, ...]
    guestinfo_keys: tuple[str, ...]


def build_backing(portgroup: Portgroup) -> Any:
    """Build what connects a NIC to a portgroup."""
    if portgroup.switch_uuid:
        port = vim.dvs.PortConnection(portgroupKey=portgroup.key, switchUuid=portgroup.switch_uuid)
        return Nic.DistributedVirtualPortBackingInfo(port=port)
    return Nic.NetworkBackingInfo(deviceName=portgroup.name, network=portgroup.ref)


def build_nic_changes(nics: Sequence[Any], portgroups: Sequence[Portgroup]) -> list[Any]:
    """Build the changes that leave one NIC for each portgroup, in that order.

    The source's NICs are put on the first portgroups, missing ones are added, surplus ones removed.
    """
    changes = [
        Change(operation="edit", device=_connect(type(nic)(key=nic.key), portgroup))
        for nic, portgroup in zip(nics, portgroups, strict=False)
    ]
    changes += [
        Change(operation="add", device=_connect(vim.vm.device.VirtualVmxnet3(key=-1 - at), more))
        for at, more in enumerate(portgroups[len(nics) :])
    ]
    changes += [
        Change(operation="remove", device=type(nic)(key=nic.key)) for nic in nics[len(portgroups) :]
    ]
    return changes


def _connect(nic: Any, portgroup: Portgroup) -> Any:
    # A MAC is never carried over: "assigned" lets vCenter give each NIC its own.
    nic.addressType = "assigned"
    nic.backing = build_backing(portgroup)
    nic.connectable = vim.vm.device.VirtualDevice.ConnectInfo(
        connected=False, startConnected=True, allowGuestControl=True
    )
    return nic


def build_extra_config(
    mark: str, guestinfo: Iterable[tuple[str, str]], inherited_keys: Iterable[str]
) -> list[Any]:
    """Build the extraConfig: mark and guestinfo, and every inherited guestinfo key blanked.

    A clone carries its source's extraConfig; an empty value deletes a key.
    """
    values = {key: "" for key in inherited_keys if key.startswith(GUESTINFO)}
    values |= dict(guestinfo)
    values[MARK_KEY] = mark
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def build_clone_spec(
    order: CloneOrder,
    mark: str,
    source: Source,
    *,
    pool: Any,
    datastore: Any,
    portgroups: Sequence[Portgroup],
) -> Any:
    """Build the whole clone: linked, powered off, with identity, size, networks and guestinfo."""
    config = vim.vm.ConfigSpec(
        instanceUuid=order.identity.instance_uuid,
        numCPUs=order.cpus,
        numCoresPerSocket=1,  # divides every number of CPUs, whatever the template has
        memoryMB=order.memory_mib,
        extraConfig=build_extra_config(mark, order.guestinfo, source.guestinfo_keys),
        deviceChange=build_nic_changes(source.nics, portgroups),
    )
    location = vim.vm.RelocateSpec(pool=pool, datastore=datastore, diskMoveType=LINKED)
    return vim.vm.CloneSpec(
        location=location, snapshot=source.snapshot, config=config, powerOn=False, template=False
    )
