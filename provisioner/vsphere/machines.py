"""VMs as they stand: whose they are, their disks and NICs, found by UUID, reference or mark."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from typing import Any

from pyVmomi import vim

from provisioner.errors import (
    NotFoundError,
    NotOwnedError,
    PrivilegeError,
    VmGoneError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import (
    Connection,
    ObservedDisk,
    ObservedNic,
    ObservedVm,
    Ownership,
    PowerState,
)
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY, Installation, read_dossier, read_mark
from provisioner.vsphere.devices import (
    DEVICES_PATH,
    Chains,
    get_folder,
    list_disks,
    list_files,
    list_nics,
    list_own_disks,
    name_network,
)
from provisioner.vsphere.properties import (
    PARENTS,
    Reading,
    build_spec,
    build_upward_spec,
    get_moref,
    retrieve,
    tell_path,
)
from provisioner.vsphere.session import Session

MARK_PATH = f'config.extraConfig["{MARK_KEY}"]'
DOSSIER_PATH = f'config.extraConfig["{DOSSIER_KEY}"]'
UUID_PATH = "config.instanceUuid"
POWER_PATH = "runtime.powerState"
CONNECTION_PATH = "runtime.connectionState"
DISABLED_PATH = "disabledMethod"
VMX_PATH = "config.files.vmPathName"
SNAPSHOTS_PATH = "snapshot.rootSnapshotList"
TOOLS_PATH = "guest.toolsRunningStatus"
VM_PATHS = (
    "name",
    "parent",
    UUID_PATH,
    MARK_PATH,
    DOSSIER_PATH,
    POWER_PATH,
    CONNECTION_PATH,
    DISABLED_PATH,
    VMX_PATH,
    "config.createDate",
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
LOOKS = 3
"""How often a VM is looked up that was found and then not there: its reference may have changed."""
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

    `disk_chains` are the files of each disk, of its snapshots too. `nics` are the devices
    themselves.
    """

    ref: Any
    vm: ObservedVm
    tools_running: bool
    disk_chains: Chains
    nics: tuple[Any, ...] = ()

    @property
    def is_unreadable(self) -> bool:
        """Whether vCenter cannot work with the VM now and shows no mark of it."""
        lost = self.vm.connection is not Connection.CONNECTED
        return lost and self.vm.ownership is Ownership.UNMARKED


def read_option(values: Mapping[str, Any], path: str) -> str | None:
    """Return the text of one extraConfig key that was read by its indexed path."""
    option = values.get(path)
    return None if option is None else str(option.value)


def walk_snapshots(trees: Iterable[Any]) -> Iterable[Any]:
    """Yield every snapshot of a VM's snapshot trees."""
    for tree in trees:
        yield tree
        yield from walk_snapshots(tree.childSnapshotList or ())


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
        for _ in range(LOOKS):
            ref = content.searchIndex.FindByUuid(None, uuid, True, True)
            if ref is None:
                return None
            if found := self._read(content, [ref]):
                return found[0]
        raise VsphereUnavailableError(
            f"{self._session.title}: it names a VM of instance UUID {uuid} and does not show it",
            hint="vCenter may be starting; run the same command again",
        )

    def find_own(self, identity: GuestIdentity) -> Machine | None:
        """Find the VM of an identity. Raises what `require_own` does of what bears its UUID."""
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
        """Raise NotOwnedError unless the mark is genuine and names this VM and this guest.

        Raises VsphereUnavailableError when vCenter cannot read the mark now.
        """
        vm = machine.vm
        if machine.is_unreadable:
            raise VsphereUnavailableError(
                f"{self._session.title}: {vm.name} ({vm.moref}) is {vm.connection}: whose it is"
                " cannot be read now",
                hint="bring its ESXi host and datastore back, then run the same command again",
            )
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
        for _ in range(LOOKS):
            with contextlib.suppress(NotFoundError):  # the view ended with its session
                marked = self._session.read("list marked VMs", self._find_marked)
                machines = self._session.read("read VMs", partial(self._read, refs=marked))
                if len(machines) == len(marked):
                    return machines
        raise VsphereUnavailableError(
            f"{self._session.title}: it names marked VMs and does not show them",
            hint="vCenter may be starting; run the same command again",
        )

    def _find_marked(self, content: Any) -> list[Any]:
        view = content.viewManager.CreateContainerView(
            content.rootFolder, [vim.VirtualMachine], True
        )
        spec = build_spec(
            [view],
            {vim.VirtualMachine: [MARK_PATH]},
            (vim.view.ContainerView, "view"),
            may_be_gone=False,
        )
        try:
            return [one.ref for one in retrieve(content, spec) if one.values.get(MARK_PATH)]
        finally:
            view.DestroyView()

    def _read(self, content: Any, refs: list[Any]) -> tuple[Machine, ...]:
        """Read VMs with the disks of their snapshots; what is gone is left out."""
        if not refs:
            return ()
        everything = retrieve(content, build_upward_spec(refs, vim.VirtualMachine, VM_PATHS))
        readings = [one for one in everything if isinstance(one.ref, vim.VirtualMachine)]
        above = {one.moref: one for one in everything if isinstance(one.ref, PARENTS)}
        trees = {
            one.moref: tuple(walk_snapshots(one.values.get(SNAPSHOTS_PATH, ()))) for one in readings
        }
        held: dict[str, list[Any]] = {}
        if snapshots := [tree.snapshot for some in trees.values() for tree in some]:
            spec = build_spec(snapshots, {vim.vm.Snapshot: [DEVICES_PATH]})
            held = {one.moref: list_disks(one.values) for one in retrieve(content, spec)}
        return tuple(
            self._build_machine(
                one, trees[one.moref], held, tell_path(one.values.get("parent"), above)
            )
            for one in readings
        )

    def _build_machine(
        self, reading: Reading, trees: tuple[Any, ...], held: Mapping[str, list[Any]], path: str
    ) -> Machine:
        """Put a VM together: `held` are the disks of its snapshots, `path` its inventory folder."""
        values = reading.values
        disks = (list_disks(values), *(held.get(get_moref(tree.snapshot), []) for tree in trees))
        chains = tuple(list_files(disk) for some in disks for disk in some)
        folder = get_folder(str(values.get(VMX_PATH, "")))
        return Machine(
            ref=reading.ref,
            vm=replace(
                self._build_vm(reading),
                snapshots=tuple(str(tree.name) for tree in trees),
                folder=path,
                own_disks=list_own_disks(chains, folder),
            ),
            tools_running=values.get(TOOLS_PATH) == "guestToolsRunning",
            disk_chains=chains,
            nics=tuple(list_nics(values)),
        )

    def _build_vm(self, reading: Reading) -> ObservedVm:
        values = reading.values
        if POWER_PATH not in values:
            raise PrivilegeError(
                f"{self._session.title}: the account may not read {reading.moref}",
                hint="docs/runbook.md lists the vSphere role that labctl needs",
            )
        uuid = str(values.get(UUID_PATH, ""))
        ownership, identity = read_mark(self._installation, read_option(values, MARK_PATH), uuid)
        created, dossier = values.get("config.createDate"), ""
        if ownership is Ownership.OURS and identity is not None:
            value = read_option(values, DOSSIER_PATH)
            dossier = read_dossier(self._installation, identity, value)
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
                    network=name_network(nic.backing),
                    connected=bool(nic.connectable and nic.connectable.connected),
                )
                for nic in list_nics(values)
            ),
            created_at=created.astimezone(UTC) if created is not None else None,
            connection=Connection(values.get(CONNECTION_PATH, Connection.CONNECTED)),
            disabled_methods=tuple(str(name) for name in values.get(DISABLED_PATH, ())),
            dossier=dossier,
        )
