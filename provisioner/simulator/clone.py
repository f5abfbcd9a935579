"""CloneVM_Task: linked and full clones, with the CloneSpec honoured or refused, never ignored."""

from __future__ import annotations

import copy
import itertools
import uuid
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.simulator.calls import Call, answers
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
from provisioner.simulator.machine import VM, Machine, Power
from provisioner.simulator.power import power_on, require_power
from provisioner.simulator.reconfigure import all_or_nothing, apply_spec, check_name
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import DatastoreFile, World, now

LINKED = "createNewChildDiskBacking"
FULL = ("moveAllDiskBackingsAndDisallowSharing", "moveAllDiskBackingsAndAllowSharing")
SIMULATED = {
    "location": {"pool", "host", "datastore", "diskMoveType", "deviceChange", "folder"},
    "spec": {"location", "template", "config", "powerOn", "snapshot", "memory"},
}
VMX_BYTES = 4096


def _refuse_unknown(what: str, spec: Any) -> None:
    """Refuse every part of a spec that would otherwise be silently ignored."""
    for info in spec._GetPropertyList():  # noqa: SLF001 - pyVmomi's public metadata
        if getattr(spec, info.name) and info.name not in SIMULATED[what]:
            raise vmodl.fault.NotSupported(msg=f"{what}.{info.name} is not simulated")


def _invalid(name: str, why: str) -> Exception:
    fault: Exception = vmodl.fault.InvalidArgument(
        invalidProperty=name, msg=f"A specified parameter was not correct: {name}: {why}"
    )
    return fault


def _placed(world: World, ref: Any, kind: Any, name: str) -> Any:
    """Return the record a location names; None stays None."""
    if ref is None:
        return None
    record = world.find(ref)
    if record is None or not isinstance(record.ref, kind):
        raise _invalid(f"spec.location.{name}", "there is no such object")
    return record


def place(world: World, source: Machine, location: Any) -> tuple[Any, Any, Any]:
    """Choose the pool, host and datastore of a new VM, as records.

    Raises:
        vmodl.fault.InvalidArgument: one of them is unknown, the pool of a template's clone is
            missing, or they do not belong together.
    """
    pool = _placed(world, location.pool, vim.ResourcePool, "pool")
    host = _placed(world, location.host, vim.HostSystem, "host")
    datastore = _placed(world, location.datastore, vim.Datastore, "datastore")
    pool = pool or world.find(source.props["resourcePool"])
    if pool is None:
        raise _invalid("spec.location.pool", "a clone of a template needs one")
    cluster = world.get(pool.props["owner"])
    if host is not None and host.ref not in cluster.props["host"]:
        raise _invalid("spec.location.host", "the host is not in the pool's cluster")
    running = [vm.props["runtime"].host for vm in world.of_type(VM)]
    chosen = host or world.get(min(cluster.props["host"], key=running.count))
    if datastore is None:
        disks = of_kind(source.config, Disk)
        datastore = world.get(disks[0].backing.datastore)
    if datastore.ref not in chosen.props["datastore"]:
        raise _invalid("spec.location.datastore", "the host cannot reach the datastore")
    return pool, chosen, datastore


def _snapshot_of(world: World, source: Machine, spec: Any) -> Any:
    """Return the snapshot a clone starts from, None for the VM's own disks."""
    snapshot = world.find(spec.snapshot)
    if spec.snapshot is not None and (snapshot is None or snapshot.vm is not source):
        raise _invalid("spec.snapshot", "it is no snapshot of the source")
    move = spec.location.diskMoveType
    if move == LINKED:
        if source.config.template:
            raise vmodl.fault.NotSupported(msg="a template has no linked clones")
        if snapshot is None:
            raise _invalid("spec.snapshot", "a linked clone needs a snapshot")
    elif move is not None and move not in FULL:
        raise vmodl.fault.NotSupported(msg=f"diskMoveType {move} is not simulated")
    return snapshot


def _new_folder(world: World, datastore: Any, name: str) -> str:
    """Return the datastore folder of a new VM: its name, with a number when that is taken."""
    tries = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
    paths = (f"[{datastore.props['name']}] {one}" for one in tries)
    return next(
        path for path in paths if not any(one.startswith(f"{path}/") for one in world.files)
    )


def _clone_disks(change: Change, datastore: Any, *, linked: bool) -> None:
    """Give every disk of the new VM a file of its own, a child of the source's when linked."""
    world, base = change.world, change.folder.partition("] ")[2]
    for number, disk in enumerate(of_kind(change.config, Disk)):
        source = disk.backing
        suffix = f"_{number}" if number else ""
        sizes = [world.files[one.fileName].size_bytes for one in chain(source)]
        file = DatastoreFile(DELTA_BYTES if linked else sum(sizes), disk.capacityInKB, change.owner)
        path = add_file(world, f"{change.folder}/{base}{suffix}.vmdk", file)
        disk.backing = copy.copy(source)
        disk.backing.fileName, disk.backing.uuid = path, file.uuid
        disk.backing.datastore, disk.backing.parent = datastore.ref, source if linked else None
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
    pool, host, datastore = place(world, source, spec.location)
    config = copy.deepcopy(snapshot.props["config"] if snapshot else source.config)
    change = Change(world, config, moid, _new_folder(world, datastore, name))
    config.name, config.template = name, bool(spec.template)
    config.uuid, config.instanceUuid = str(uuid.uuid4()), str(uuid.uuid4())
    config.createDate = config.modified = now()
    config.files.vmPathName = add_file(
        world,
        f"{change.folder}/{change.folder.partition('] ')[2]}.vmx",
        DatastoreFile(VMX_BYTES, owner=moid),
    )
    _clone_disks(change, datastore, linked=spec.location.diskMoveType == LINKED)
    for nic in of_kind(config, Nic):
        give_mac(world, nic)
    change_devices(change, spec.location.deviceChange)
    if spec.config is not None:
        apply_spec(change, spec.config)
    vm = Machine(
        moid,
        config,
        "",
        host=host.ref,
        parent=folder.ref,
        resourcePool=None if spec.template else pool.ref,
    )
    return vm, snapshot.disk if snapshot else source.disk


def register(world: World, vm: Machine) -> None:
    """Put a VM into the inventory. Call it under the lock."""
    world.add(vm)
    places = (vm.props["parent"], vm.props["resourcePool"], vm.props["runtime"].host)
    world.touch(*(world.get(one) for one in places if one is not None))


@task(VM, "CloneVM_Task", cancelable=True, exclusive=False)
def clone(run: TaskRun) -> Any:
    """Clone a VM; a canceled or failed clone leaves nothing behind."""
    world, source, moid = run.world, run.target, run.world.new_id("vm")
    with world.changed, all_or_nothing(world):
        vm, source_disk = _build(run, moid)
        reserved = (vm.props["parent"]._GetMoId(), vm.config.name)  # noqa: SLF001 - pyVmomi's public accessor
        world.reserved_names.add(reserved)
    run.update(progress=10)
    try:
        vm.disk = world.guests.clone_disk(source_disk, moid)
        run.check_cancelled()
        run.update(progress=90)
        with vm.busy:
            with world.changed:
                register(world, vm)
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
        with world.changed:
            world.reserved_names.discard(reserved)
    return vm.ref


@answers(VM, "MarkAsTemplate")
def _mark_as_template(call: Call) -> None:
    """Make a VM a template: it has no pool and does not power on."""
    vm: Machine = call.record
    require_power(vm, Power.poweredOff)
    vm.config.template, vm.props["resourcePool"] = True, None
    call.world.touch(vm)


@answers(VM, "MarkAsVirtualMachine")
def _mark_as_virtual_machine(call: Call) -> None:
    """Make a template a VM again."""
    vm: Machine = call.record
    location = vim.vm.RelocateSpec(pool=call.args.pool, host=call.args.host)
    pool, host, _ = place(call.world, vm, location)
    vm.config.template, vm.props["resourcePool"] = False, pool.ref
    vm.props["runtime"].host = host.ref
    call.world.touch(vm)
