"""What a vCenter is after its restart, and after its restore from an older backup."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from provisioner.simulator.machine import VM, Machine
from provisioner.simulator.service import end_session
from provisioner.simulator.tasks import TaskRun
from provisioner.simulator.world import Memory, World


def _forget_clients(world: World) -> None:
    """End every session with all that is its own, and forget every task; their work goes on."""
    for session in list(world.sessions.values()):
        end_session(world, session)
    world.remove(*world.of_type(vim.Task))


def _refer(vm: Machine, ref: Any) -> None:
    """Give a VM another reference."""
    vm.ref, vm.moid = ref, ref._moId  # noqa: SLF001 - the accessor is underscored and public
    for snapshot in vm.snapshots:
        snapshot.props["vm"] = ref


def restart(world: World) -> None:
    """Come back without sessions, views, filters and tasks, and with a new moId for every VM.

    Everything else stays: UUIDs, names, disks, power, running guests, and the count of events.
    """
    with world.changed:
        _forget_clients(world)
        for vm in world.of_type(VM):
            _refer(vm, VM(world.new_id("vm")))
        world.records = {one.moid: one for one in world.records.values()}
        world.touch(*world.records.values())


def remember(world: World, name: str) -> None:
    """Keep the inventory as it is now under a name, for ``roll_back``."""
    with world.changed:
        records = world.records.values()
        kept = [one for one in records if not one.session and not isinstance(one, TaskRun)]
        objects = [(one, one.ref, dict(one.props)) for one in kept]
        world.memories[name] = Memory(objects, list(world.events), world.next_event_key)


def roll_back(world: World, name: str) -> None:
    """Bring the inventory back to a remembered state, as restoring a backup of vCenter does.

    VMs made since are no longer in it, while their files and guests stay; those removed since are
    orphaned; what the hosts know of the others (configuration, power, snapshots) is as of now. The
    next event gets the key it had then.

    Raises:
        LookupError: no state of that name is remembered.
    """
    with world.changed:
        if (memory := world.memories.get(name)) is None:
            raise LookupError(f"no state {name!r} is remembered: {', '.join(world.memories)}")
        _forget_clients(world)
        alive = set(world.records.values())
        world.records = {}
        for record, ref, props in memory.objects:
            if isinstance(record, Machine):
                _refer(record, ref)
                record.props["parent"] = props["parent"]
                if record not in alive:
                    record.props["runtime"].connectionState = VM.ConnectionState.orphaned
                world.add(record)
                for snapshot in record.snapshots:
                    world.add(snapshot)
            elif not isinstance(ref, vim.vm.Snapshot):
                record.props = dict(props)
                world.add(record)
        world.events.clear()
        world.events.extend(memory.events)
        world.next_event_key = memory.next_event_key
        world.touch(*world.records.values())
