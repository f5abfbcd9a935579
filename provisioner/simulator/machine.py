"""A virtual machine: its state, what its guest says, and the properties that follow from both."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import project
from provisioner.simulator.datastores import get_datastore
from provisioner.simulator.devices import Disk, Nic, chain, network_of, of_kind
from provisioner.simulator.guests import GuestHardware, GuestState, NicHardware
from provisioner.simulator.world import DERIVED, Record, World, derives, now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from provisioner.simulator.guests import GuestNic

VM = vim.VirtualMachine
Power = VM.PowerState
GUESTINFO = "guestinfo."
DISABLER = "com.example.backup"
DISABLED_BY_POWER = {
    Power.poweredOn: ("PowerOnVM_Task", "Destroy_Task", "UnregisterVM", "MarkAsTemplate"),
    Power.poweredOff: ("PowerOffVM_Task", "SuspendVM_Task", "ResetVM_Task", "ShutdownGuest"),
    Power.suspended: ("SuspendVM_Task", "ResetVM_Task", "ShutdownGuest", "Destroy_Task"),
}
"""vCenter also shows in disabledMethod what the power state does not allow."""
MAX_VALUE_CHARS, MAX_NAME_CHARS, MAX_NICS, MAX_ADDRESSES = 65536, 255, 64, 64
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Snapshot(Record):
    """One snapshot: the configuration and the runtime's disk as they were."""

    def __init__(self, world: World, vm: Machine, name: str, description: str, disk: str) -> None:
        super().__init__(vim.vm.Snapshot(world.new_id("snapshot")), vm=vm.ref)
        self.vm, self.parent, self.disk = vm, vm.current, disk
        self.busy, self.works = vm.busy, vm.works  # who works on a snapshot works on its VM
        self.children: list[Snapshot] = []
        self.node = {"name": name, "description": description, "createTime": world.now()}

    def family(self) -> Iterator[Snapshot]:
        """Yield the snapshot and everything below it."""
        yield self
        for child in self.children:
            yield from child.family()

    def tree(self) -> Any:
        """Return what VirtualMachine.snapshot shows of it: powered off, for it has no memory."""
        return vim.vm.SnapshotTree(
            snapshot=self.ref,
            vm=self.vm.ref,
            id=int(self.moid.rpartition("-")[2]),
            state=Power.poweredOff,
            childSnapshotList=[child.tree() for child in self.children],
            **self.node,
        )


class Machine(Record):
    """One VM. ``disk`` is the runtime's disk id."""

    def __init__(self, moid: str, config: Any, disk: str, host: Any, **props: Any) -> None:
        runtime = vim.vm.RuntimeInfo(
            host=host,
            connectionState=VM.ConnectionState.connected,
            powerState=Power.poweredOff,
            faultToleranceState=VM.FaultToleranceState.notConfigured,
        )
        super().__init__(VM(moid), config=config, runtime=runtime, **props)
        self.vm_id = moid
        """What the runtime and the datastores know it by: its first moId, for good."""
        self.disk = disk
        self.guest: GuestState | None = None
        self.tools: MachineTools | None = None
        """What the running guest talks to; an older one's words no longer count."""
        self.told: dict[str, str | None] = {}
        """guestinfo keys the guest set, and what they were before: a power off brings that back."""
        self.disabled_methods: tuple[str, ...] = ()
        """What somebody else, as a backup that runs, lets nobody do to the VM."""
        self.roots: list[Snapshot] = []
        self.current: Snapshot | None = None

    @property
    def config(self) -> Any:
        """The VM's configuration."""
        return self.props["config"]

    @property
    def power(self) -> Any:
        """The VM's power state."""
        return self.props["runtime"].powerState

    @property
    def snapshots(self) -> list[Snapshot]:
        """All snapshots of the VM, parents first."""
        return [one for root in self.roots for one in root.family()]

    def places(self, world: World) -> list[Any]:
        """Return the folder, pool and host that show the VM."""
        refs = (self.props["parent"], self.props["resourcePool"], self.props["runtime"].host)
        return [world.find(ref) for ref in refs]

    def option(self, key: str) -> str | None:
        """Return a value of the VM's extraConfig, None when it is not set."""
        return {item.key: item.value for item in self.config.extraConfig}.get(key)

    def hardware(self, world: World) -> GuestHardware:
        """Return what the guest is powered on with, or has while it runs."""
        config, options = self.config, self.config.extraConfig
        is_on = self.power == Power.poweredOn
        nics = [(n.macAddress, network_of(n), n.connectable) for n in of_kind(config, Nic)]
        return GuestHardware(
            vm_id=self.vm_id,
            name=config.name,
            instance_uuid=config.instanceUuid,
            bios_uuid=config.uuid,
            cpus=config.hardware.numCPU,
            memory_mib=config.hardware.memoryMB,
            disk=self.disk,
            nics=tuple(
                NicHardware(
                    mac, world.name_of(network), it.connected if is_on else it.startConnected
                )
                for mac, network, it in nics
            ),
            guestinfo={item.key: item.value for item in options if item.key.startswith(GUESTINFO)},
        )


def set_options(config: Any, options: Mapping[str, str | None]) -> None:
    """Merge extraConfig values; an empty one or None deletes its key, as in vSphere."""
    merged = {item.key: item.value for item in config.extraConfig} | dict(options)
    pairs = [(key, value) for key, value in merged.items() if value]
    config.extraConfig = [vim.option.OptionValue(key=key, value=value) for key, value in pairs]


def set_changed(world: World, config: Any) -> None:
    """Give a configuration that was changed its next changeVersion."""
    config.changeVersion, config.modified = now().isoformat(), world.now()


def require_allowed(vm: Machine, method: str) -> None:
    """Raise what a vCenter answers when it lets nobody do that to a VM now."""
    if method in vm.disabled_methods:
        text = f"The method is disabled by '{DISABLER}'"
        raise vim.fault.MethodDisabled(source=DISABLER, msg=text)
    state = vm.props["runtime"].connectionState
    if state == VM.ConnectionState.disconnected:
        text = "Unable to communicate with the remote host, since it is disconnected."
        raise vmodl.fault.HostNotConnected(msg=text)
    if state != VM.ConnectionState.connected and method != "UnregisterVM":
        text = f"The operation is not allowed in the current state of the VM ({state})."
        raise vim.fault.InvalidState(msg=text)


def set_power(world: World, vm: Machine, state: Any) -> None:
    """Record a VM's power state and what follows from it. Call it under the lock."""
    runtime = vm.props["runtime"]
    if state == Power.poweredOn and runtime.powerState == Power.poweredOff:
        runtime.bootTime = world.now()
    runtime.powerState = state
    if state == Power.poweredOff:
        runtime.bootTime = vm.guest = vm.tools = None
        set_options(vm.config, vm.told)
        vm.told = {}
    for link in (one.connectable for one in vm.config.hardware.device if one.connectable):
        link.connected = state == Power.poweredOn and link.startConnected
    world.touch(vm)


class MachineTools:
    """The ToolsCallbacks of one powered on VM. What a guest says is untrusted input."""

    def __init__(self, world: World, vm: Machine) -> None:
        self._world, self._vm = world, vm

    def info_get(self, key: str) -> str | None:
        """Return a guestinfo value, None when it is not set or no guestinfo."""
        with self._world.changed:
            return self._vm.option(key) if key.startswith(GUESTINFO) else None

    def info_set(self, key: str, value: str) -> None:
        """Set a guestinfo value; another key, and what no XML can carry, is left out."""
        with self._world.changed:
            if self._vm.tools is self and key.startswith(GUESTINFO) and not _NOT_XML.search(key):
                self._vm.told.setdefault(key, self._vm.option(key))
                set_options(self._vm.config, {key: _NOT_XML.sub("?", value)[:MAX_VALUE_CHARS]})
                self._world.touch(self._vm)

    def guest_state(self, state: GuestState) -> None:
        """Take a heartbeat; a guest that stopped by itself is a VM that is powered off."""
        with self._world.changed:
            vm = self._vm
            if vm.tools is not self:
                return
            vm.guest = state
            if not state.powered_on and vm.power == Power.poweredOn:
                set_power(self._world, vm, Power.poweredOff)
                message = f"{vm.config.name} stopped by itself"
                self._world.log_event(vim.event.VmPoweredOffEvent, vm, message)
            self._world.touch(vm)


def _interface(text: str) -> Any:
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


def _nic_info(world: World, devices: dict[str, Any], nic: GuestNic) -> Any:
    """Return a NIC as vSphere shows it; what is no MAC or address is left out."""
    mac = (nic.mac or "").lower()
    device = devices.get(mac)
    found = [one for one in map(_interface, nic.addresses[:MAX_ADDRESSES]) if one is not None]
    kind = vim.net.IpConfigInfo.IpAddress
    addresses = [
        kind(ipAddress=str(it.ip), prefixLength=it.network.prefixlen, state="preferred")
        for it in found
    ]
    return vim.vm.GuestInfo.NicInfo(
        network=world.name_of(network_of(device)) if device else None,
        macAddress=mac if _MAC.fullmatch(mac) else None,
        connected=True,
        deviceConfigId=device.key if device else -1,
        ipAddress=[one.ipAddress for one in addresses],
        ipConfig=vim.net.IpConfigInfo(ipAddress=addresses) if addresses else None,
    )


@derives(VM, "guest")
def _guest(world: World, vm: Machine) -> Any:
    """Return what vSphere shows of the guest; nothing of it survives a power off."""
    is_on = vm.power == Power.poweredOn
    state = (vm.guest if is_on else None) or GuestState(powered_on=is_on, tools_running=False)
    running, devices = state.tools_running, {nic.macAddress: nic for nic in of_kind(vm.config, Nic)}
    net = [_nic_info(world, devices, nic) for nic in state.nics[:MAX_NICS]]
    own = [ip for nic in net if nic.deviceConfigId != -1 for ip in nic.ipAddress]
    own.sort(key=lambda ip: (":" in ip, ip.startswith(("169.254.", "fe80:"))))
    return vim.vm.GuestInfo(
        toolsStatus="toolsOk" if running else "toolsNotRunning",
        toolsVersionStatus2="guestToolsUnmanaged",
        toolsRunningStatus="guestToolsRunning" if running else "guestToolsNotRunning",
        guestId=vm.config.guestId,
        guestFamily="linuxGuest" if running else None,
        guestFullName=vm.config.guestFullName,
        hostName=_NOT_XML.sub("?", state.hostname or "")[:MAX_NAME_CHARS] or None,
        ipAddress=next(iter(own), None),
        net=net,
        guestState="running" if running else "notRunning",
        guestOperationsReady=running,
        guestStateChangeSupported=running,
    )


def _heartbeat(_world: World, vm: Machine) -> Any:
    running = vm.power == Power.poweredOn and vm.guest is not None and vm.guest.tools_running
    return vim.ManagedEntity.Status.green if running else vim.ManagedEntity.Status.gray


def _files(world: World, vm: Machine) -> list[tuple[str, int]]:
    """Return the VM's own files and the disks attached to it, with their sizes."""
    attached = {disk.backing.fileName for disk in of_kind(vm.config, Disk)}
    files = world.files.items()
    return [(p, one.size_bytes) for p, one in files if one.owner == vm.vm_id or p in attached]


@derives(VM, "config")
def _config(_world: World, vm: Machine) -> Any:
    """Return the configuration, which nobody can read where the VM's files are out of reach."""
    state = vm.props["runtime"].connectionState
    return None if state == VM.ConnectionState.inaccessible else vm.config


@derives(VM, "summary")
def _summary(world: World, vm: Machine) -> Any:
    config, kind = vm.config, vim.vm.Summary
    used = sum(size for _, size in _files(world, vm))
    about = project(
        kind.ConfigSummary,
        config,
        vmPathName=config.files.vmPathName,
        memorySizeMB=config.hardware.memoryMB,
        numCpu=config.hardware.numCPU,
        numEthernetCards=len(of_kind(config, Nic)),
        numVirtualDisks=len(of_kind(config, Disk)),
    )
    return kind(
        vm=vm.ref,
        runtime=vm.props["runtime"],
        overallStatus="green",
        config=about,
        guest=project(kind.GuestSummary, _guest(world, vm)),
        customValue=vm.props.get("customValue", []),
        storage=kind.StorageSummary(committed=used, unshared=used, timestamp=world.now()),
        quickStats=kind.QuickStats(guestHeartbeatStatus=_heartbeat(world, vm)),
    )


@derives(VM, "layoutEx")
def _layout(world: World, vm: Machine) -> Any:
    kind = vim.vm.FileLayoutEx
    files = [
        kind.FileInfo(key=key, name=path, type=path.rpartition(".")[2], size=size, uniqueSize=size)
        for key, (path, size) in enumerate(_files(world, vm))
    ]
    keys = {one.name: one.key for one in files}
    layout = kind(file=files, timestamp=world.now())
    for disk in of_kind(vm.config, Disk):
        units = [keys[one.fileName] for one in chain(disk.backing) if one.fileName in keys]
        disk_chain = [kind.DiskUnit(fileKey=[unit]) for unit in units]
        layout.disk.append(kind.DiskLayout(key=disk.key, chain=disk_chain))
    return layout


@derives(VM, "storage")
def _storage(world: World, vm: Machine) -> Any:
    usage: dict[Any, int] = {}
    for path, size in _files(world, vm):
        ref = get_datastore(world, path).ref
        usage[ref] = usage.get(ref, 0) + size
    kind = vim.vm.StorageInfo.UsageOnDatastore
    found = [kind(datastore=ref, committed=size, unshared=size) for ref, size in usage.items()]
    return vim.vm.StorageInfo(perDatastoreUsage=found, timestamp=world.now())


@derives(VM, "snapshot")
def _snapshot(_world: World, vm: Machine) -> Any:
    trees = [root.tree() for root in vm.roots]
    current = vm.current.ref if vm.current else None
    return vim.vm.SnapshotInfo(currentSnapshot=current, rootSnapshotList=trees) if trees else None


DERIVED |= {
    (VM, "name"): lambda _, vm: vm.config.name,
    (VM, "guestHeartbeatStatus"): _heartbeat,
    (VM, "disabledMethod"): lambda _, vm: list(
        dict.fromkeys([*DISABLED_BY_POWER[vm.power], *vm.disabled_methods])
    ),
    (VM, "datastore"): lambda world, vm: [
        one.datastore for one in _storage(world, vm).perDatastoreUsage
    ],
    (VM, "network"): lambda _, vm: list(dict.fromkeys(map(network_of, of_kind(vm.config, Nic)))),
    (VM, "rootSnapshot"): lambda _, vm: [root.ref for root in vm.roots],
    (vim.vm.Snapshot, "childSnapshot"): lambda _, one: [child.ref for child in one.children],
}
