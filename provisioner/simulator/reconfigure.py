"""What a ConfigSpec does to a VM's configuration; CloneVM and ReconfigVM share it."""

from __future__ import annotations

import copy
import re
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import complete
from provisioner.simulator.devices import Change, change_devices
from provisioner.simulator.machine import VM, Machine, Power, set_options
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import World, now

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NAME_CHARS = 80
MEMORY_STEP_MIB = 4
HARDWARE: dict[str, tuple[str, Any]] = {
    "numCPUs": ("numCPU", vim.fault.CpuHotPlugNotSupported),
    "memoryMB": ("memoryMB", vim.fault.MemoryHotPlugNotSupported),
    "numCoresPerSocket": ("numCoresPerSocket", vim.fault.CpuHotPlugNotSupported),
}
"""ConfigSpec's sizes: their place in the hardware, and the refusal while the VM runs."""
OWN_WAY = {
    *HARDWARE,
    "changeVersion",
    "name",
    "uuid",
    "instanceUuid",
    "extraConfig",
    "deviceChange",
}
_UNESCAPED = re.compile(r"[/\\]|%(?!2[fF5]|5[cC])")


@contextmanager
def all_or_nothing(world: World) -> Iterator[None]:
    """Bring the datastores' files back when the block raises. Hold the lock around it."""
    before = copy.deepcopy(world.files)
    try:
        yield
    except BaseException:
        world.files = before
        raise


def escape_name(name: str) -> str:
    """Return a name as vSphere keeps it: slash, backslash and percent escaped."""
    return _UNESCAPED.sub(lambda found: f"%{ord(found[0]):02x}", name)


def check_name(world: World, folder: Any, name: str) -> str:
    """Return a new VM's name as it is kept.

    Raises:
        vim.fault.InvalidName: empty or longer than vSphere takes.
        vim.fault.DuplicateName: the folder has an object, or a clone under way, of that name.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")
    name = escape_name(name)
    message = f"The name '{name}' already exists."
    for ref in world.read(world.get(folder), "childEntity"):
        if world.entity_name(ref) == name:
            raise vim.fault.DuplicateName(name=name, object=ref, msg=message)
    if (folder._GetMoId(), name) in world.reserved_names:  # noqa: SLF001 - pyVmomi's public accessor
        raise vim.fault.DuplicateName(name=name, object=folder, msg=message)
    return name


def _set_uuids(change: Change, spec: Any) -> None:
    """Take the UUIDs asked for; vCenter gives another instance UUID when that one is in use."""
    for name in ("uuid", "instanceUuid"):
        if not (wanted := getattr(spec, name)):
            continue
        try:
            text = str(uuid.UUID(wanted))
        except ValueError:
            raise vmodl.fault.InvalidArgument(invalidProperty=f"configSpec.{name}") from None
        others = {
            vm.config.instanceUuid for vm in change.world.of_type(VM) if vm.moid != change.owner
        }
        taken = name == "instanceUuid" and text in others
        setattr(change.config, name, str(uuid.uuid4()) if taken else text)


def _set_sizes(change: Change, spec: Any) -> None:
    for name, (place, hot_fault) in HARDWARE.items():
        value = getattr(spec, name)
        if value is None or value == getattr(change.config.hardware, place):
            continue
        if value < 1 or (name == "memoryMB" and value % MEMORY_STEP_MIB):
            raise vmodl.fault.InvalidArgument(invalidProperty=f"configSpec.{name}")
        if change.powered_on:
            raise hot_fault(msg=f"{name} cannot change while the VM is powered on")
        setattr(change.config.hardware, place, int(value))


def _set_rest(config: Any, spec: Any) -> None:
    """Take every other value that the configuration simply keeps; refuse what it has no place for."""
    kept = {info.name: info.type for info in config._GetPropertyList()}  # noqa: SLF001 - pyVmomi's public metadata
    for info in spec._GetPropertyList():  # noqa: SLF001 - as above
        value = getattr(spec, info.name)
        if info.name in OWN_WAY or value is None or value == []:
            continue
        if info.name == "files" or kept.get(info.name) is not info.type:
            raise vmodl.fault.NotSupported(msg=f"configSpec.{info.name} is not simulated")
        setattr(config, info.name, value)


def apply_spec(change: Change, spec: Any) -> None:
    """Edit a configuration as a ConfigSpec says, its name aside. Call it under the lock.

    Raises:
        vmodl.MethodFault: as a real vCenter refuses; the configuration is then half done, so
            give a copy, and the files are ``all_or_nothing``'s care.
    """
    _set_uuids(change, spec)
    _set_sizes(change, spec)
    _set_rest(change.config, spec)
    set_options(change.config, {item.key: str(item.value) for item in spec.extraConfig})
    change_devices(change, spec.deviceChange)
    change.config.changeVersion, change.config.modified = now().isoformat(), now()
    complete(change.config)


@task(VM, "ReconfigVM_Task")
def reconfigure(run: TaskRun) -> None:
    """Change a VM's configuration, all of it or nothing."""
    world, vm, spec = run.world, run.target, run.args.spec
    with world.changed, all_or_nothing(world):
        if vm.config.template:
            raise vmodl.fault.NotSupported(msg="a template cannot be reconfigured")
        if spec.changeVersion and spec.changeVersion != vm.config.changeVersion:
            raise vim.fault.ConcurrentAccess(msg="the VM changed since changeVersion")
        config = copy.deepcopy(vm.config)
        change = Change(world, config, vm.moid, vm.folder, powered_on=vm.power != Power.poweredOff)
        apply_spec(change, spec)
        if spec.name and escape_name(spec.name) != config.name:
            config.name = check_name(world, vm.props["parent"], spec.name)
        vm.props["config"] = config
        for item in spec.extraConfig:
            vm.told.pop(item.key, None)
        world.log_event(
            vim.event.VmReconfiguredEvent, vm, f"Reconfigured {config.name}", configSpec=spec
        )
        world.touch(vm, *world.of_type(vim.Datastore), world.get(vm.props["parent"]))


@task(vim.ManagedEntity, "Rename_Task")
def rename(run: TaskRun) -> None:
    """Rename a VM."""
    world, vm = run.world, run.target
    with world.changed:
        if not isinstance(vm, Machine):
            raise vmodl.fault.NotSupported(msg="only VMs can be renamed here")
        old, vm.config.name = (
            vm.config.name,
            check_name(world, vm.props["parent"], run.args.newName),
        )
        message = f"Renamed {old} to {vm.config.name}"
        world.log_event(vim.event.VmRenamedEvent, vm, message, oldName=old, newName=vm.config.name)
        world.touch(vm)
