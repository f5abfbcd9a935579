"""CloneVM_Task: linked and full clones, with the CloneSpec honoured or refused, never ignored."""

from __future__ import annotations

import copy
import itertools
import uuid
from contextlib import nullcontext
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import fields_of, moid_of
from provisioner.simulator.datastores import DELTA_BYTES, add_file, remove_files
from provisioner.simulator.devices import (
    Change,
    Disk,
    Nic,
    chain,
    change_devices,
    give_mac,
    of_kind,
)
from provisioner.simulator.folders import check_name
from provisioner.simulator.machine import VM, Machine, Power, set_options
from provisioner.simulator.power import power_on, require_power
from provisioner.simulator.reconfigure import all_or_nothing, apply_spec
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import Call, DatastoreFile, World, answers

LINKED = "createNewChildDiskBacking"
MOVES = (
    None,
    LINKED,
    "moveAllDiskBackingsAndDisallowSharing",
    "moveAllDiskBackingsAndAllowSharing",
)
SIMULATED = {
    "location": {"pool", "host", "datastore", "diskMoveType", "deviceChange", "folder"},
    "spec": {"location", "template", "config", "powerOn", "snapshot", "memory"},
}
VMX_BYTES = 4096


def _refuse_unknown(what: str, spec: Any) -> None:
    """Refuse every part of a spec that would otherwise be silently ignored."""
    for info in fields_of(type(spec)):
        if getattr(spec, info.name) and info.name not in SIMULATED[what]:
            raise vmodl.fault.NotSupported(msg=f"{what}.{info.name} is not simulated")


def _invalid(name: str, why: str) -> Exception:
    message = f"A specified parameter was not correct: {name}: {why}"
    fault: Exception = vmodl.fault.InvalidArgument(invalidProperty=name, msg=message)
    return fault


def _place(world: World, source: Machine, location: Any) -> tuple[Any, Any, Any]:
    """Choose the pool, host and datastore of a new VM, as records.

    Raises:
        vmodl.fault.InvalidArgument: one of them is unknown, the pool of a template's clone is
            missing, or they do not belong together.
    """
    found = {}
    kinds = (("pool", vim.ResourcePool), ("host", vim.HostSystem), ("datastore", vim.Datastore))
    for name, kind in kinds:
        ref = getattr(location, name)
        found[name] = world.find(ref) if isinstance(ref, kind) else None
        if ref is not None and found[name] is None:
            raise _invalid(f"spec.location.{name}", "there is no such object")
    pool = found["pool"] or world.find(source.props["resourcePool"])
    if pool is None:
        raise _invalid("spec.location.pool", "a clone of a template needs one")
    hosts = world.get(pool.props["owner"]).props["host"]
    running = [vm.props["runtime"].host for vm in world.of_type(VM)]
    host = found["host"] or world.get(min(hosts, key=running.count))
    if host.ref not in hosts:
        raise _invalid("spec.location.host", "the host is not in the pool's cluster")
    disks = of_kind(source.config, Disk)
    datastore = found["datastore"] or world.get(disks[0].backing.datastore)
    if datastore.ref not in host.props["datastore"]:
        raise _invalid("spec.location.datastore", "the host cannot reach the datastore")
    return pool, host, datastore


def _snapshot_of(world: World, source: Machine, spec: Any) -> Any:
    """Return the snapshot a clone starts from, None for the VM's own disks."""
    snapshot = world.find(spec.snapshot)
    if spec.snapshot is not None and (snapshot is None or snapshot.vm is not source):
        raise _invalid("spec.snapshot", "it is no snapshot of the source")
    move = spec.location.diskMoveType
    if move not in MOVES or (move == LINKED and source.config.template):
        raise vmodl.fault.NotSupported(msg=f"diskMoveType {move} is not possible here")
    if move == LINKED and snapshot is None:
        raise _invalid("spec.snapshot", "a linked clone needs a snapshot")
    return snapshot


def _new_folder(world: World, datastore: Any, name: str) -> str:
    """Return the datastore folder of a new VM: its name, with a number when that is taken."""
    tries = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
    paths = (f"[{datastore.props['name']}] {one}" for one in tries)
    taken = {file.rpartition("/")[0] for file in world.files}
    return next(path for path in paths if path not in taken)


def _clone_disks(change: Change, datastore: Any, *, linked: bool) -> None:
    """Give every disk of the new VM a file of its own, a child of the source's when linked."""
    world, base = change.world, change.folder.partition("] ")[2]
    for number, disk in enumerate(of_kind(change.config, Disk)):
        source, suffix = disk.backing, f"_{number}" if number else ""
        used = sum(world.files[one.fileName].size_bytes for one in chain(source))
        file = DatastoreFile(DELTA_BYTES if linked else used, disk.capacityInKB, change.owner)
        disk.backing = copy.copy(source)
        disk.backing.fileName = add_file(world, f"{change.folder}/{base}{suffix}.vmdk", file)
        disk.backing.uuid, disk.backing.datastore = file.uuid, datastore.ref
        disk.backing.parent = source if linked else None
        disk.diskObjectId = f"{change.owner.removeprefix('vm-')}-{disk.key}"


def _build(run: TaskRun, moid: str) -> tuple[Machine, str]:
    """Decide everything about the new VM and make its files; returns it and its source disk."""
    world, source, spec = run.world, run.target, run.args.spec
    _refuse_unknown("spec", spec)
    _refuse_unknown("location", spec.location)
    folder = world.get(spec.location.folder or run.args.folder)
    if "VirtualMachine" not in (folder.props.get("childType") or ()):
        raise _invalid("folder", "it holds no virtual machines")
    name = check_name(world, folder.ref, run.args.name)
    snapshot = _snapshot_of(world, source, spec)
    pool, host, datastore = _place(world, source, spec.location)
    config = copy.deepcopy(snapshot.props["config"] if snapshot else source.config)
    if not snapshot:
        set_options(config, source.told)
    config.name, config.template, config.createDate = name, bool(spec.template), world.now()
    config.uuid, config.instanceUuid = str(uuid.uuid4()), str(uuid.uuid4())
    change = Change(world, config, moid, _new_folder(world, datastore, name))
    vmx = f"{change.folder}/{change.folder.partition('] ')[2]}.vmx"
    config.files.vmPathName = add_file(world, vmx, DatastoreFile(VMX_BYTES, owner=moid))
    _clone_disks(change, datastore, linked=spec.location.diskMoveType == LINKED)
    for nic in of_kind(config, Nic):
        give_mac(world, nic)
    change_devices(change, spec.location.deviceChange)
    apply_spec(change, spec.config or vim.vm.ConfigSpec())
    resource_pool = None if spec.template else pool.ref
    places = {"host": host.ref, "parent": folder.ref, "resourcePool": resource_pool}
    return Machine(moid, config, "", **places), snapshot.disk if snapshot else source.disk


def _reads_own_disks(args: Any) -> bool:
    return args.spec.snapshot is None


@task(VM, "CloneVM_Task", cancelable=True, exclusive=False, claims=_reads_own_disks)
def _clone(run: TaskRun) -> Any:
    """Clone a VM; a canceled or failed clone leaves nothing behind."""
    world, source, moid = run.world, run.target, run.world.new_id("vm")
    with all_or_nothing(world):
        vm, source_disk = _build(run, moid)
        reserved = (moid_of(vm.props["parent"]), vm.config.name)
        world.reserved_names.add(reserved)
    run.update(progress=10)
    try:
        with source.busy if source_disk == source.disk else nullcontext():
            vm.disk = world.guests.clone_disk(source_disk, moid)
        run.check_cancelled()
        run.update(progress=90)
        with vm.busy:
            with world.changed:
                world.add(vm)
                world.touch(*vm.places(world), *world.of_type(vim.Network))
                argument = vim.event.VmEventArgument(name=source.config.name, vm=source.ref)
                message = f"Cloned {source.config.name} to {vm.config.name}"
                world.log_event(vim.event.VmClonedEvent, vm, message, sourceVm=argument)
            if run.args.spec.powerOn:
                power_on(world, vm)
    except BaseException:
        if world.find(vm.ref) is None:
            world.guests.destroy(moid)
            with world.changed:
                owned = [path for path, file in world.files.items() if file.owner == moid]
                remove_files(world, owned)
        raise
    finally:
        world.reserved_names.discard(reserved)
    return vm.ref


@answers(VM, "MarkAsTemplate")
def _mark_as_template(call: Call) -> None:
    require_power(call.record, Power.poweredOff)
    call.record.config.template, call.record.props["resourcePool"] = True, None
    call.world.touch(call.record)


@answers(VM, "MarkAsVirtualMachine")
def _mark_as_virtual_machine(call: Call) -> None:
    vm, location = call.record, vim.vm.RelocateSpec(pool=call.args.pool, host=call.args.host)
    pool, host, _ = _place(call.world, vm, location)
    vm.config.template, vm.props["resourcePool"] = False, pool.ref
    vm.props["runtime"].host = host.ref
    call.world.touch(vm)
