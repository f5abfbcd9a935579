"""Virtual hardware: what a VirtualDeviceSpec does to a VM's configuration and files."""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import complete, fields_of, moid_of
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
Distributed = Nic.DistributedVirtualPortBackingInfo
Portgroup = vim.dvs.DistributedVirtualPortgroup
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
    """A configuration that is being edited, whose it is, and where its new files go."""

    world: World
    config: Any
    owner: str
    folder: str
    """``[datastore] folder`` of the VM."""
    powered_on: bool = False
    new_keys: dict[int | None, int] = field(default_factory=dict)
    """Keys that the client made up for devices it adds, and what they became."""


def of_kind(config: Any, kind: Any) -> list[Any]:
    """Return a configuration's devices of a kind."""
    return [one for one in config.hardware.device if isinstance(one, kind)]


def chain(backing: Any) -> Iterator[Any]:
    """Yield a disk's backings that are files, the child first."""
    while isinstance(backing, Flat):
        yield backing
        backing = backing.parent


def socket_of(backing: Any) -> str | None:
    """Return what a NIC's backing plugs into: a standard portgroup's name, or another's key."""
    if isinstance(backing, Distributed):
        return str(backing.port.portgroupKey)
    return getattr(backing, "deviceName", None)


def network_of(nic: Any) -> Any:
    """Return the portgroup of a NIC, as a reference."""
    backing = nic.backing
    is_distributed = isinstance(backing, Distributed)
    return Portgroup(backing.port.portgroupKey) if is_distributed else backing.network


def own_files(world: World, disk: Any, owner: str) -> list[str]:
    """Return what goes when a disk is destroyed: its top file, and those of its owner below."""
    names = [one.fileName for one in chain(disk.backing) if one.fileName in world.files]
    below = itertools.takewhile(lambda name: world.files[name].owner == owner, names[1:])
    return [*names[:1], *below]


def parents_of_others(world: World, owner: str) -> set[str]:
    """Return the files that other VMs' linked disks stand on: nobody may delete those."""
    vms = (vm for vm in world.of_type(vim.VirtualMachine) if vm.vm_id != owner)
    chains = (list(chain(disk.backing)) for vm in vms for disk in of_kind(vm.config, Disk))
    return {one.fileName for backings in chains for one in backings[1:]}


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
    numbers = (0x005056800000 + number % 0x400000 for number in world.macs)
    macs = (":".join(f"{number:012x}"[at : at + 2] for at in range(0, 12, 2)) for number in numbers)
    nic.addressType, nic.macAddress = "assigned", next(mac for mac in macs if mac not in used)


def _refusal(kind: Any, index: int, what: str, message: str) -> Any:
    """Build the fault for one device spec that cannot be done."""
    prop = f"virtualDeviceSpec.device.{what}"
    return kind(deviceIndex=index, property=prop, msg=f"deviceChange[{index}]: {message}")


def _plug(world: World, backing: Any) -> bool:
    """Complete the backing of a NIC; tell whether its portgroup is there, and of its switch."""
    if isinstance(backing, Distributed):
        portgroup = world.find(Portgroup(backing.port.portgroupKey or ""))
        switch = portgroup and world.get(portgroup.props["config"].distributedVirtualSwitch)
        return bool(switch and switch.props["uuid"] == backing.port.switchUuid)
    wanted = backing.deviceName or (backing.network and moid_of(backing.network))
    for network in world.of_type(vim.Network):
        is_standard = not isinstance(network.ref, Portgroup)
        if is_standard and wanted in (network.props["name"], network.moid):
            backing.deviceName, backing.network = network.props["name"], network.ref
            return True
    return False


def _prepare_nic(change: Change, index: int, nic: Any) -> None:
    """Resolve a NIC's portgroup and fill in what vCenter fills in."""
    if change.powered_on:
        message = "of a running VM this simulator changes no more of a NIC than its link"
        raise vim.fault.InvalidPowerState(existingState="poweredOn", msg=message)
    if not isinstance(nic.backing, Nic.NetworkBackingInfo | Distributed):
        raise _refusal(vim.fault.InvalidDeviceBacking, index, "backing", "only portgroups")
    if not _plug(change.world, nic.backing):
        raise _refusal(vim.fault.InvalidDeviceBacking, index, "backing", "no such network")
    link = Device.VirtualDevice.ConnectInfo(startConnected=True, allowGuestControl=True)
    nic.connectable = nic.connectable or link
    nic.connectable.connected = False


def _new_disk_path(change: Change, asked: str) -> str:
    """Return the path of a new disk's file: the one asked for, or the next of the VM's own."""
    if asked.endswith(".vmdk"):
        return asked
    store, folder = split_path(asked or change.folder)[0], split_path(change.folder)[1]
    numbered = (f"[{store}] {folder}/{folder}_{number}.vmdk" for number in itertools.count(1))
    return next(path for path in numbered if path not in change.world.files)


def _capacity_kib(disk: Any) -> int:
    return int(disk.capacityInBytes // 1024 if disk.capacityInBytes else disk.capacityInKB)


def _add_disk(change: Change, index: int, spec: Any, disk: Any) -> None:
    """Create a disk's file or attach the one that is there."""
    world, backing = change.world, disk.backing
    if not isinstance(backing, Flat):
        raise _refusal(vim.fault.InvalidDeviceBacking, index, "backing", "only flat disks")
    if spec.fileOperation == "create":
        capacity_kib = _capacity_kib(disk)
        if capacity_kib <= 0:
            raise _refusal(vim.fault.InvalidDeviceSpec, index, "capacityInKB", "no capacity")
        size = min(DELTA_BYTES, capacity_kib * 1024) if backing.thinProvisioned else None
        file = DatastoreFile(size or capacity_kib * 1024, capacity_kib, change.owner)
        backing.fileName = add_file(world, _new_disk_path(change, backing.fileName), file)
    backing.datastore = get_datastore(world, backing.fileName).ref
    if (found := world.files.get(backing.fileName)) is None:
        raise vim.fault.FileNotFound(file=backing.fileName, msg=f"no file {backing.fileName}")
    backing.uuid, backing.diskMode = found.uuid, backing.diskMode or "persistent"
    disk.capacityInKB, disk.capacityInBytes = found.capacity_kib, found.capacity_kib * 1024


def _plug_in(change: Change, index: int, disk: Any) -> None:
    """Give a new disk its place on a controller."""
    config = change.config
    controller = change.new_keys.get(disk.controllerKey, disk.controllerKey)
    if controller is None:
        scsi = of_kind(config, Device.VirtualSCSIController)
        controller = scsi[0].key if scsi else None
    if controller not in [one.key for one in of_kind(config, Controller)]:
        raise _refusal(vim.fault.MissingController, index, "controllerKey", "no controller")
    taken = {one.unitNumber for one in of_kind(config, Disk) if one.controllerKey == controller}
    taken.add(SCSI_OWN_UNIT)
    if disk.unitNumber is None or disk.unitNumber < 0:
        disk.unitNumber = next(unit for unit in itertools.count() if unit not in taken)
    elif disk.unitNumber in taken:
        raise _refusal(vim.fault.InvalidDeviceSpec, index, "unitNumber", "unit is taken")
    disk.controllerKey = controller


def _add(change: Change, index: int, spec: Any) -> None:
    device, devices = copy.deepcopy(spec.device), change.config.hardware.device
    kind, first, label = next(row for row in KINDS if isinstance(device, row[0]))
    used = {one.key for one in devices}
    key = next(number for number in itertools.count(first) if number not in used)
    change.new_keys[device.key], device.key = key, key
    device.deviceInfo = vim.Description(label=f"{label} {len(of_kind(change.config, kind)) + 1}")
    if isinstance(device, Nic):
        _prepare_nic(change, index, device)
        give_mac(change.world, device)
    if isinstance(device, Disk):
        _plug_in(change, index, device)
        _add_disk(change, index, spec, device)
        device.diskObjectId = f"{change.owner.removeprefix('vm-')}-{device.key}"
    devices.append(complete(device))


def _get_device(change: Change, index: int, spec: Any) -> Any:
    for device in change.config.hardware.device:
        if device.key == spec.device.key:
            return device
    raise _refusal(vim.fault.DeviceNotFound, index, "key", f"no device {spec.device.key}")


def _grow(change: Change, index: int, disk: Any, wanted_kib: int) -> None:
    """Make a disk larger; vSphere never makes one smaller, nor one that has a parent larger."""
    if wanted_kib < disk.capacityInKB or (disk.backing.parent and wanted_kib > disk.capacityInKB):
        message = "a disk cannot shrink, nor grow while it has a parent"
        raise _refusal(vim.fault.InvalidDeviceOperation, index, "capacityInKB", message)
    disk.capacityInKB, disk.capacityInBytes = wanted_kib, wanted_kib * 1024
    change.world.files[disk.backing.fileName].capacity_kib = wanted_kib


def _is_same_nic(nic: Any, wanted: Any) -> bool:
    own = socket_of(nic.backing)
    asked = (socket_of(wanted.backing) or own, wanted.macAddress or nic.macAddress)
    return asked == (own, nic.macAddress)


def _edit(change: Change, index: int, spec: Any) -> None:
    device, wanted = _get_device(change, index, spec), copy.deepcopy(spec.device)
    if isinstance(device, Disk):
        _grow(change, index, device, _capacity_kib(wanted))
        return
    if isinstance(device, Nic) and change.powered_on and _is_same_nic(device, wanted):
        device.connectable = wanted.connectable or device.connectable
        return
    for info in fields_of(type(wanted)):
        value = getattr(wanted, info.name)
        if value is not None and info.name not in ("key", "controllerKey", "unitNumber"):
            setattr(device, info.name, value)
    if isinstance(device, Nic):
        _prepare_nic(change, index, device)
        if (wanted.addressType or "").lower() == "manual":
            give_mac(change.world, device)


def _remove(change: Change, index: int, spec: Any) -> None:
    device = _get_device(change, index, spec)
    if isinstance(device, Nic):
        _prepare_nic(change, index, device)
    change.config.hardware.device.remove(device)
    if isinstance(device, Disk):
        files = own_files(change.world, device, change.owner)
        for name in files:
            change.world.files[name].owner = ""
        remove_files(change.world, files if spec.fileOperation == "destroy" else ())


OPERATIONS: dict[Any, Callable[[Change, int, Any], None]] = {
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
            raise _refusal(vim.fault.InvalidDeviceSpec, index, "operation", "no operation")
        OPERATIONS[spec.operation](change, index, spec)
