"""Snapshots: made, reverted to and removed, the disk chain of the configuration included.

A snapshot here holds no memory, whatever is asked: its SnapshotTree says poweredOff, and so is the
VM after a revert.
"""

from __future__ import annotations

import copy
import itertools
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.datastores import DELTA_BYTES, add_file, remove_files
from provisioner.simulator.devices import Disk, chain, of_kind
from provisioner.simulator.machine import VM, Machine, Power, Snapshot, set_power
from provisioner.simulator.reconfigure import all_or_nothing
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import DatastoreFile, World

if TYPE_CHECKING:
    from collections.abc import Iterable


def _start_deltas(world: World, vm: Machine, config: Any) -> None:
    """Let every disk go on in a new child file, as vSphere does at a snapshot."""
    for disk in of_kind(config, Disk):
        below = disk.backing
        stem = re.sub(r"(-\d{6})?\.vmdk$", "", below.fileName)
        names = (f"{stem}-{number:06}.vmdk" for number in itertools.count(1))
        path = next(name for name in names if name not in world.files)
        file = DatastoreFile(DELTA_BYTES, disk.capacityInKB, vm.moid, below.uuid)
        disk.backing = copy.copy(below)
        disk.backing.fileName, disk.backing.parent = add_file(world, path, file), below


def _drop_deltas(world: World, vm: Machine) -> None:
    """Delete the files that the VM wrote since its last snapshot."""
    for disk in of_kind(vm.config, Disk):
        if disk.backing.parent and world.files[disk.backing.fileName].owner == vm.moid:
            remove_files(world, [disk.backing.fileName])


def _consolidate(world: World, vm: Machine) -> None:
    """Merge each disk's chain into the VM's lowest own file, once no snapshot needs it."""
    kept = set()
    for disk in of_kind(vm.config, Disk):
        own = [one for one in chain(disk.backing) if world.files[one.fileName].owner == vm.moid]
        disk.backing = own[-1] if own else disk.backing
        kept.add(disk.backing.fileName)
    owned = [path for path, file in world.files.items() if file.owner == vm.moid]
    remove_files(world, [path for path in owned if path.endswith(".vmdk") and path not in kept])


@task(VM, "CreateSnapshot_Task")
def create(run: TaskRun) -> Any:
    """Take a snapshot of the disks."""
    world, vm, args = run.world, run.target, run.args
    with world.changed:
        if vm.config.template:
            raise vmodl.fault.NotSupported(msg="a template takes no snapshots")
        if not args.name:
            raise vim.fault.InvalidName(name=args.name)
        snapshot = Snapshot(world, vm, name=args.name, description=args.description or "", disk="")
    snapshot.disk = world.guests.snapshot(vm.moid, snapshot.moid)
    with world.changed, all_or_nothing(world):
        add(world, vm, snapshot)
    return snapshot.ref


def add(world: World, vm: Machine, snapshot: Snapshot) -> None:
    """Put a snapshot into its VM's tree and make it the current one. Call it under the lock."""
    config = copy.deepcopy(vm.config)
    snapshot.props["config"] = vm.config
    _start_deltas(world, vm, config)
    vm.props["config"] = config
    (snapshot.parent.children if snapshot.parent else vm.roots).append(snapshot)
    vm.current = snapshot
    world.add(snapshot)
    world.touch(vm, *(record for record in (snapshot.parent,) if record))


def _revert(run: TaskRun, snapshot: Snapshot) -> None:
    world, vm = run.world, snapshot.vm
    world.guests.revert(vm.moid, snapshot.disk)
    with world.changed, all_or_nothing(world):
        set_power(world, vm, Power.poweredOff)
        _drop_deltas(world, vm)
        config = copy.deepcopy(snapshot.props["config"])
        config.name = vm.config.name
        _start_deltas(world, vm, config)
        vm.props["config"], vm.current = config, snapshot
        world.touch(vm)


def _remove(world: World, vm: Machine, snapshots: Iterable[Snapshot]) -> None:
    """Forget snapshots; those below them move up."""
    for snapshot in snapshots:
        if snapshot.disk not in world.template_disks:
            world.guests.remove_snapshot(snapshot.disk)
        with world.changed:
            siblings = snapshot.parent.children if snapshot.parent else vm.roots
            at = siblings.index(snapshot)
            siblings[at : at + 1] = snapshot.children
            for child in snapshot.children:
                child.parent = snapshot.parent
            if vm.current is snapshot:
                vm.current = snapshot.parent
            if not vm.roots:
                _consolidate(world, vm)
            world.remove(snapshot)
            world.touch(vm)


@task(vim.vm.Snapshot, "RevertToSnapshot_Task")
def revert(run: TaskRun) -> None:
    """Bring the VM back to a snapshot; it is powered off then."""
    with run.target.vm.busy:
        _revert(run, run.target)


@task(VM, "RevertToCurrentSnapshot_Task")
def revert_to_current(run: TaskRun) -> None:
    """Bring the VM back to the snapshot it goes on from."""
    if run.target.current is None:
        raise vim.fault.NotFound(msg="the VM has no snapshot")
    _revert(run, run.target.current)


@task(vim.vm.Snapshot, "RemoveSnapshot_Task")
def remove(run: TaskRun) -> None:
    """Forget a snapshot, and those below it when asked."""
    snapshot: Snapshot = run.target
    with snapshot.vm.busy:
        doomed = list(snapshot.family()) if run.args.removeChildren else [snapshot]
        _remove(run.world, snapshot.vm, reversed(doomed))


@task(VM, "RemoveAllSnapshots_Task")
def remove_all(run: TaskRun) -> None:
    """Forget every snapshot of a VM."""
    doomed = [one for root in run.target.roots for one in root.family()]
    _remove(run.world, run.target, reversed(doomed))
