"""What every workflow shares: its tools, and steps that leave a trace in the lab's log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provisioner.errors import (
    LabctlError,
    RolledBackError,
    StoppedError,
    UnknownLabError,
    VsphereUnavailableError,
)
from provisioner.model.lab import Desired, GuestRecord, Lab, Progress, StepStatus
from provisioner.model.spec import Check, Site, Stack
from provisioner.ports import (
    Clock,
    Configurator,
    Credentials,
    GuestShell,
    Hypervisor,
    LabStore,
    ShellTarget,
    Step,
)
from provisioner.rules.ssh import ADMIN_USER, build_jump

# How long work waits for a vCenter that does not answer: a restart of it takes about ten minutes.
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Toolbox:
    """The ports of one site, and what its files say.

    `ca_texts` are the PEM texts of the site's CA certificates. `checks` are those of the
    blueprint's roles, in the order of the roles. `write_known_hosts` keeps the lab's pinned host
    keys where Ansible reads them, and returns the path. `is_stopping` turns true when the process
    was asked to stop.
    """

    hypervisor: Hypervisor
    configurator: Configurator
    shell: GuestShell
    credentials: Credentials
    store: LabStore
    clock: Clock
    site: Site
    stack: Stack
    ca_texts: tuple[str, ...]
    checks: tuple[Check, ...]
    write_known_hosts: Callable[[Lab, tuple[GuestRecord, ...]], str]
    is_stopping: Callable[[], bool]


@dataclass(frozen=True)
class Work:
    """One run of a workflow for one generation of a lab."""

    tools: Toolbox
    workflow: str
    lab_id: str
    generation: int

    def get_lab(self) -> Lab:
        """Read the lab anew. Raises UnknownLabError when this generation is not the newest."""
        lab = self.tools.store.find_lab(self.lab_id)
        if lab is None or lab.generation != self.generation:
            raise UnknownLabError(f"lab {self.lab_id} has no generation {self.generation} any more")
        return lab

    def list_guests(self) -> tuple[GuestRecord, ...]:
        """Read the lab's guests anew, in the blueprint's order."""
        return self.tools.store.list_guests(self.lab_id, self.generation)

    def get_guest(self, slot: str) -> GuestRecord:
        """Read one guest anew."""
        return next(guest for guest in self.list_guests() if guest.identity.slot == slot)

    def check_event_key(self, event_key: int) -> None:
        """Take note of vCenter's newest event key. Raises RolledBackError when it went back."""
        known = self.get_lab().event_key
        if event_key < known:
            raise RolledBackError(
                f"vCenter was rolled back: its newest event is {event_key}, but it had {known} when"
                f" lab {self.lab_id} was worked on; VMs that it does not show may still run",
                hint="compare the ESXi hosts with vCenter, then tear the lab down",
            )
        self.tools.store.raise_event_key(self.lab_id, self.generation, event_key)

    def note(self, step: str, text: str, slot: str = "") -> None:
        """Leave a line in the log of a step that is under way."""
        self._record(step, slot, StepStatus.NOTE, text)

    def step(self, name: str, act: Callable[[], Any], slot: str = "") -> Step:
        """Build a step that records its start, its end and the time between.

        What `act` returns is recorded as the step's text when it is a text.
        """

        def recorded() -> Any:
            self._refuse_when_not_wanted()
            started_s = self.tools.clock.monotonic_s()
            self._record(name, slot, StepStatus.STARTED)
            try:
                value = act()
            except LabctlError as error:
                # What is tried again by itself has not failed yet.
                waits = isinstance(error, VsphereUnavailableError)
                status = StepStatus.WAITING if waits else StepStatus.FAILED
                self._record(name, slot, status, error.what, since_s=started_s)
                raise
            text = value if isinstance(value, str) else ""
            self._record(name, slot, StepStatus.OK, text, since_s=started_s)
            return value

        return Step(name=name, act=recorded, slot=slot, patience_s=PATIENCE_S)

    def is_unwanted(self) -> bool:
        """Tell whether this work should end: asked to stop, or the lab is wanted otherwise."""
        wanted = Desired.ABSENT if self.workflow == "teardown" else Desired.PRESENT
        return self.tools.is_stopping() or self.get_lab().desired is not wanted

    def _refuse_when_not_wanted(self) -> None:
        if self.is_unwanted():
            raise StoppedError(
                f"{self.workflow} of lab {self.lab_id} was stopped before it was done",
                hint="run the same command again to continue where it stopped",
            )

    def _record(
        self,
        step: str,
        slot: str,
        status: StepStatus,
        text: str = "",
        *,
        since_s: float | None = None,
    ) -> None:
        clock = self.tools.clock
        elapsed_s = None if since_s is None else clock.monotonic_s() - since_s
        self.tools.store.add_progress(
            Progress(
                lab_id=self.lab_id,
                generation=self.generation,
                at=clock.now(),
                workflow=self.workflow,
                step=step,
                slot=slot,
                status=status,
                text=text,
                elapsed_s=elapsed_s,
            )
        )


def build_target(
    site: Site, guest: GuestRecord, key_file: str, user: str = ADMIN_USER
) -> ShellTarget:
    """Build the SSH target of a guest: pinned by its recorded host key, named by its VM."""
    jump = site.jump_host
    return ShellTarget(
        alias=guest.vm_name,
        address=guest.address,
        host_key=guest.host_key,
        user=user,
        key_file=key_file,
        jump=build_jump(jump) if jump else "",
    )
