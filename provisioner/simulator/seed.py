"""What a new simulator holds: ``inventory.json``, made into objects."""

from __future__ import annotations

import json
import uuid
from importlib import resources
from typing import TYPE_CHECKING, Any

from pyVmomi import vim
from pyVmomi.VmomiSupport import ManagedObject

from provisioner.simulator.clone import VMX_BYTES
from provisioner.simulator.codec import field_of, from_plain
from provisioner.simulator.datastores import GIB, add_file
from provisioner.simulator.devices import Disk, Nic, give_mac, of_kind
from provisioner.simulator.machine import VM, Machine, Snapshot
from provisioner.simulator.restore import remember
from provisioner.simulator.snapshots import add_snapshot
from provisioner.simulator.world import DERIVED, DatastoreFile, Record, World

if TYPE_CHECKING:
    from collections.abc import Callable


def seed(world: World) -> None:
    """Fill an empty world, its networks and guest image included."""
    table = json.loads(resources.files(__package__).joinpath("inventory.json").read_text())
    for name, plain in table["objects"].items():
        ref = from_plain(name, ManagedObject)
        values = {**table["common"].get(name.partition(":")[0], {}), **plain}
        props = {n: from_plain(one, field_of(type(ref), n).type) for n, one in values.items()}
        record = world.add(Record(ref, **props))
        if isinstance(ref, vim.HostSystem):
            record.props["summary"].host = ref
            record.props["summary"].config.name = record.props["name"]
        if isinstance(ref, vim.Network):
            record.props["summary"].network = ref
            record.props["summary"].name = record.props["name"]
        if isinstance(ref, vim.dvs.DistributedVirtualPortgroup):
            record.props["config"].type = "ephemeral"  # in the table, type is a data object's
    content = world.records["ServiceInstance"].props["content"]
    content.about.instanceUuid = world.settings.instance_uuid
    for portgroup, uplink in table["uplinks"].items():
        world.guests.ensure_network(portgroup, uplink=uplink)
    base = world.guests.ensure_template(table["guest_image"])
    world.template_disks.add(base)
    for name, plain in table["vms"].items():
        _add_vm(world, table, name, base, plain)
    remember(world, "start")


def _add_vm(world: World, table: Any, name: str, base: str, plain: dict[str, Any]) -> None:
    moid, place = world.new_id("vm"), f"[datastore-0] {name}/{name}"
    config = from_plain(table["vm_config"], vim.vm.ConfigInfo)
    config.name, config.template = name, plain.get("template", False)
    config.uuid, config.instanceUuid = str(uuid.uuid4()), str(uuid.uuid4())
    config.modified = config.createDate = world.now()
    vmx = add_file(world, f"{place}.vmx", DatastoreFile(VMX_BYTES, owner=moid))
    config.files = vim.vm.FileInfo(vmPathName=vmx)
    for disk in of_kind(config, Disk):
        file = DatastoreFile(table["disk_used_gib"] * GIB, disk.capacityInKB, moid)
        disk.backing.fileName, disk.backing.uuid = add_file(world, f"{place}.vmdk", file), file.uuid
    for nic in of_kind(config, Nic):
        give_mac(world, nic)
    places = {key: from_plain(ref, ManagedObject) for key, ref in table["vm_places"].items()}
    places["resourcePool"] = None if config.template else places["resourcePool"]
    disk_id = world.guests.clone_disk(base, moid)
    vm = world.add(Machine(moid, config, disk_id, **places))
    if snapshot := plain.get("snapshot"):
        add_snapshot(world, vm, Snapshot(world, vm, snapshot, "", base))


def _vms(shows: Callable[[World, Machine, Any], bool]) -> Callable[[World, Record], list[Any]]:
    return lambda world, one: [vm.ref for vm in world.of_type(VM) if shows(world, vm, one.ref)]


def _children(world: World, record: Record) -> list[Any]:
    entities = world.of_type(vim.ManagedEntity)
    return [one.ref for one in entities if one.props.get("parent") == record.ref]


def _mounts(world: World, record: Record) -> list[Any]:
    mount = vim.host.MountInfo(accessMode="readWrite", mounted=True, accessible=True)
    hosts = [one for one in world.of_type(vim.HostSystem) if record.ref in one.props["datastore"]]
    return [vim.Datastore.HostMount(key=host.ref, mountInfo=mount) for host in hosts]


DERIVED |= {
    (vim.ManagedEntity, "overallStatus"): lambda *_: vim.ManagedEntity.Status.green,
    (vim.ManagedEntity, "configStatus"): lambda *_: vim.ManagedEntity.Status.green,
    (vim.ServiceInstance, "serverClock"): lambda world, _: world.now(),
    (vim.Folder, "childEntity"): _children,
    (VM, "environmentBrowser"): lambda world, _: next(world.of_type(vim.EnvironmentBrowser)).ref,
    (vim.HostSystem, "vm"): _vms(lambda _, vm, ref: vm.props["runtime"].host == ref),
    (vim.ResourcePool, "vm"): _vms(lambda _, vm, ref: vm.props["resourcePool"] == ref),
    (vim.Network, "vm"): _vms(lambda world, vm, ref: ref in world.read(vm, "network")),
    (vim.Datastore, "vm"): _vms(lambda world, vm, ref: ref in world.read(vm, "datastore")),
    (vim.Datastore, "host"): _mounts,
}
