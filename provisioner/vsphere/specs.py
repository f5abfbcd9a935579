"""What a clone call says, built from plain values: pure, so that golden tests can read it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from provisioner.ports import CloneOrder
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY

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

    template: Any
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


def build_options(values: Mapping[str, str]) -> list[Any]:
    """Build extraConfig; an empty value deletes a key."""
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def build_extra_config(
    mark: str, dossier: str, guestinfo: Iterable[tuple[str, str]], inherited_keys: Iterable[str]
) -> list[Any]:
    """Build the extraConfig: mark, dossier and guestinfo; what a clone inherits of it is blanked.

    A clone carries its source's extraConfig.
    """
    inherited = (key for key in inherited_keys if key.startswith(GUESTINFO) or key == DOSSIER_KEY)
    own = {MARK_KEY: mark, **({DOSSIER_KEY: dossier} if dossier else {})}
    return build_options(dict.fromkeys(inherited, "") | dict(guestinfo) | own)


def build_link_changes(nics: Iterable[Any], *, running: bool, connected: bool) -> list[Any]:
    """Build the changes that connect NICs, or disconnect them so that no guest can undo it."""
    link = vim.vm.device.VirtualDevice.ConnectInfo(
        connected=connected and running, startConnected=connected, allowGuestControl=connected
    )
    changes = [Change(operation="edit", device=copy.copy(nic)) for nic in nics]
    for change in changes:
        change.device.connectable = link
    return changes


def build_clone_spec(
    order: CloneOrder,
    mark: str,
    dossier: str,
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
        extraConfig=build_extra_config(mark, dossier, order.guestinfo, source.guestinfo_keys),
        deviceChange=build_nic_changes(source.nics, portgroups),
    )
    location = vim.vm.RelocateSpec(pool=pool, datastore=datastore, diskMoveType=LINKED)
    return vim.vm.CloneSpec(
        location=location, snapshot=source.snapshot, config=config, powerOn=False, template=False
    )
