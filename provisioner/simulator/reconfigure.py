"""What a ConfigSpec does to a VM's configuration; CloneVM and ReconfigVM share it."""

from __future__ import annotations

import copy
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import complete, fields_of
from provisioner.simulator.devices import Change, change_devices
from provisioner.simulator.folders import check_name
from provisioner.simulator.machine import VM, Machine, Power, set_changed, set_options
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def all_or_nothing(world: World) -> Iterator[None]:
    """Hold the lock, and bring the datastores' files back when the block raises."""
    with world.changed:
        before = {path: copy.copy(file) for path, file in world.files.items()}
        try:
            yield
        except BaseException:
            world.files = before
            raise


def _set_uuids(change: Change, spec: Any) -> None:
    """Take the UUIDs asked for; vCenter gives another instance UUID when that one is in use."""
    others = (vm for vm in change.world.of_type(VM) if vm.vm_id != change.owner)
    used = {vm.config.instanceUuid for vm in others}
    for name in ("uuid", "instanceUuid"):
        if wanted := getattr(spec, name):
            try:
                text = str(uuid.UUID(wanted))
            except ValueError:
                raise vmodl.fault.InvalidArgument(invalidProperty=f"configSpec.{name}") from None
            is_taken = name == "instanceUuid" and text in used
            setattr(change.config, name, str(uuid.uuid4()) if is_taken else text)


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


def apply_spec(change: Change, spec: Any) -> None:
    """Edit a configuration as a ConfigSpec says, its name aside; what is not simulated is refused.

    Raises:
        vmodl.MethodFault: as a real vCenter refuses. The configuration is then half done, so give
            a copy, inside ``all_or_nothing``.
    """
    _set_uuids(change, spec)
    _set_sizes(change, spec)
    kept = {info.name: info.type for info in fields_of(type(change.config)) if info.name != "files"}
    for info in fields_of(type(spec)):
        value = getattr(spec, info.name)
        if info.name not in OWN_WAY and value is not None and value != []:
            if kept.get(info.name) is not info.type:
                raise vmodl.fault.NotSupported(msg=f"configSpec.{info.name} is not simulated")
            setattr(change.config, info.name, value)
    set_options(change.config, {item.key: str(item.value) for item in spec.extraConfig})
    change_devices(change, spec.deviceChange)
    set_changed(change.world, change.config)
    complete(change.config)


@task(VM, "ReconfigVM_Task")
def _reconfigure(run: TaskRun) -> None:
    """Change a VM's configuration, all of it or nothing."""
    world, vm, spec = run.world, run.target, run.args.spec
    with all_or_nothing(world):
        if vm.config.template:
            raise vmodl.fault.NotSupported(msg="a template cannot be reconfigured")
        if spec.changeVersion and spec.changeVersion != vm.config.changeVersion:
            raise vim.fault.ConcurrentAccess(msg="the VM changed since changeVersion")
        config = copy.deepcopy(vm.config)
        is_on = vm.power != Power.poweredOff
        apply_spec(Change(world, config, vm.vm_id, folder_of(vm), powered_on=is_on), spec)
        if spec.name and spec.name != config.name:
            config.name = check_name(world, vm.props["parent"], spec.name)
        vm.props["config"] = config
        for item in spec.extraConfig:
            vm.told.pop(item.key, None)
        message = f"Reconfigured {config.name}"
        world.log_event(vim.event.VmReconfiguredEvent, vm, message, configSpec=spec)
        world.touch(vm, *world.of_type(vim.Datastore), *world.of_type(vim.Network))
    if vm.power == Power.poweredOn and spec.deviceChange:
        world.guests.set_links(vm.hardware(world))


def folder_of(vm: Machine) -> str:
    """Return ``[datastore] folder`` of a VM's files."""
    return str(vm.config.files.vmPathName.rpartition("/")[0])
