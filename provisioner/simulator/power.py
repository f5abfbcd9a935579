"""Power: on, off, reset, suspend, and what is asked of the guest; destroy and unregister."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.datastores import remove_files
from provisioner.simulator.devices import Disk, of_kind, own_files, parents_of_others
from provisioner.simulator.guests import GuestError
from provisioner.simulator.machine import VM, Machine, MachineTools, Power, set_power
from provisioner.simulator.tasks import TaskRun, require_idle, task
from provisioner.simulator.world import Call, World, answers

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("provisioner.simulator")
Event = vim.event


def require_power(vm: Machine, *allowed: Any, wanted: Any = None) -> None:
    """Raise InvalidPowerState when a VM is in another power state."""
    if vm.power not in allowed:
        text = f"The attempted operation cannot be performed in the current state ({vm.power})."
        raise vim.fault.InvalidPowerState(requestedState=wanted, existingState=vm.power, msg=text)


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
        resume, hardware, tools = vm.power == Power.suspended, vm.hardware(world), vm.tools
        if not resume:
            vm.guest = None
            vm.tools = tools = MachineTools(world, vm)
    if resume or tools is None:
        world.guests.resume(vm.vm_id)
    else:
        world.guests.power_on(hardware, tools)
    with world.changed:
        _record(world, vm, Power.poweredOn, Event.VmPoweredOnEvent, "is powered on")
        if tools is not None and vm.guest is not None:
            tools.guest_state(vm.guest)  # it may have stopped already


def _power_off(world: World, vm: Machine) -> None:
    with world.changed:
        require_power(vm, Power.poweredOn, Power.suspended, wanted=Power.poweredOff)
    world.guests.power_off(vm.vm_id)
    _record(world, vm, Power.poweredOff, Event.VmPoweredOffEvent, "is powered off")


def _suspend(world: World, vm: Machine) -> None:
    with world.changed:
        require_power(vm, Power.poweredOn, wanted=Power.suspended)
    world.guests.suspend(vm.vm_id)
    _record(world, vm, Power.suspended, Event.VmSuspendedEvent, "is suspended")


def _reset(world: World, vm: Machine) -> None:
    with world.changed:
        require_power(vm, Power.poweredOn)
    _power_off(world, vm)
    power_on(world, vm)


def _shut_down(world: World, vm: Machine) -> None:
    world.guests.shutdown(vm.vm_id)
    _record(world, vm, Power.poweredOff, Event.VmGuestShutdownEvent, "shut down")


def _reboot(world: World, vm: Machine) -> None:
    _shut_down(world, vm)
    power_on(world, vm)


def _as_task(work: Callable[[World, Machine], None]) -> Callable[[TaskRun], None]:
    return lambda run: work(run.world, run.target)


task(VM, "PowerOnVM_Task")(_as_task(power_on))
task(VM, "PowerOffVM_Task")(_as_task(_power_off))
task(VM, "ResetVM_Task")(_as_task(_reset))
task(VM, "SuspendVM_Task")(_as_task(_suspend))


def _asked_of_guest(work: Callable[[World, Machine], None]) -> Callable[[Call], None]:
    """Check what vSphere checks, then let the guest do it on its own time."""

    def attempt(world: World, vm: Machine) -> None:
        try:
            with vm.busy:
                work(world, vm)
        except (GuestError, vmodl.MethodFault) as error:
            LOG.warning("%s did not do as asked: %s", vm.config.name, error)

    def ask(call: Call) -> None:
        world, vm = call.world, call.record
        require_power(vm, Power.poweredOn)
        if vm.guest is None or not vm.guest.tools_running:
            raise vim.fault.ToolsUnavailable(msg="VMware Tools is not running in this VM.")
        world.start_thread(lambda: attempt(world, vm))

    return ask


answers(VM, "ShutdownGuest")(_asked_of_guest(_shut_down))
answers(VM, "RebootGuest")(_asked_of_guest(_reboot))


def forget(world: World, vm: Machine) -> None:
    """Take a VM and its snapshots out of the inventory; its files stay."""
    world.log_event(Event.VmRemovedEvent, vm, f"Removed {vm.config.name}")
    places = [*vm.places(world), *world.of_type(vim.Datastore), *world.of_type(vim.Network)]
    world.remove(vm, *vm.snapshots)
    world.touch(*places)


def destroy(world: World, vm: Machine) -> None:
    """Remove a VM, its files, and every disk that is attached to it."""
    with world.changed:
        require_power(vm, Power.poweredOff)
    world.guests.destroy(vm.vm_id)
    for disk in {one.disk for one in vm.snapshots} - world.template_disks:
        world.guests.remove_snapshot(disk)
    with world.changed:
        disks = of_kind(vm.config, Disk)
        doomed = [path for disk in disks for path in own_files(world, disk, vm.vm_id)]
        doomed += [path for path, file in world.files.items() if file.owner == vm.vm_id]
        remove_files(world, set(doomed) - parents_of_others(world, vm.vm_id))
        forget(world, vm)


task(VM, "Destroy_Task")(_as_task(destroy))


@answers(VM, "UnregisterVM")
def _unregister(call: Call) -> None:
    """Take a VM out of the inventory; its files stay."""
    if call.record.props["runtime"].connectionState == VM.ConnectionState.connected:
        require_power(call.record, Power.poweredOff)
    require_idle(call.record, exclusive=True)
    forget(call.world, call.record)
