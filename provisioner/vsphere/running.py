"""A guest's VM while it stands: its power, its networks, its dossier, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pyVmomi import vim

from provisioner.errors import (
    GuestUnreachableError,
    TaskFailedError,
    VmGoneError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import PowerState
from provisioner.ports import Clock
from provisioner.rules.mark import DOSSIER_KEY, Installation, build_dossier
from provisioner.vsphere.acting import WITHOUT_EFFECT, Acting
from provisioner.vsphere.devices import is_linked
from provisioner.vsphere.machines import POWER, POWER_PATH, Machine, Machines
from provisioner.vsphere.session import Session
from provisioner.vsphere.specs import build_link_changes, build_options
from provisioner.vsphere.waiter import Waiter

T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """Brings VMs that stand to a state, and waits for what they tell."""

    session: Session
    installation: Installation
    machines: Machines
    acting: Acting
    waiter: Waiter
    clock: Clock

    def power_on(self, identity: GuestIdentity) -> None:
        """Bring the VM to powered on."""
        self.acting.bring(
            identity,
            lambda machine: machine.vm.power_state is PowerState.ON,
            lambda machine: machine.ref.PowerOnVM_Task(),
            f"power on {_name(identity)}",
            self.session.limits.power_s,
        )

    def power_off(self, identity: GuestIdentity) -> None:
        """Pull the plug."""
        self.acting.bring(
            identity,
            lambda machine: machine.vm.power_state is PowerState.OFF,
            lambda machine: machine.ref.PowerOffVM_Task(),
            f"power off {_name(identity)}",
            self.session.limits.power_s,
        )

    def shut_down(self, identity: GuestIdentity, grace_s: float) -> None:
        """Ask a guest that is on to shut down, and give it time; that it does not is no error."""
        doing = f"shut down {_name(identity)}"
        try:
            for _ in range(2):
                machine = self.machines.get_own(identity)
                if machine.vm.power_state is not PowerState.ON or not machine.tools_running:
                    return
                if self._ask_to_shut_down(machine, doing):
                    break
            self.wait_for(
                identity,
                POWER_PATH,
                lambda state: True if POWER.get(state) is PowerState.OFF else None,
                grace_s,
                "see the end",
            )
        except (TaskFailedError, GuestUnreachableError):
            return

    def _ask_to_shut_down(self, machine: Machine, doing: str) -> bool:
        """Ask once; False when the guest surely did not hear it."""
        try:
            with self.session.cannot(doing):
                machine.ref.ShutdownGuest()
        except (VmGoneError, VsphereUnavailableError) as error:
            return not isinstance(error.__cause__, WITHOUT_EFFECT)
        return True

    def set_networks(self, identity: GuestIdentity, *, connected: bool) -> None:
        """Connect or disconnect every NIC, now and at the next power on."""

        def is_running(machine: Machine) -> bool:
            return machine.vm.power_state is PowerState.ON

        def is_so(machine: Machine) -> bool:
            running = is_running(machine)
            return all(is_linked(nic, running=running, connected=connected) for nic in machine.nics)

        def start(machine: Machine) -> Any:
            changes = build_link_changes(
                machine.nics, running=is_running(machine), connected=connected
            )
            return machine.ref.ReconfigVM_Task(spec=vim.vm.ConfigSpec(deviceChange=changes))

        verb = "connect" if connected else "disconnect"
        limit_s = self.session.limits.reconfigure_s
        self.acting.bring(identity, is_so, start, f"{verb} {_name(identity)}", limit_s)

    def set_dossier(self, identity: GuestIdentity, dossier: str) -> None:
        """Sign a dossier and put it beside the mark."""
        value = build_dossier(self.installation, identity, dossier)
        spec = vim.vm.ConfigSpec(extraConfig=build_options({DOSSIER_KEY: value}))
        self.acting.bring(
            identity,
            lambda machine: machine.vm.dossier == dossier,
            lambda machine: machine.ref.ReconfigVM_Task(spec=spec),
            f"write the dossier of {_name(identity)}",
            self.session.limits.reconfigure_s,
        )

    def wait_for(
        self,
        identity: GuestIdentity,
        path: str,
        decide: Callable[[Any], T | None],
        timeout_s: float,
        doing: str,
    ) -> T:
        """Wait until `decide` makes something of a property, whatever reference the VM has.

        Raises:
            GuestUnreachableError: vCenter answers, and the guest did not do so in time.
            VsphereUnavailableError: vCenter does not answer.
            VmGoneError: there is no such VM.
        """
        end_s = self.clock.monotonic_s() + timeout_s
        machine = self.machines.get_own(identity)
        while True:
            left_s = max(0.0, end_s - self.clock.monotonic_s())
            try:
                seeing = f"{doing} of {machine.vm.name}"
                return self.waiter.wait_for(
                    machine.ref, path, decide, left_s, seeing, late=GuestUnreachableError
                )
            except VmGoneError:  # it may have come back under another reference
                before, machine = machine, self.machines.get_own(identity)
                if machine.vm.moref == before.vm.moref:
                    raise


def _name(identity: GuestIdentity) -> str:
    return f"guest {identity.slot} of lab {identity.lab_id}"
