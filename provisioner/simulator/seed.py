"""What a new simulator holds: one table of the inventory, and how its rows become objects."""

from __future__ import annotations

import uuid
from typing import Any

from pyVmomi import vim

from provisioner.simulator.clone import VMX_BYTES, register
from provisioner.simulator.datastores import GIB, add_file
from provisioner.simulator.devices import Device, Disk, Flat, Nic, give_mac
from provisioner.simulator.machine import Machine, Snapshot
from provisioner.simulator.service import add_service
from provisioner.simulator.snapshots import add as add_snapshot
from provisioner.simulator.world import DatastoreFile, Record, World, derives, now

DATACENTER = "DC0"
CLUSTER = "cluster-0"
HOSTS = ("esxi-0.lab.example", "esxi-1.lab.example")
DATASTORES = ("datastore-0", "datastore-1")
PORTGROUPS = {"lab": True, "sealed": False}
"""Portgroups, and whether they have an uplink."""
VM_FOLDERS = ("labs", "templates")
TEMPLATES = {"debian-13": False, "debian-13-marked": True}
"""VMs to clone from, in the folder ``templates``, and whether they are marked as templates."""
BASE_SNAPSHOT = "labctl-base"
GUEST_IMAGE = "debian-13"
ENVIRONMENT = vim.EnvironmentBrowser("envbrowser-1")
HOST_CORES, HOST_MEMORY_GIB = 32, 256
DISK_GIB, DISK_USED_GIB = 32, 2
TEMPLATE_CPUS, TEMPLATE_MEMORY_MIB = 2, 4096


def seed(world: World) -> None:
    """Fill an empty world."""
    add_service(world)
    root = _folder(world, None, "Datacenters", "group-d1", ["Folder", "Datacenter"])
    datacenter = vim.Datacenter("datacenter-1")
    kinds = {"vm": "VirtualMachine", "host": "ComputeResource", "datastore": "Datastore"}
    folders = {
        name: _folder(world, datacenter, name, None, ["Folder", kind])
        for name, kind in {**kinds, "network": "Network"}.items()
    }
    refs = {f"{name}Folder": folder.ref for name, folder in folders.items()}
    world.add(Record(datacenter, name=DATACENTER, parent=root.ref, **refs))
    for name in VM_FOLDERS:
        _folder(world, folders["vm"].ref, name, None, ["Folder", "VirtualMachine"])
    for name in DATASTORES:
        _datastore(world, folders["datastore"].ref, name)
    for name, uplink in PORTGROUPS.items():
        world.guests.ensure_network(name, uplink=uplink)
        ref = vim.Network(world.new_id("network"))
        world.add(Record(ref, name=name, parent=folders["network"].ref))
    _cluster(world, folders["host"].ref)
    base = world.guests.ensure_template(GUEST_IMAGE)
    world.template_disks.add(base)
    for name, marked in TEMPLATES.items():
        _template(world, name, base, marked=marked)


def _folder(
    world: World, parent: Any, name: str, moid: str | None, child_type: list[str]
) -> Record:
    ref = vim.Folder(moid or world.new_id("group"))
    return world.add(Record(ref, name=name, parent=parent, childType=child_type))


def _datastore(world: World, parent: Any, name: str) -> None:
    ref = vim.Datastore(world.new_id("datastore"))
    browser = vim.host.DatastoreBrowser(f"datastoreBrowser-{ref._GetMoId()}")  # noqa: SLF001 - pyVmomi's public accessor
    record = Record(ref, name=name, parent=parent, browser=browser)
    record.props["capacity_bytes"] = world.settings.datastore_gib * GIB
    world.add(record)
    world.add(Record(browser, datastore=[ref]))


def _cluster(world: World, parent: Any) -> None:
    cluster = vim.ClusterComputeResource(world.new_id("domain"))
    pool = vim.ResourcePool(world.new_id("resgroup"))
    datastores = [record.ref for record in world.of_type(vim.Datastore)]
    networks = [record.ref for record in world.of_type(vim.Network)]
    shared = {"datastore": datastores, "network": networks}
    hosts = []
    for name in HOSTS:
        host = vim.HostSystem(world.new_id("host"))
        browser = vim.host.DatastoreBrowser(f"datastoreBrowser-{name}")
        hosts.append(host)
        world.add(Record(browser, datastore=datastores))
        world.add(Record(host, name=name, parent=cluster, datastoreBrowser=browser, **shared))
    world.add(Record(ENVIRONMENT))
    world.add(Record(pool, name="Resources", parent=cluster, owner=cluster))
    shared.update(resourcePool=pool, environmentBrowser=ENVIRONMENT)
    world.add(Record(cluster, name=CLUSTER, parent=parent, host=hosts, **shared))


def _template(world: World, name: str, base: str, *, marked: bool) -> None:
    moid = world.new_id("vm")
    place = f"[{DATASTORES[0]}] {name}/{name}"
    add_file(world, f"{place}.vmx", DatastoreFile(VMX_BYTES, owner=moid))
    file = DatastoreFile(DISK_USED_GIB * GIB, DISK_GIB * GIB // 1024, moid)
    add_file(world, f"{place}.vmdk", file)
    config = vim.vm.ConfigInfo(
        name=name,
        changeVersion="1",
        modified=now(),
        createDate=now(),
        version="vmx-21",
        guestId="debian12_64Guest",
        guestFullName="Debian GNU/Linux 13 (64-bit)",
        uuid=str(uuid.uuid4()),
        instanceUuid=str(uuid.uuid4()),
        template=marked,
        firmware="efi",
        files=vim.vm.FileInfo(vmPathName=f"{place}.vmx"),
        hardware=vim.vm.VirtualHardware(
            numCPU=TEMPLATE_CPUS,
            memoryMB=TEMPLATE_MEMORY_MIB,
            numCoresPerSocket=1,
            device=_devices(world, f"{place}.vmdk", file),
        ),
    )
    pool = None if marked else next(world.of_type(vim.ResourcePool)).ref
    folder = next(one for one in world.of_type(vim.Folder) if one.props["name"] == "templates")
    host = next(world.of_type(vim.HostSystem)).ref
    disk = world.guests.clone_disk(base, moid)
    vm = Machine(moid, config, disk, host=host, parent=folder.ref, resourcePool=pool)
    register(world, vm)
    if not marked:
        add_snapshot(world, vm, Snapshot(world, vm, name=BASE_SNAPSHOT, description="", disk=base))


def _devices(world: World, path: str, file: DatastoreFile) -> list[Any]:
    """Return the hardware of a template: a paravirtual controller, a thin disk, a NIC."""
    network = next(world.of_type(vim.Network))
    store = next(world.of_type(vim.Datastore))
    backing = Flat(
        fileName=path,
        datastore=store.ref,
        diskMode="persistent",
        thinProvisioned=True,
        uuid=file.uuid,
    )
    nic = Device.VirtualVmxnet3(
        key=4000,
        controllerKey=100,
        unitNumber=7,
        addressType="assigned",
        backing=Nic.NetworkBackingInfo(deviceName=network.props["name"], network=network.ref),
        connectable=Device.VirtualDevice.ConnectInfo(startConnected=True, allowGuestControl=True),
    )
    give_mac(world, nic)
    devices = [
        Device.VirtualPCIController(key=100, busNumber=0),
        Device.ParaVirtualSCSIController(
            key=1000,
            controllerKey=100,
            unitNumber=3,
            busNumber=0,
            sharedBus="noSharing",
            scsiCtlrUnitNumber=7,
        ),
        Disk(
            key=2000,
            controllerKey=1000,
            unitNumber=0,
            backing=backing,
            capacityInKB=file.capacity_kib,
            capacityInBytes=file.capacity_kib * 1024,
        ),
        nic,
    ]
    labels = ("PCI controller 0", "SCSI controller 0", "Hard disk 1", "Network adapter 1")
    for device, label in zip(devices, labels, strict=True):
        device.deviceInfo = vim.Description(label=label, summary=label)
    return devices


@derives(vim.VirtualMachine, "environmentBrowser")
def _environment(_world: World, _record: Record) -> Any:
    return ENVIRONMENT


@derives(vim.ManagedEntity, "overallStatus")
@derives(vim.ManagedEntity, "configStatus")
def _status(_world: World, _record: Record) -> Any:
    return vim.ManagedEntity.Status.green


@derives(vim.Folder, "childEntity")
def _child_entities(world: World, record: Record) -> Any:
    return [
        one.ref for one in world.of_type(vim.ManagedEntity) if one.props.get("parent") == record.ref
    ]


def _vms(world: World, wanted: Any) -> list[Any]:
    return [vm.ref for vm in world.of_type(vim.VirtualMachine) if wanted(vm)]


@derives(vim.HostSystem, "vm")
def _host_vms(world: World, record: Record) -> Any:
    return _vms(world, lambda vm: vm.props["runtime"].host == record.ref)


@derives(vim.ResourcePool, "vm")
def _pool_vms(world: World, record: Record) -> Any:
    return _vms(world, lambda vm: vm.props["resourcePool"] == record.ref)


@derives(vim.Network, "vm")
def _network_vms(world: World, record: Record) -> Any:
    return _vms(world, lambda vm: record.ref in world.read(vm, "network"))


@derives(vim.Datastore, "vm")
def _datastore_vms(world: World, record: Record) -> Any:
    return _vms(world, lambda vm: record.ref in world.read(vm, "datastore"))


@derives(vim.Network, "summary")
def _network_summary(_world: World, record: Record) -> Any:
    return vim.Network.Summary(network=record.ref, name=record.props["name"], accessible=True)


@derives(vim.Network, "host")
def _network_hosts(world: World, _record: Record) -> Any:
    return [host.ref for host in world.of_type(vim.HostSystem)]


@derives(vim.Datastore, "host")
def _datastore_hosts(world: World, record: Record) -> Any:
    return [
        vim.Datastore.HostMount(
            key=host.ref,
            mountInfo=vim.host.MountInfo(accessMode="readWrite", mounted=True, accessible=True),
        )
        for host in world.of_type(vim.HostSystem)
        if record.ref in host.props["datastore"]
    ]


@derives(vim.HostSystem, "runtime")
def _host_runtime(_world: World, _record: Record) -> Any:
    return vim.host.RuntimeInfo(
        connectionState="connected", powerState="poweredOn", inMaintenanceMode=False
    )


@derives(vim.HostSystem, "summary")
def _host_summary(world: World, record: Record) -> Any:
    return vim.host.Summary(
        host=record.ref,
        hardware=vim.host.Summary.HardwareSummary(
            vendor="labctl",
            model="simulated host",
            uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, record.props["name"])),
            memorySize=HOST_MEMORY_GIB * GIB,
            numCpuCores=HOST_CORES,
            numCpuThreads=HOST_CORES,
            numCpuPkgs=1,
            cpuMhz=2400,
        ),
        runtime=_host_runtime(world, record),
        config=vim.host.Summary.ConfigSummary(
            name=record.props["name"], port=443, vmotionEnabled=False
        ),
        overallStatus="green",
        rebootRequired=False,
    )


@derives(vim.ClusterComputeResource, "summary")
def _cluster_summary(_world: World, record: Record) -> Any:
    count = len(record.props["host"])
    return vim.ClusterComputeResource.Summary(
        numHosts=count,
        numEffectiveHosts=count,
        numCpuCores=count * HOST_CORES,
        numCpuThreads=count * HOST_CORES,
        totalCpu=count * HOST_CORES * 2400,
        totalMemory=count * HOST_MEMORY_GIB * GIB,
        effectiveCpu=count * HOST_CORES * 2400,
        effectiveMemory=count * HOST_MEMORY_GIB * 1024,
        overallStatus="green",
    )
