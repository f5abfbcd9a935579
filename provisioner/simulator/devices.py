"""Virtual hardware: what a VirtualDeviceSpec does to a VM's configuration and files."""

from __future__ import annotations

import itertools
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import complete
from provisioner.simulator.datastores import (
    DELTA_BYTES,
    add_file,
    free_bytes,
    get_datastore,
    remove_files,
    split_path,
)
from provisioner.simulator.world import DatastoreFile, World

if TYPE_CHECKING:
    from collections.abc import Iterator

Device = vim.vm.device
Disk = Device.VirtualDisk
Nic = Device.VirtualEthernetCard
Flat = Disk.FlatVer2BackingInfo
_Operation = Device.VirtualDeviceSpec.Operation
_FileOperation = Device.VirtualDeviceSpec.FileOperation

FIRST_KEYS: tuple[tuple[Any, int, str], ...] = (
    (Device.VirtualSCSIController, 1000, "SCSI controller"),
    (Disk, 2000, "Hard disk"),
    (Nic, 4000, "Network adapter"),
    (Device.VirtualDevice, 13000, "Device"),
)
"""Where vSphere starts to number devices of a kind, and what it calls them."""
SCSI_OWN_UNIT = 7
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass
class Change:
    """A reconfiguration on its way: the configuration it edits, and where new files go."""

    world: World
    config: Any
    owner: str
    folder: str
    """``[datastore] folder`` of the VM."""
    new_keys: dict[int, int] = field(default_factory=dict)
    """Keys that the client made up for devices it adds, and what they became."""


def of_kind(config: Any, kind: Any) -> list[Any]:
    """Return a configuration's devices of a kind."""
    return [one for one in config.hardware.device if isinstance(one, kind)]


def chain(backing: Any) -> Iterator[Any]:
    """Yield a disk's backings, the child first."""
    while backing is not None:
        yield backing
        backing = getattr(backing, "parent", None)


def _free_mac(world: World) -> str:
    """Return a MAC of vCenter's range 00:50:56:80..bf that no NIC has."""
    used = {
        nic.macAddress
        for vm in world.of_type(vim.VirtualMachine)
        for nic in of_kind(vm.config, Nic)
    }
    while True:
        number = world.next_mac()
        mac = f"00:50:56:{0x80 + (number >> 16) % 0x40:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        if mac not in used:
            return mac


def give_mac(world: World, nic: Any) -> None:
    """Give a NIC the address vCenter would: its own unless it was set by hand."""
    manual = (nic.addressType or "").lower() == "manual"
    if manual and not _MAC.fullmatch((nic.macAddress or "").lower()):
        raise vim.fault.MacAddressInvalid if False else vmodl.fault.InvalidArgument(
            invalidProperty="macAddress"
        )
    if manual:
        nic.macAddress = nic.macAddress.lower()
    else:
        nic.addressType, nic.macAddress = "assigned", _free_mac(world)
