"""Snapshots: made, reverted to and removed, the disk chain of the configuration included.

A snapshot here holds no memory, whatever is asked: it says poweredOff, and so is the VM after a
revert.
"""

from __future__ import annotations

import copy
import itertools
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.datastores import DELTA_BYTES, add_file, remove_files
from provisioner.simulator.devices import Disk, chain, of_kind, parents_of_others
from provisioner.simulator.machine import VM, Machine, Power, Snapshot, set_options, set_power
from provisioner.simulator.reconfigure import all_or_nothing
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import Call, DatastoreFile, World, answers

if TYPE_CHECKING:
    from collections.abc import Iterable


def _go_on_from(world: World, vm: Machine, config: Any) -> None:
    """Let the VM go on from a configuration, every disk in a new child file."""
    config = copy.deepcopy(config)
    for disk in of_kind(config, Disk):
        below = disk.backing
        stem = re.sub(r"(-\d{6})?\.vmdk$", "", below.fileName)
        names = (f"{stem}-{number:06}.vmdk" for number in itertools.count(1))
        path = next(name for name in names if name not in world.files)
        file = DatastoreFile(DELTA_BYTES, disk.capacityInKB, vm.vm_id, below.uuid)
        disk.backing = copy.copy(below)
        disk.backing.fileName, disk.backing.parent = add_file(world, path, file), below
    vm.props["config"] = config
    world.touch(vm)


def add_snapshot(world: World, vm: Machine, snapshot: Snapshot) -> None:
    """Put a snapshot into its VM's tree and make it the current one. Call it under the lock."""
    config = vm.config
    _go_on_from(world, vm, config)
    set_options(config, vm.told)
    snapshot.props["config"] = config
    (snapshot.parent.children if snapshot.parent else vm.roots).append(snapshot)
    vm.current = snapshot
    world.add(snapshot)
    world.touch(snapshot.parent)


@answers(vim.vm.Snapshot, "RenameSnapshot")
def _rename(call: Call) -> None:
    named = {name: getattr(call.args, name) for name in ("name", "description")}
    if named["name"] == "":
        raise vim.fault.InvalidName(name="")
    call.record.node |= {name: value for name, value in named.items() if value is not None}
    call.world.touch(call.record.vm)


@task(VM, "CreateSnapshot_Task")
def _create(run: TaskRun) -> Any:
    world, vm, args = run.world, run.target, run.args
    with world.changed:
        if vm.config.template:
            raise vmodl.fault.NotSupported(msg="a template takes no snapshots")
        if not args.name:
            raise vim.fault.InvalidName(name=args.name)
        snapshot = Snapshot(world, vm, args.name, args.description or "", "")
    snapshot.disk = world.guests.snapshot(vm.vm_id, snapshot.moid)
    try:
        with all_or_nothing(world):
            add_snapshot(world, vm, snapshot)
    except vmodl.MethodFault:
        world.guests.remove_snapshot(snapshot.disk)
        raise
    return snapshot.ref


def _revert(world: World, vm: Machine, snapshot: Snapshot) -> None:
    """Bring a VM back to a snapshot; what it wrote since its last one is gone."""
    world.guests.revert(vm.vm_id, snapshot.disk)
    with all_or_nothing(world):
        set_power(world, vm, Power.poweredOff)
        name = vm.config.name
        tops = [disk.backing for disk in of_kind(vm.config, Disk) if disk.backing.parent]
        own = [top.fileName for top in tops if world.files[top.fileName].owner == vm.vm_id]
        remove_files(world, own)
        _go_on_from(world, vm, snapshot.props["config"])
        vm.config.name, vm.current = name, snapshot


def _remove(world: World, vm: Machine, snapshots: Iterable[Snapshot]) -> None:
    """Forget snapshots, those below first; what is below a removed one moves up."""
    for snapshot in snapshots:
        if snapshot.disk not in world.template_disks:
            world.guests.remove_snapshot(snapshot.disk)
        with world.changed:
            siblings = snapshot.parent.children if snapshot.parent else vm.roots
            at = siblings.index(snapshot)
            siblings[at : at + 1] = snapshot.children
            for child in snapshot.children:
                child.parent = snapshot.parent
            vm.current = snapshot.parent if vm.current is snapshot else vm.current
            world.remove(snapshot)
            if not vm.roots:
                _consolidate(world, vm)
            world.touch(vm, snapshot.parent)


def _consolidate(world: World, vm: Machine) -> None:
    """Merge each disk's chain into the VM's lowest own file, once no snapshot needs it."""
    kept = parents_of_others(world, vm.vm_id)
    for disk in of_kind(vm.config, Disk):
        own = [one for one in chain(disk.backing) if world.files[one.fileName].owner == vm.vm_id]
        free = [one for one in own if one.fileName not in kept]
        disk.backing = free[-1] if free else disk.backing
        kept.add(disk.backing.fileName)
    owned = [path for path, file in world.files.items() if file.owner == vm.vm_id]
    remove_files(world, [path for path in owned if path.endswith(".vmdk") and path not in kept])


@task(vim.vm.Snapshot, "RevertToSnapshot_Task")
def _revert_to(run: TaskRun) -> None:
    _revert(run.world, run.target.vm, run.target)


@task(VM, "RevertToCurrentSnapshot_Task")
def _revert_to_current(run: TaskRun) -> None:
    if run.target.current is None:
        raise vim.fault.NotFound(msg="the VM has no snapshot")
    _revert(run.world, run.target, run.target.current)


@task(vim.vm.Snapshot, "RemoveSnapshot_Task")
def _remove_one(run: TaskRun) -> None:
    snapshot: Snapshot = run.target
    doomed = list(snapshot.family()) if run.args.removeChildren else [snapshot]
    _remove(run.world, snapshot.vm, reversed(doomed))


@task(VM, "RemoveAllSnapshots_Task")
def _remove_all(run: TaskRun) -> None:
    _remove(run.world, run.target, reversed(run.target.snapshots))
