"""Virtual hardware: what a VirtualDeviceSpec does to a VM's configuration and files."""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import complete
from provisioner.simulator.datastores import (
    DELTA_BYTES,
    add_file,
    get_datastore,
    remove_files,
    split_path,
)
from provisioner.simulator.world import DatastoreFile, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Device = vim.vm.device
Disk = Device.VirtualDisk
Nic = Device.VirtualEthernetCard
Controller = Device.VirtualController
Flat = Disk.FlatVer2BackingInfo

KINDS: tuple[tuple[Any, int, str], ...] = (
    (Controller, 1000, "SCSI controller"),
    (Disk, 2000, "Hard disk"),
    (Nic, 4000, "Network adapter"),
    (Device.VirtualDevice, 13000, "Device"),
)
"""Where vSphere starts to number devices of a kind, and what it calls them."""
SCSI_OWN_UNIT = 7
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass
class Change:
    """A configuration that is being edited: whose it is, and where its new files go."""

    world: World
    config: Any
    owner: str
    folder: str
    """``[datastore] folder`` of the VM."""
    powered_on: bool = False
    new_keys: dict[int, int] = field(default_factory=dict)
    """Keys that the client made up for devices it adds, and what they became."""


def of_kind(config: Any, kind: Any) -> list[Any]:
    """Return a configuration's devices of a kind."""
    return [one for one in config.hardware.device if isinstance(one, kind)]


def chain(backing: Any) -> Iterator[Any]:
    """Yield a disk's backings that are files, the child first."""
    while isinstance(backing, Flat):
        yield backing
        backing = backing.parent


def own_files(world: World, disk: Any, owner: str) -> list[str]:
    """Return what goes when a disk is destroyed: its top file, and those of its owner below."""
    names = [backing.fileName for backing in chain(disk.backing)]
    known = [(name, world.files[name].owner) for name in names if name in world.files]
    below = itertools.takewhile(lambda item: item[1] == owner, known[1:])
    return [name for name, _ in itertools.chain(known[:1], below)]


def find_network(world: World, backing: Any) -> Any | None:
    """Return the portgroup that a NIC's backing means, None when there is no such one."""
    if not isinstance(backing, Nic.NetworkBackingInfo):
        return None
    if backing.network is not None:
        return world.find(backing.network)
    named = (one for one in world.of_type(vim.Network) if one.props["name"] == backing.deviceName)
    return next(named, None)


def give_mac(world: World, nic: Any) -> None:
    """Give a NIC an address of vCenter's range 00:50:56:80..bf, unless it was set by hand.

    Raises:
        vmodl.fault.InvalidArgument: the address set by hand is none.
    """
    if (nic.addressType or "").lower() == "manual":
        nic.macAddress = (nic.macAddress or "").lower()
        if not _MAC.fullmatch(nic.macAddress):
            raise vmodl.fault.InvalidArgument(invalidProperty="macAddress")
        return
    vms = world.of_type(vim.VirtualMachine)
    used = {one.macAddress for vm in vms for one in of_kind(vm.config, Nic)}
    macs = (
        f"00:50:56:{0x80 + (n >> 16) % 0x40:02x}:{n >> 8 & 0xFF:02x}:{n & 0xFF:02x}"
        for n in world.macs
    )
    nic.addressType, nic.macAddress = "assigned", next(mac for mac in macs if mac not in used)


def refusal(kind: Any, index: int, what: str, message: str) -> Any:
    """Build the fault for one device spec that cannot be done."""
    prop = f"virtualDeviceSpec.device.{what}"
    return kind(deviceIndex=index, property=prop, msg=f"deviceChange[{index}]: {message}")


def _prepare_nic(change: Change, index: int, nic: Any) -> None:
    """Resolve a NIC's portgroup and fill in what vCenter fills in."""
    if change.powered_on:
        raise vim.fault.InvalidPowerState(
            requestedState="poweredOff",
            existingState="poweredOn",
            msg="this simulator changes NICs of powered off VMs only",
        )
    network = find_network(change.world, nic.backing)
    if network is None:
        raise refusal(vim.fault.InvalidDeviceBacking, index, "backing", "no such network")
    nic.backing.deviceName, nic.backing.network = network.props["name"], network.ref
    if nic.connectable is None:
        nic.connectable = Device.VirtualDevice.ConnectInfo(
            startConnected=True, allowGuestControl=True
        )


def _new_disk_path(change: Change, disk: Any) -> str:
    """Return the path of a new disk's file: the one asked for, or the next of the VM's own."""
    asked = disk.backing.fileName or change.folder
    if asked.endswith(".vmdk"):
        return str(asked)
    store, _ = split_path(asked)
    _, folder = split_path(change.folder)
    names = itertools.chain([folder], (f"{folder}_{n}" for n in itertools.count(1)))
    paths = (f"[{store}] {folder}/{name}.vmdk" for name in names)
    return next(path for path in paths if path not in change.world.files)


def _capacity_kib(disk: Any) -> int:
    return int(disk.capacityInBytes // 1024 if disk.capacityInBytes else disk.capacityInKB)


def _add_disk(change: Change, index: int, spec: Any, disk: Any) -> None:
    """Create a disk's file or attach the one that is there."""
    world, backing = change.world, disk.backing
    if not isinstance(backing, Flat):
        raise refusal(vim.fault.InvalidDeviceBacking, index, "backing", "only flat disks")
    if spec.fileOperation == "create":
        capacity_kib = _capacity_kib(disk)
        if capacity_kib <= 0:
            raise refusal(vim.fault.InvalidDeviceSpec, index, "capacityInKB", "no capacity")
        size = DELTA_BYTES if backing.thinProvisioned else capacity_kib * 1024
        file = DatastoreFile(min(size, capacity_kib * 1024), capacity_kib, change.owner)
        backing.fileName = add_file(world, _new_disk_path(change, disk), file)
    backing.datastore = get_datastore(world, backing.fileName).ref
    found = world.files.get(backing.fileName)
    if found is None:
        raise vim.fault.FileNotFound(file=backing.fileName, msg=f"no file {backing.fileName}")
    backing.uuid, backing.diskMode = found.uuid, backing.diskMode or "persistent"
    disk.capacityInKB, disk.capacityInBytes = found.capacity_kib, found.capacity_kib * 1024


def _place(change: Change, index: int, device: Any) -> None:
    """Give a new device its key, its place on a controller and its label."""
    devices = change.config.hardware.device
    kind, first, label = next(row for row in KINDS if isinstance(device, row[0]))
    used = {one.key for one in devices}
    key = next(number for number in itertools.count(first) if number not in used)
    change.new_keys[device.key], device.key = key, key
    device.deviceInfo = device.deviceInfo or vim.Description()
    device.deviceInfo.label = f"{label} {len(of_kind(change.config, kind)) + 1}"
    if isinstance(device, Disk):
        wanted = change.new_keys.get(device.controllerKey, device.controllerKey)
        controllers = [one.key for one in of_kind(change.config, Controller)]
        scsi = [one.key for one in of_kind(change.config, Device.VirtualSCSIController)]
        device.controllerKey = wanted if wanted is not None else next(iter(scsi), None)
        if device.controllerKey not in controllers:
            raise refusal(vim.fault.MissingController, index, "controllerKey", "no controller")
        taken = {one.unitNumber for one in devices if one.controllerKey == device.controllerKey}
        units = (n for n in itertools.count() if n != SCSI_OWN_UNIT and n not in taken)
        if device.unitNumber is None or device.unitNumber < 0:
            device.unitNumber = next(units)
        elif device.unitNumber in taken | {SCSI_OWN_UNIT}:
            raise refusal(vim.fault.InvalidDeviceSpec, index, "unitNumber", "unit is taken")


def _add(change: Change, index: int, spec: Any) -> None:
    device = copy.deepcopy(spec.device)
    if isinstance(device, Nic):
        _prepare_nic(change, index, device)
        give_mac(change.world, device)
    _place(change, index, device)
    if isinstance(device, Disk):
        _add_disk(change, index, spec, device)
        device.diskObjectId = f"{change.owner.removeprefix('vm-')}-{device.key}"
    change.config.hardware.device.append(complete(device))


def _get_device(change: Change, index: int, spec: Any) -> Any:
    for device in change.config.hardware.device:
        if device.key == spec.device.key:
            return device
    raise refusal(vim.fault.DeviceNotFound, index, "key", f"no device {spec.device.key}")


def _grow_disk(change: Change, index: int, disk: Any, wanted_kib: int) -> None:
    """Make a disk larger; vSphere never makes one smaller, nor one that has a parent larger."""
    if wanted_kib < disk.capacityInKB or (disk.backing.parent and wanted_kib > disk.capacityInKB):
        message = "a disk cannot shrink, nor grow while it has a parent"
        fault = refusal(vim.fault.InvalidDeviceOperation, index, "capacityInKB", message)
        fault.badOp = "edit"
        raise fault
    file = change.world.files[disk.backing.fileName]
    disk.capacityInKB, disk.capacityInBytes = wanted_kib, wanted_kib * 1024
    file.capacity_kib = wanted_kib


def _edit(change: Change, index: int, spec: Any) -> None:
    device, wanted = _get_device(change, index, spec), copy.deepcopy(spec.device)
    if isinstance(device, Disk):
        _grow_disk(change, index, device, _capacity_kib(wanted))
        return
    if isinstance(device, Nic):
        wanted.backing = wanted.backing or device.backing
        wanted.macAddress = wanted.macAddress or device.macAddress
        _prepare_nic(change, index, wanted)
        if (wanted.addressType or "").lower() == "manual":
            give_mac(change.world, wanted)
    for info in wanted._GetPropertyList():  # noqa: SLF001 - pyVmomi's public metadata
        value = getattr(wanted, info.name)
        if value is not None and info.name not in ("key", "controllerKey", "unitNumber"):
            setattr(device, info.name, value)


def _remove(change: Change, index: int, spec: Any) -> None:
    device = _get_device(change, index, spec)
    if isinstance(device, Nic):
        _prepare_nic(change, index, device)
    change.config.hardware.device.remove(device)
    if isinstance(device, Disk):
        files = own_files(change.world, device, change.owner)
        for name in files:
            change.world.files[name].owner = ""
        if spec.fileOperation == "destroy":
            remove_files(change.world, files)


OPERATIONS: dict[str, Callable[[Change, int, Any], None]] = {
    "add": _add,
    "edit": _edit,
    "remove": _remove,
}


def change_devices(change: Change, specs: Iterable[Any]) -> None:
    """Do what the device specs say, in their order. Call it under the lock.

    Raises:
        vim.fault.InvalidDeviceSpec: or a subclass, with the spec's index in ``deviceIndex``.
    """
    for index, spec in enumerate(specs):
        if spec.operation not in OPERATIONS:
            raise refusal(vim.fault.InvalidDeviceSpec, index, "operation", "no operation")
        OPERATIONS[spec.operation](change, index, spec)
