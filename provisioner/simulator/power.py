"""Power: on, off, reset, suspend, and what is asked of the guest; destroy and unregister."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.calls import Call, answers
from provisioner.simulator.datastores import remove_files
from provisioner.simulator.devices import Disk, of_kind, own_files
from provisioner.simulator.guests import GuestError
from provisioner.simulator.machine import VM, Machine, MachineTools, Power, set_power
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("provisioner.simulator")


def require_power(vm: Machine, *allowed: Any, wanted: Any = None) -> None:
    """Refuse a VM in another power state.

    Raises:
        vim.fault.InvalidPowerState: it is.
    """
    if vm.power not in allowed:
        raise vim.fault.InvalidPowerState(
            requestedState=wanted,
            existingState=vm.power,
            msg=f"The attempted operation cannot be performed in the current state ({vm.power}).",
        )


def _record(world: World, vm: Machine, state: Any, event: Any, what: str) -> None:
    with world.changed:
        set_power(world, vm, state)
        world.log_event(event, vm, f"{vm.config.name} {what}")


def power_on(world: World, vm: Machine) -> None:
    """Start or resume a VM's guest."""
    with world.changed:
        if vm.config.template:
            raise vmodl.fault.NotSupported(msg="a template cannot be powered on")
        require_power(vm, Power.poweredOff, Power.suspended, wanted=Power.poweredOn)
        resume, hardware = vm.power == Power.suspended, vm.hardware()
        if not resume:
            vm.guest, vm.tools = None, MachineTools(world, vm)
        tools = vm.tools
    if resume:
        world.guests.resume(vm.moid)
    elif tools is not None:
        world.guests.power_on(hardware, tools)
    _record(world, vm, Power.poweredOn, vim.event.VmPoweredOnEvent, "is powered on")


def power_off(world: World, vm: Machine) -> None:
    """Pull the plug."""
    with world.changed:
        require_power(vm, Power.poweredOn, Power.suspended, wanted=Power.poweredOff)
    world.guests.power_off(vm.moid)
    _record(world, vm, Power.poweredOff, vim.event.VmPoweredOffEvent, "is powered off")


@task(VM, "PowerOnVM_Task")
def _power_on(run: TaskRun) -> None:
    power_on(run.world, run.target)


@task(VM, "PowerOffVM_Task")
def _power_off(run: TaskRun) -> None:
    power_off(run.world, run.target)


@task(VM, "ResetVM_Task")
def _reset(run: TaskRun) -> None:
    with run.world.changed:
        require_power(run.target, Power.poweredOn)
    power_off(run.world, run.target)
    run.update(progress=50)
    power_on(run.world, run.target)


@task(VM, "SuspendVM_Task")
def _suspend(run: TaskRun) -> None:
    with run.world.changed:
        require_power(run.target, Power.poweredOn, wanted=Power.suspended)
    run.world.guests.suspend(run.target.moid)
    _record(run.world, run.target, Power.suspended, vim.event.VmSuspendedEvent, "is suspended")


def _shut_down(world: World, vm: Machine) -> None:
    world.guests.shutdown(vm.moid)
    _record(world, vm, Power.poweredOff, vim.event.VmGuestShutdownEvent, "shut down")


def _reboot(world: World, vm: Machine) -> None:
    _shut_down(world, vm)
    power_on(world, vm)


def _ask_guest(call: Call, work: Callable[[World, Machine], None]) -> None:
    """Check what vSphere checks, then let the guest do it on its own time."""
    world, vm = call.world, call.record
    require_power(vm, Power.poweredOn)
    if vm.guest is None or not vm.guest.tools_running:
        raise vim.fault.ToolsUnavailable(msg="VMware Tools is not running in this virtual machine.")

    def attempt() -> None:
        try:
            with vm.busy:
                work(world, vm)
        except (GuestError, vmodl.MethodFault) as error:
            LOG.warning("%s did not do as asked: %s", vm.config.name, error)

    world.start_thread(attempt)


@answers(VM, "ShutdownGuest")
def _shutdown_guest(call: Call) -> None:
    _ask_guest(call, _shut_down)


@answers(VM, "RebootGuest")
def _reboot_guest(call: Call) -> None:
    _ask_guest(call, _reboot)


def forget(world: World, vm: Machine) -> None:
    """Take a VM and its snapshots out of the inventory. Call it under the lock."""
    snapshots = [one for root in vm.roots for one in root.family()]
    world.remove(vm, *snapshots)
    places = (vm.props["parent"], vm.props["resourcePool"], vm.props["runtime"].host)
    world.touch(*(world.get(place) for place in places if place is not None))


@task(VM, "Destroy_Task")
def _destroy_vm(run: TaskRun) -> None:
    """Remove a VM, its files, and every disk that is attached to it."""
    world, vm = run.world, run.target
    with world.changed:
        require_power(vm, Power.poweredOff)
    world.guests.destroy(vm.moid)
    for disk in {one.disk for root in vm.roots for one in root.family()} - world.template_disks:
        world.guests.remove_snapshot(disk)
    with world.changed:
        attached = [
            path for disk in of_kind(vm.config, Disk) for path in own_files(world, disk, vm.moid)
        ]
        owned = [path for path, file in world.files.items() if file.owner == vm.moid]
        remove_files(world, [*attached, *owned])
        world.log_event(vim.event.VmRemovedEvent, vm, f"Removed {vm.config.name}")
        forget(world, vm)


@answers(VM, "UnregisterVM")
def _unregister(call: Call) -> None:
    """Take a VM out of the inventory; its files stay."""
    require_power(call.record, Power.poweredOff)
    name = call.record.config.name
    call.world.log_event(vim.event.VmRemovedEvent, call.record, f"Unregistered {name}")
    forget(call.world, call.record)
