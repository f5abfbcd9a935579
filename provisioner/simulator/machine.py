"""A virtual machine: its state, and the properties that vSphere derives from it."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from provisioner.simulator.datastores import get_datastore
from provisioner.simulator.devices import Disk, Nic, chain, of_kind
from provisioner.simulator.guests import GuestHardware, GuestNic, GuestState, NicHardware
from provisioner.simulator.world import Record, World, derives, now

if TYPE_CHECKING:
    from collections.abc import Iterator

Power = vim.VirtualMachine.PowerState
VM = vim.VirtualMachine
GUESTINFO = "guestinfo."
MAX_VALUE_CHARS = 64 * 1024
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Snapshot(Record):
    """One snapshot: the configuration and the runtime's disk as they were."""

    def __init__(
        self, world: World, vm: Machine, *, name: str, description: str, disk: str
    ) -> None:
        self.moid = world.new_id("snapshot")
        super().__init__(vim.vm.Snapshot(self.moid), vm=vm.ref)
        self.vm, self.parent, self.disk = vm, vm.current, disk
        self.children: list[Snapshot] = []
        self.tree = vim.vm.SnapshotTree(
            snapshot=self.ref,
            vm=vm.ref,
            name=name,
            description=description,
            id=int(self.moid.rpartition("-")[2]),
            createTime=now(),
            state=Power.poweredOff,
            quiesced=False,
        )

    def family(self) -> Iterator[Snapshot]:
        """Yield the snapshot and everything below it."""
        yield self
        for child in self.children:
            yield from child.family()


class Machine(Record):
    """One VM. ``disk`` is the runtime's disk id; a moId serves as the runtime's vm_id."""

    def __init__(self, moid: str, config: Any, disk: str, **props: Any) -> None:
        host = props.pop("host")
        runtime = vim.vm.RuntimeInfo(
            host=host,
            connectionState=VM.ConnectionState.connected,
            powerState=Power.poweredOff,
            faultToleranceState=VM.FaultToleranceState.notConfigured,
            consolidationNeeded=False,
        )
        super().__init__(VM(moid), config=config, runtime=runtime, **props)
        self.moid = moid
        self.disk = disk
        self.guest: GuestState | None = None
        self.tools: MachineTools | None = None
        """What the running guest talks to; an older one's words no longer count."""
        self.told: dict[str, str | None] = {}
        """guestinfo keys the guest set, and what they were before: a power off brings that back."""
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
    def folder(self) -> str:
        """``[datastore] folder`` of the VM's files."""
        return str(self.config.files.vmPathName.rpartition("/")[0])

    def hardware(self) -> GuestHardware:
        """Return what the guest is powered on with."""
        config = self.config
        return GuestHardware(
            vm_id=self.moid,
            name=config.name,
            instance_uuid=config.instanceUuid,
            bios_uuid=config.uuid,
            cpus=config.hardware.numCPU,
            memory_mib=config.hardware.memoryMB,
            disk=self.disk,
            nics=tuple(
                NicHardware(nic.macAddress, nic.backing.deviceName, nic.connectable.startConnected)
                for nic in of_kind(config, Nic)
            ),
            guestinfo={
                item.key: item.value
                for item in config.extraConfig
                if item.key.startswith(GUESTINFO)
            },
        )


def set_options(config: Any, options: dict[str, str | None]) -> None:
    """Merge extraConfig values; an empty one or None deletes its key, as in vSphere."""
    merged = {item.key: item.value for item in config.extraConfig} | options
    config.extraConfig = [
        vim.option.OptionValue(key=key, value=value) for key, value in merged.items() if value
    ]


class MachineTools:
    """The ToolsCallbacks of one powered on VM. What a guest says is untrusted input."""

    def __init__(self, world: World, vm: Machine) -> None:
        self._world = world
        self._vm = vm

    def info_get(self, key: str) -> str | None:
        """Return a guestinfo value, None when it is not set or no guestinfo."""
        with self._world.changed:
            options = {item.key: item.value for item in self._vm.config.extraConfig}
            return options.get(key) if key.startswith(GUESTINFO) else None

    def info_set(self, key: str, value: str) -> None:
        """Set a guestinfo value; anything else, and what no XML can carry, is left out."""
        with self._world.changed:
            if self._vm.tools is not self or not key.startswith(GUESTINFO) or _NOT_XML.search(key):
                return
            self._vm.told.setdefault(key, self.info_get(key))
            set_options(self._vm.config, {key: _NOT_XML.sub("?", value)[:MAX_VALUE_CHARS]})
            self._world.touch(self._vm)

    def guest_state(self, state: GuestState) -> None:
        """Take a heartbeat; a guest that stopped by itself is a VM that is powered off."""
        with self._world.changed:
            if self._vm.tools is not self:
                return
            self._vm.guest = state
            if not state.powered_on and self._vm.power == Power.poweredOn:
                set_power(self._world, self._vm, Power.poweredOff)
                name = self._vm.config.name
                self._world.log_event(
                    vim.event.VmPoweredOffEvent, self._vm, f"{name} stopped by itself"
                )
            self._world.touch(self._vm)


def set_power(world: World, vm: Machine, state: Any) -> None:
    """Record a VM's power state and what follows from it. Call it under the lock."""
    runtime = vm.props["runtime"]
    if state == Power.poweredOn and runtime.powerState == Power.poweredOff:
        runtime.bootTime = now()
    runtime.powerState = state
    if state == Power.poweredOff:
        runtime.bootTime = vm.guest = vm.tools = None
        set_options(vm.config, vm.told)
        vm.told = {}
    for device in vm.config.hardware.device:
        if device.connectable is not None:
            device.connectable.connected = (
                state == Power.poweredOn and device.connectable.startConnected
            )
    world.touch(vm)


def _addresses(nic: GuestNic) -> list[Any]:
    """Return a NIC's addresses as vSphere types them; what is no address is left out."""
    found = []
    for text in nic.addresses[:64]:
        try:
            address = ipaddress.ip_interface(text)
        except ValueError:
            continue
        found.append(
            vim.net.IpConfigInfo.IpAddress(
                ipAddress=str(address.ip),
                prefixLength=address.network.prefixlen,
                state="preferred",
                origin="manual",
            )
        )
    return found


def _nics(vm: Machine, state: GuestState) -> list[Any]:
    devices = {nic.macAddress: nic for nic in of_kind(vm.config, Nic)}
    found = []
    for nic in state.nics[:64]:
        mac = (nic.mac or "").lower()
        device = devices.get(mac)
        addresses = _addresses(nic)
        found.append(
            vim.vm.GuestInfo.NicInfo(
                network=device.backing.deviceName if device else None,
                macAddress=mac if re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac) else None,
                connected=True,
                deviceConfigId=device.key if device else -1,
                ipAddress=[one.ipAddress for one in addresses],
                ipConfig=vim.net.IpConfigInfo(ipAddress=addresses) if addresses else None,
            )
        )
    return found


@derives(VM, "guest")
def guest_info(_world: World, vm: Machine) -> Any:
    """Return what vSphere shows of the guest; nothing of it survives a power off."""
    is_on = vm.power == Power.poweredOn
    state = (vm.guest if is_on else None) or GuestState(powered_on=is_on, tools_running=False)
    net = _nics(vm, state)
    own = [ip for nic in net if nic.deviceConfigId != -1 for ip in nic.ipAddress]
    own.sort(key=lambda ip: (":" in ip, ip.startswith(("169.254.", "fe80:"))))
    running = state.tools_running
    hostname = _NOT_XML.sub("?", state.hostname or "")[:255]
    return vim.vm.GuestInfo(
        toolsStatus="toolsOk" if running else "toolsNotRunning",
        toolsVersionStatus="guestToolsUnmanaged",
        toolsVersionStatus2="guestToolsUnmanaged",
        toolsRunningStatus="guestToolsRunning" if running else "guestToolsNotRunning",
        toolsVersion="12389",
        guestId=vm.config.guestId,
        guestFamily="linuxGuest" if running else None,
        guestFullName=vm.config.guestFullName,
        hostName=hostname or None,
        ipAddress=own[0] if own else None,
        net=net,
        guestState="running" if running else "notRunning",
        guestOperationsReady=running,
        guestStateChangeSupported=running,
    )


@derives(VM, "guestHeartbeatStatus")
def _heartbeat(_world: World, vm: Machine) -> Any:
    running = vm.power == Power.poweredOn and vm.guest is not None and vm.guest.tools_running
    return vim.ManagedEntity.Status.green if running else vim.ManagedEntity.Status.gray


@derives(VM, "name")
def _name(_world: World, vm: Machine) -> Any:
    return vm.config.name


@derives(VM, "summary")
def _summary(world: World, vm: Machine) -> Any:
    config, guest = vm.config, guest_info(world, vm)
    shared = ("name", "template", "uuid", "instanceUuid", "guestId", "guestFullName", "annotation")
    summary = vim.vm.Summary(vm=vm.ref, runtime=vm.props["runtime"], overallStatus="green")
    summary.config = vim.vm.Summary.ConfigSummary(
        vmPathName=config.files.vmPathName,
        memorySizeMB=config.hardware.memoryMB,
        numCpu=config.hardware.numCPU,
        numEthernetCards=len(of_kind(config, Nic)),
        numVirtualDisks=len(of_kind(config, Disk)),
        **{name: getattr(config, name) for name in shared},
    )
    fields = vim.vm.Summary.GuestSummary._GetPropertyList(False)  # noqa: SLF001 - pyVmomi's public metadata
    summary.guest = vim.vm.Summary.GuestSummary(
        **{info.name: getattr(guest, info.name) for info in fields}
    )
    committed = sum(file.size_bytes for _, file in _files(world, vm))
    summary.storage = vim.vm.Summary.StorageSummary(
        committed=committed, uncommitted=0, unshared=committed, timestamp=now()
    )
    summary.quickStats = vim.vm.Summary.QuickStats(guestHeartbeatStatus=_heartbeat(world, vm))
    return summary


def _files(world: World, vm: Machine) -> list[tuple[str, Any]]:
    """Return the VM's own files and the disks attached to it."""
    attached = {disk.backing.fileName for disk in of_kind(vm.config, Disk)}
    return [
        (path, file)
        for path, file in world.files.items()
        if file.owner == vm.moid or path in attached
    ]


@derives(VM, "layoutEx")
def _layout(world: World, vm: Machine) -> Any:
    kinds = {".vmx": "config", ".vmdk": "diskDescriptor"}
    files = [
        vim.vm.FileLayoutEx.FileInfo(
            key=key,
            name=path,
            type=kinds.get(path[path.rfind(".") :], "log"),
            size=file.size_bytes,
            uniqueSize=file.size_bytes,
        )
        for key, (path, file) in enumerate(_files(world, vm))
    ]
    keys = {one.name: one.key for one in files}
    disks = [
        vim.vm.FileLayoutEx.DiskLayout(
            key=disk.key,
            chain=[
                vim.vm.FileLayoutEx.DiskUnit(fileKey=[keys[one.fileName]])
                for one in chain(disk.backing)
                if one.fileName in keys
            ],
        )
        for disk in of_kind(vm.config, Disk)
    ]
    return vim.vm.FileLayoutEx(file=files, disk=disks, timestamp=now())


@derives(VM, "storage")
def _storage(world: World, vm: Machine) -> Any:
    usage: dict[Any, int] = {}
    for path, file in _files(world, vm):
        ref = get_datastore(world, path).ref
        usage[ref] = usage.get(ref, 0) + file.size_bytes
    return vim.vm.StorageInfo(
        perDatastoreUsage=[
            vim.vm.StorageInfo.UsageOnDatastore(
                datastore=ref, committed=size, uncommitted=0, unshared=size
            )
            for ref, size in usage.items()
        ],
        timestamp=now(),
    )


@derives(VM, "datastore")
def _datastores(world: World, vm: Machine) -> Any:
    return list(dict.fromkeys(get_datastore(world, path).ref for path, _ in _files(world, vm)))


@derives(VM, "network")
def _networks(_world: World, vm: Machine) -> Any:
    return list(dict.fromkeys(nic.backing.network for nic in of_kind(vm.config, Nic)))


def _tree(snapshot: Snapshot) -> Any:
    snapshot.tree.childSnapshotList = [_tree(child) for child in snapshot.children]
    return snapshot.tree


@derives(VM, "snapshot")
def _snapshot(_world: World, vm: Machine) -> Any:
    if not vm.roots:
        return None
    return vim.vm.SnapshotInfo(
        currentSnapshot=vm.current.ref if vm.current else None,
        rootSnapshotList=[_tree(root) for root in vm.roots],
    )


@derives(VM, "rootSnapshot")
def _root_snapshots(_world: World, vm: Machine) -> Any:
    return [root.ref for root in vm.roots]


@derives(vim.vm.Snapshot, "childSnapshot")
def _child_snapshots(_world: World, snapshot: Snapshot) -> Any:
    return [child.ref for child in snapshot.children]
