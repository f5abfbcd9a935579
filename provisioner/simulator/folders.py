"""Names and folders: what a new VM may be called, renaming, moving; folders made and removed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import moid_of
from provisioner.simulator.machine import Machine, Power, require_allowed, set_changed
from provisioner.simulator.permissions import list_below
from provisioner.simulator.power import destroy, forget, require_power
from provisioner.simulator.tasks import TaskRun, require_idle, task
from provisioner.simulator.world import Call, Record, World, answers

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME_CHARS = 80
_UNESCAPED = re.compile(r"[/\\]|%(?!2[fF5]|5[cC])")


def check_name(world: World, folder: Any, name: str) -> str:
    """Return a new name as vSphere keeps it: slash, backslash and percent escaped.

    Raises:
        vim.fault.InvalidName: empty or longer than vSphere takes.
        vim.fault.DuplicateName: the folder has an object, or a clone under way, of that name.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")
    name = _UNESCAPED.sub(lambda found: f"%{ord(found[0]):02x}", name)
    children = world.read(world.get(folder), "childEntity")
    taken = [ref for ref in children if world.name_of(ref) == name]
    if taken or (moid_of(folder), name) in world.reserved_names:
        message = f"The name '{name}' already exists."
        raise vim.fault.DuplicateName(name=name, object=[*taken, folder][0], msg=message)
    return name


@task(vim.ManagedEntity, "Rename_Task")
def _rename(run: TaskRun) -> None:
    world, record = run.world, run.target
    with world.changed:
        old = world.name_of(record.ref)
        new = check_name(world, record.props.get("parent"), run.args.newName)
        if isinstance(record, Machine):
            record.config.name = new
            set_changed(world, record.config)
            message = f"Renamed {old} to {new}"
            world.log_event(vim.event.VmRenamedEvent, record, message, oldName=old, newName=new)
        elif _holds_vms(record):
            record.props["name"] = new
        else:
            raise vmodl.fault.NotSupported(msg="only VMs and their folders can be renamed here")
        world.touch(record)


def _holds_vms(record: Record) -> bool:
    return "VirtualMachine" in (record.props.get("childType") or ())


@task(vim.Folder, "MoveIntoFolder_Task")
def _move_into(run: TaskRun) -> None:
    """Move VMs into a folder, all of them or none."""
    world, folder = run.world, run.target
    with world.changed:
        vms = [world.get(ref) for ref in run.args.list]
        if not _holds_vms(folder) or not all(isinstance(vm, Machine) for vm in vms):
            raise vmodl.fault.NotSupported(msg="only VMs can be moved here, into their folders")
        for vm in vms:
            check_name(world, folder.ref, vm.config.name)
        world.touch(*vms, folder, *(world.find(vm.props["parent"]) for vm in vms))
        for vm in vms:
            vm.props["parent"] = folder.ref


@answers(vim.Folder, "CreateFolder")
def _create_folder(call: Call) -> Any:
    world, parent = call.world, call.record
    if not _holds_vms(parent):
        raise vmodl.fault.NotSupported(msg="only folders of VMs can be made here")
    name = check_name(world, parent.ref, call.args.name)
    props = {"name": name, "parent": parent.ref, "childType": parent.props["childType"]}
    world.touch(parent)
    return world.add(Record(vim.Folder(world.new_id("group")), **props)).ref


def _remove(run: TaskRun, act: Callable[[World, Machine], None], *allowed: Any) -> None:
    """Do to every VM below a folder, if all allow it, what lets the folders go."""
    world, folder = run.world, run.target
    with world.changed:
        if not _holds_vms(folder) or not isinstance(folder.props["parent"], vim.Folder):
            raise vmodl.fault.NotSupported(msg="only folders of VMs that somebody made can go")
        below = list_below(world, folder)
        vms = [one for one in below if isinstance(one, Machine)]
        for vm in vms:
            require_allowed(vm, "Destroy_Task" if act is destroy else "UnregisterVM")
            require_idle(vm, exclusive=True)
            require_power(vm, *allowed)
    for vm in vms:
        with vm.busy:
            act(world, vm)
    with world.changed:
        world.touch(world.get(folder.props["parent"]))
        world.remove(folder, *(one for one in below if one not in vms))


@task(vim.Folder, "Destroy_Task")
def _destroy(run: TaskRun) -> None:
    """Remove a folder, and every VM below it with all its disks."""
    _remove(run, destroy, Power.poweredOff)


@task(vim.Folder, "UnregisterAndDestroy_Task")
def _unregister(run: TaskRun) -> None:
    """Remove a folder; the files of the VMs below it stay."""
    _remove(run, forget, Power.poweredOff, Power.suspended)
