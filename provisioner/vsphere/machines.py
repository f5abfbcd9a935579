"""VMs as they stand: whose they are, their disks and NICs, found by UUID, reference or mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyVmomi import vim

from provisioner.errors import NotOwnedError, PrivilegeError, VmGoneError
from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import (
    ObservedDisk,
    ObservedNic,
    ObservedVm,
    Ownership,
    PowerState,
)
from provisioner.rules.mark import MARK_KEY, Installation, read_mark
from provisioner.vsphere.properties import Reading, build_spec, get_moref, retrieve
from provisioner.vsphere.session import Session

MARK_PATH = f'config.extraConfig["{MARK_KEY}"]'
UUID_PATH = "config.instanceUuid"
POWER_PATH = "runtime.powerState"
DEVICES_PATH = "config.hardware.device"
SNAPSHOTS_PATH = "snapshot.rootSnapshotList"
TOOLS_PATH = "guest.toolsRunningStatus"
VM_PATHS = (
    "name",
    UUID_PATH,
    MARK_PATH,
    POWER_PATH,
    "config.hardware.numCPU",
    "config.hardware.memoryMB",
    DEVICES_PATH,
    SNAPSHOTS_PATH,
    TOOLS_PATH,
)
POWER = {
    vim.VirtualMachine.PowerState.poweredOn: PowerState.ON,
    vim.VirtualMachine.PowerState.poweredOff: PowerState.OFF,
    vim.VirtualMachine.PowerState.suspended: PowerState.SUSPENDED,
}
WHY_NOT_OURS = {
    Ownership.OURS: "its mark names another guest of this installation",
    Ownership.COPY: "its mark was copied from another VM",
    Ownership.OTHER_INSTALLATION: "its mark is another installation's",
    Ownership.VOID: "its mark was not made by this installation",
    Ownership.UNMARKED: "it has no mark",
}


@dataclass(frozen=True)
class Machine:
    """One VM as read at one moment, with its reference.

    `disk_chains` are the files of each disk, of its snapshots too, from the newest child down.
    """

    ref: Any
    vm: ObservedVm
    tools_running: bool
    disk_chains: tuple[tuple[str, ...], ...]


def read_option(values: Mapping[str, Any], path: str) -> str | None:
    """Return the text of one extraConfig key that was read by its indexed path."""
    option = values.get(path)
    return None if option is None else str(option.value)


def list_devices(values: Mapping[str, Any], kind: Any) -> list[Any]:
    """Return a hardware's devices of a kind, by device key."""
    devices = (item for item in values.get(DEVICES_PATH, ()) if isinstance(item, kind))
    return sorted(devices, key=lambda item: int(item.key))


def list_disks(values: Mapping[str, Any]) -> list[Any]:
    """Return a hardware's virtual disks, by device key."""
    return list_devices(values, vim.vm.device.VirtualDisk)


def list_files(disk: Any) -> tuple[str, ...]:
    """Return the files of a virtual disk, from the newest child down to the root."""
    files, backing = [], disk.backing
    while backing is not None:
        files.append(str(getattr(backing, "fileName", None) or "a disk without a file"))
        backing = getattr(backing, "parent", None)
    return tuple(files)


def _name_network(backing: Any) -> str:
    """Name a NIC's portgroup: by its name, or by its key on a distributed switch."""
    port = getattr(backing, "port", None)
    return str(port.portgroupKey if port else getattr(backing, "deviceName", "") or "")


def walk_snapshots(trees: Iterable[Any]) -> Iterable[Any]:
    """Yield every snapshot of a VM's snapshot trees."""
    for tree in trees:
        yield tree
        yield from walk_snapshots(tree.childSnapshotList or ())


def list_foreign_disks(machine: Machine, birth_disks: Iterable[str]) -> tuple[str, ...]:
    """Return the disks that the VM was not born with.

    A disk is the VM's own when its chain of files reaches a birth disk and everything above that,
    as snapshots make it, lies in the same folder.
    """
    born = frozenset(birth_disks)
    return tuple(
        dict.fromkeys(chain[0] for chain in machine.disk_chains if not _is_born(chain, born))
    )


def _is_born(chain: tuple[str, ...], born: frozenset[str]) -> bool:
    at = next((place for place, file in enumerate(chain) if file in born), None)
    if at is None:
        return False
    folder = chain[at].rpartition("/")[0]
    return all(file.rpartition("/")[0] == folder for file in chain[:at])


def sort_nics(vm: ObservedVm, networks: Iterable[str]) -> ObservedVm:
    """Put a VM's NICs in the order of these networks; vCenter numbers new NICs as it likes."""
    rest, sorted_nics = list(vm.nics), list[ObservedNic]()
    for network in networks:
        found = next((nic for nic in rest if nic.network == network), None)
        if found is not None:
            rest.remove(found)
            sorted_nics.append(found)
    return replace(vm, nics=(*sorted_nics, *rest))


def choose_address(nics: Iterable[Any], mac: str) -> str | None:
    """Choose the address of the NIC with that MAC: IPv4 first, never link-local or loopback."""
    addresses = [
        address
        for nic in nics
        if (nic.macAddress or "").lower() == mac.lower()
        for text in nic.ipAddress or ()
        if (address := _read_address(str(text)))
    ]
    usable = [one for one in addresses if not (one.is_link_local or one.is_loopback)]
    return str(min(usable, key=lambda one: one.version)) if usable else None


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read what a guest says is its address; None when it is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


class Machines:
    """Finds VMs of one vCenter and judges whose they are.

    Args:
        session: where to ask.
        installation: whose marks are ours.
    """

    def __init__(self, session: Session, installation: Installation) -> None:
        self._session = session
        self._installation = installation

    def find(self, identity: GuestIdentity) -> Machine | None:
        """Find the VM of an instance UUID, whoever's it is."""
        uuid = identity.instance_uuid
        return self._session.read(
            f"look up the VM of {identity.lab_id}/{identity.slot}",
            lambda content: self._find(content, uuid),
        )

    def _find(self, content: Any, uuid: str) -> Machine | None:
        ref = content.searchIndex.FindByUuid(None, uuid, True, True)
        return next(iter(self._read(content, [ref])), None) if ref is not None else None

    def find_own(self, identity: GuestIdentity) -> Machine | None:
        """Find the VM of an identity. Raises NotOwnedError when what bears its UUID is not ours."""
        machine = self.find(identity)
        if machine is not None:
            self.require_own(machine, identity)
        return machine

    def get_own(self, identity: GuestIdentity) -> Machine:
        """Return the VM of an identity. Raises VmGoneError, NotOwnedError."""
        machine = self.find_own(identity)
        if machine is None:
            raise VmGoneError(
                f"{self._session.title}: guest {identity.slot} of lab {identity.lab_id} has no VM"
                f" (instance UUID {identity.instance_uuid})",
                hint="run provision again to make it anew, or teardown to close the lab",
            )
        return machine

    def require_own(self, machine: Machine, identity: GuestIdentity) -> None:
        """Raise NotOwnedError unless the mark is genuine and names this VM and this guest."""
        vm = machine.vm
        if vm.ownership is not Ownership.OURS or vm.identity != identity:
            raise NotOwnedError(
                f"{self._session.title}: {vm.name} ({vm.moref}) bears the instance UUID of guest "
                f"{identity.slot} of lab {identity.lab_id}, but {WHY_NOT_OURS[vm.ownership]}",
                hint="labctl does not touch it; look at it in vCenter",
            )

    def get(self, ref: Any) -> Machine:
        """Read one VM. Raises VmGoneError."""
        machines = self._session.read("read a VM", lambda content: self._read(content, [ref]))
        if not machines:
            raise VmGoneError(f"{self._session.title}: {get_moref(ref)} is no longer there")
        return machines[0]

    def list_marked(self) -> tuple[Machine, ...]:
        """List every VM of the vCenter that carries a mark, whoever made it."""
        return self._session.read("list marked VMs", self._list_marked)

    def _list_marked(self, content: Any) -> tuple[Machine, ...]:
        view = content.viewManager.CreateContainerView(
            content.rootFolder, [vim.VirtualMachine], True
        )
        try:
            spec = build_spec(
                [view], {vim.VirtualMachine: [MARK_PATH]}, (vim.view.ContainerView, "view")
            )
            marked = [one.ref for one in retrieve(content, spec) if one.values.get(MARK_PATH)]
        finally:
            view.DestroyView()
        return self._read(content, marked)

    def _read(self, content: Any, refs: list[Any]) -> tuple[Machine, ...]:
        """Read VMs with the disks of their snapshots; what is gone is left out."""
        if not refs:
            return ()
        readings = retrieve(content, build_spec(refs, {vim.VirtualMachine: VM_PATHS}))
        trees = {
            one.moref: tuple(walk_snapshots(one.values.get(SNAPSHOTS_PATH, ()))) for one in readings
        }
        held: dict[str, list[Any]] = {}
        if snapshots := [tree.snapshot for some in trees.values() for tree in some]:
            spec = build_spec(snapshots, {vim.vm.Snapshot: [DEVICES_PATH]})
            held = {one.moref: list_disks(one.values) for one in retrieve(content, spec)}
        return tuple(
            Machine(
                ref=one.ref,
                vm=self._build_vm(one, tuple(str(tree.name) for tree in trees[one.moref])),
                tools_running=one.values.get(TOOLS_PATH) == "guestToolsRunning",
                disk_chains=tuple(
                    list_files(disk)
                    for disks in (
                        list_disks(one.values),
                        *(held.get(get_moref(tree.snapshot), []) for tree in trees[one.moref]),
                    )
                    for disk in disks
                ),
            )
            for one in readings
        )

    def _build_vm(self, reading: Reading, snapshots: tuple[str, ...]) -> ObservedVm:
        values = reading.values
        if POWER_PATH not in values:
            raise PrivilegeError(
                f"{self._session.title}: the account may not read {reading.moref}",
                hint="docs/runbook.md lists the vSphere role that labctl needs",
            )
        uuid = str(values.get(UUID_PATH, ""))
        ownership, identity = read_mark(self._installation, read_option(values, MARK_PATH), uuid)
        return ObservedVm(
            moref=reading.moref,
            name=str(values.get("name", "")),
            instance_uuid=uuid,
            ownership=ownership,
            identity=identity,
            power_state=POWER[values[POWER_PATH]],
            cpus=int(values.get("config.hardware.numCPU", 0)),
            memory_mib=int(values.get("config.hardware.memoryMB", 0)),
            disks=tuple(
                ObservedDisk(
                    device_key=int(disk.key),
                    path=list_files(disk)[0],
                    capacity_mib=int(disk.capacityInKB) // 1024,
                )
                for disk in list_disks(values)
            ),
            nics=tuple(
                ObservedNic(
                    device_key=int(nic.key),
                    mac=str(nic.macAddress or "").lower(),
                    network=_name_network(nic.backing),
                    connected=bool(nic.connectable and nic.connectable.connected),
                )
                for nic in list_devices(values, vim.vm.device.VirtualEthernetCard)
            ),
            snapshots=snapshots,
        )
