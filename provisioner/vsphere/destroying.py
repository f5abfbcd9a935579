"""Destroying a guest's VM with its disks, and saying in plain words why that cannot be."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pyVmomi import vim

from provisioner.errors import TaskFailedError, VmGoneError
from provisioner.model.lab import GuestIdentity, GuestRecord
from provisioner.model.observed import (
    Connection,
    DestroyOutcome,
    DestroyResult,
    PowerState,
)
from provisioner.vsphere.acting import Acting
from provisioner.vsphere.devices import list_foreign_disks
from provisioner.vsphere.machines import DISABLED_PATH, Machine, Machines
from provisioner.vsphere.running import Running
from provisioner.vsphere.session import Session
from provisioner.vsphere.waiter import Waiter

ROUNDS = 6
"""How often a VM is looked at, and brought a step further, before it is given up."""
REMEDIES = {
    Connection.DISCONNECTED: "its ESXi host is not connected to vCenter: bring the host back",
    Connection.ORPHANED: (
        "its ESXi host does not know it any more: register it again from its files, or remove it"
        " from the inventory and delete its folder on the datastore"
    ),
    Connection.INACCESSIBLE: "its files cannot be read: bring its datastore back",
    Connection.INVALID: "its configuration cannot be read: mend or remove it by hand",
}
"""Why vCenter cannot work with a VM, and what to do about it."""


@dataclass(frozen=True)
class Destroying:
    """Destroys guests' VMs, and nothing that was not born with them."""

    session: Session
    machines: Machines
    acting: Acting
    running: Running
    waiter: Waiter

    def destroy(self, guest: GuestRecord) -> DestroyOutcome:
        """Destroy the VM and its disks; a foreign disk stops it before anything is touched.

        Raises:
            NotOwnedError: what bears the UUID has no genuine mark of this guest.
            TaskFailedError: vCenter refused, or something powers it on again and again.
            VsphereUnavailableError: the outcome is unknown; the same call again looks first.
        """
        result = DestroyResult.ALREADY_GONE
        machine = self._find(guest.identity)
        if machine is None or not guest.birth_disks:
            self._settle_clones(guest)
            machine = self._find(guest.identity)
        for _ in range(ROUNDS):
            if machine is None:
                return DestroyOutcome(result)
            why = find_obstacle(machine, guest) or self._wait_until_allowed(machine)
            if why:
                name = f"{machine.vm.name} ({machine.vm.moref})"
                return DestroyOutcome(DestroyResult.RESIDUE, f"{name}: {why}, then tear down again")
            with contextlib.suppress(VmGoneError):  # gone, or under another reference: look again
                if machine.vm.power_state is not PowerState.OFF:
                    self.running.power_off(guest.identity)
                else:
                    result = DestroyResult.DESTROYED
                    self._destroy(guest)
            machine = self._find(guest.identity)
        raise TaskFailedError(
            f"{self.session.title}: cannot destroy {guest.vm_name}: it does not stay powered off",
            hint="find out what in vCenter does that, such as HA or an operator, and stop it",
        )

    def _destroy(self, guest: GuestRecord) -> None:
        """Destroy a VM that is off; nothing happens when it turns out to be on, or not to be so."""

        def is_no_longer_so(machine: Machine) -> bool:
            is_off = machine.vm.power_state is PowerState.OFF
            return not is_off or bool(find_obstacle(machine, guest))

        self.acting.bring(
            guest.identity,
            is_no_longer_so,
            lambda machine: machine.ref.Destroy_Task(),
            f"destroy {guest.vm_name}",
            self.session.limits.destroy_s,
        )

    def _find(self, identity: GuestIdentity) -> Machine | None:
        """Find the VM; also one whose mark vCenter cannot read, for nothing happens to that."""
        machine = self.machines.find(identity)
        if machine is not None and not machine.is_unreadable:
            self.machines.require_own(machine, identity)
        return machine

    def _settle_clones(self, guest: GuestRecord) -> None:
        """Wait for the clones that may be this guest's."""
        tasks = self.acting.list_clones()
        if guest.vim_task:
            tasks += self.acting.list_open([self.session.refer(vim.Task, guest.vim_task)])
        self.acting.settle(tasks, self.session.limits.clone_s)

    def _wait_until_allowed(self, machine: Machine) -> str:
        """Wait until vCenter allows the next call; say why it does not. A backup forbids it."""
        is_off = machine.vm.power_state is PowerState.OFF
        method = "Destroy_Task" if is_off else "PowerOffVM_Task"
        if method not in machine.vm.disabled_methods:
            return ""
        try:
            self.waiter.wait_for(
                machine.ref,
                DISABLED_PATH,
                lambda disabled: True if method not in (disabled or ()) else None,
                self.session.limits.backup_s,
                f"destroy {machine.vm.name}",
                late=TaskFailedError,
            )
        except TaskFailedError:
            return (
                f"vCenter forbids {method}, as it does during a backup: let the backup end, or end"
                " it in the backup software"
            )
        except VmGoneError:
            return ""
        return ""


def find_obstacle(machine: Machine, guest: GuestRecord) -> str:
    """Say why a VM must not or cannot be destroyed, and what to do; empty when it can be."""
    if machine.vm.connection in REMEDIES:
        return f"it is {machine.vm.connection}, {REMEDIES[machine.vm.connection]}"
    birth_disks = guest.birth_disks
    if not birth_disks and guest.pin is not None:
        birth_disks = machine.vm.find_birth_disks(guest.pin.disk_count)
    if foreign := list_foreign_disks(machine.disk_chains, birth_disks):
        return (
            f"it holds a disk it was not born with: {', '.join(foreign)}; destroying the VM would"
            " delete it: detach it (or, if Storage vMotion moved it, move it back)"
        )
    return ""
