"""What the workflows need of the world: one Protocol per adapter.

Only frozen values of plain types cross a port. Every adapter translates its library's faults
into `provisioner.errors` at its own edge. Waits take a deadline as `timeout_s`; running out of it
raises the retryable error of that port, and means *unknown*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    GuestState,
    Lab,
    LabState,
    Lease,
    Progress,
    TemplatePin,
    WorkItem,
    WorkStatus,
)
from provisioner.model.observed import (
    DestroyOutcome,
    Evidence,
    ObservedSite,
    ObservedVm,
    PlayProgress,
    PlayRecap,
    ShellResult,
    Sight,
)


class Clock(Protocol):
    """Time, so that decisions about it can be tested."""

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for durations."""
        ...


@dataclass(frozen=True)
class CloneOrder:
    """Everything one clone call needs; the adapter adds the mark itself.

    `vm_template`, `networks` and `datastore` are names of the site file, `pin` is what the template
    must still be. `guestinfo` maps keys like `guestinfo.userdata` to their final text. `dossier` is
    what an installation that lost its store must know of the guest: the adapter signs it and puts
    it beside the mark. `vim_task` is the task of an earlier clone call for the same guest, if one
    was recorded.
    """

    identity: GuestIdentity
    vm_name: str
    vm_template: str
    cpus: int
    memory_mib: int
    networks: tuple[str, ...]
    datastore: str
    guestinfo: tuple[tuple[str, str], ...]
    pin: TemplatePin
    dossier: str = ""
    vim_task: str = ""


class Hypervisor(Protocol):
    """The site's vCenter. An instance belongs to one site and one installation.

    Before each mutation of a VM, UUID and mark are read in the same step; a VM that is not
    genuinely ours is refused with NotOwnedError.
    """

    def observe_site(self) -> ObservedSite:
        """Read what a plan needs, without a write."""
        ...

    def check_sight(self) -> Sight:
        """Read what proves that an empty answer means "gone"."""
        ...

    def read_clock(self) -> datetime:
        """Return vCenter's own time, aware UTC."""
        ...

    def pin_template(self, vm_template: str) -> TemplatePin:
        """Read which VM template that name of the site file means now."""
        ...

    def find_vm(self, identity: GuestIdentity) -> ObservedVm | None:
        """Find the genuine VM of this identity by its instance UUID; None when there is none."""
        ...

    def list_marked_vms(self) -> tuple[ObservedVm, ...]:
        """List every VM of the whole vCenter that carries a labctl mark, whoever made it."""
        ...

    def ensure_clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        """Clone, powered off, with mark, size, network and guestinfo in the one clone call.

        A VM of the same identity that stands already is adopted; a clone of it that is under way
        is waited for. `on_task` hears the vim task's key as soon as vCenter accepted the call.
        Raises NameTakenError when the name belongs to something else, TemplateChangedError when
        the template is not the pinned one: nothing was cloned then.
        """
        ...

    def ensure_powered_on(self, identity: GuestIdentity) -> None:
        """Bring the VM to powered on."""
        ...

    def ensure_powered_off(self, identity: GuestIdentity, *, grace_s: float) -> None:
        """Bring the VM to powered off: ask the guest first, pull the plug after `grace_s`."""
        ...

    def wait_for_guestinfo(self, identity: GuestIdentity, key: str, timeout_s: float) -> str:
        """Wait until the guest has published `key`, and return its text."""
        ...

    def wait_for_address(self, identity: GuestIdentity, mac: str, timeout_s: float) -> str:
        """Wait for an address of the NIC with that MAC (never another bridge's) and return it."""
        ...

    def ensure_networks(self, identity: GuestIdentity, *, connected: bool) -> None:
        """Connect every NIC of the VM, or disconnect them all, now and at its next power on."""
        ...

    def write_dossier(self, identity: GuestIdentity, dossier: str) -> None:
        """Sign `dossier` and put it beside the VM's mark, in place of the one that is there."""
        ...

    def destroy_vm(self, guest: GuestRecord) -> DestroyOutcome:
        """Destroy the guest's VM and its disks, the clone in flight too.

        A disk that the VM was not born with stops it before anything is touched: the outcome is
        residue, and the VM stays as it was. When the birth disks were never recorded, they are
        those in the VM's own folder, if there are as many as `pin` says. A VM that is gone
        already is a success.
        """
        ...

    def collect_evidence(self, lab_id: str, guests: Iterable[GuestRecord]) -> tuple[Evidence, ...]:
        """Ask vCenter for everything that could be left of a lab, object by object."""
        ...

    def close(self) -> None:
        """Log out. Never raises."""
        ...


@dataclass(frozen=True)
class ShellTarget:
    """A guest as SSH sees it: pinned by `alias` and `host_key`, never by address.

    `jump` is `user@host:port` or empty.
    """

    alias: str
    address: str
    host_key: str
    user: str
    key_file: str
    port: int = 22
    jump: str = ""


class GuestShell(Protocol):
    """SSH into guests with pinned host keys."""

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        """Wait until a login works. Raises HostKeyError at once when the key is another."""
        ...

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        """Run `command` with `stdin` and return its result; a non-zero status is no error."""
        ...


@dataclass(frozen=True)
class PlayOrder:
    """One Ansible run.

    `inventory` is the whole Ansible inventory as plain data, without a secret.
    """

    lab_id: str
    playbook: str
    inventory: dict[str, Any]


class Configurator(Protocol):
    """Ansible."""

    def run_play(
        self,
        order: PlayOrder,
        on_event: Callable[[PlayProgress], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[PlayRecap, ...]:
        """Run a playbook to its end and return the recap of every guest.

        Raises PlayFailedError or GuestUnreachableError naming guest and play task, StoppedError
        when `is_cancelled` turned true: then everything the run started has ended.
        """
        ...


@dataclass(frozen=True)
class KeyPair:
    """An SSH key of labctl's own: where its private half is (0600), and its public line."""

    private_file: str
    public_key: str


class Credentials(Protocol):
    """labctl's own keys. Private halves never leave their one home."""

    def ensure_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Make the lab's key if there is none, and return it."""
        ...

    def get_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Return the lab's key. Raises CredentialError when there is none."""
        ...

    def make_trial_key(self, lab_id: str) -> KeyPair:
        """Make a key for one run of trials."""
        ...

    def destroy_trial_key(self, key: KeyPair) -> None:
        """Remove a trial key. Idempotent."""
        ...

    def destroy_lab_keys(self, lab_id: str) -> None:
        """Remove every key of the lab, of all its generations. Idempotent."""
        ...


class LabStore(Protocol):
    """labctl's record of labs. Every call is one durable transaction."""

    def add_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> WorkItem:
        """Record the intent: lab, guests, an audit row and, as work, its provision, all at once.

        Raises BusyError when another generation of this lab is not closed.
        """
        ...

    def adopt_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> None:
        """Record a lab that was found in vCenter, in the state that it says, with no work.

        Raises BusyError when this generation or a later one is recorded already, or an earlier
        one is not closed.
        """
        ...

    def find_note(self, name: str) -> str | None:
        """Return what was noted under a name for the whole installation."""
        ...

    def set_note(self, name: str, text: str) -> None:
        """Note something under a name, in place of what was there; an empty text removes it."""
        ...

    def ask_for_work(
        self,
        workflow: str,
        lab_id: str,
        generation: int,
        audit: AuditEntry,
        *,
        desired: Desired,
        state: LabState | None = None,
    ) -> WorkItem:
        """Record what IT wants, the lab's new state if it has one, and the work, all at once.

        The same work that is open already is returned as it is. A provision that failed continues:
        it keeps its run's number. Raises BusyError when other work on the lab is open (a teardown
        never waits for leave), RefusedError for an illegal state.
        """
        ...

    def list_open_work(self) -> tuple[WorkItem, ...]:
        """List the work that has not ended, oldest first."""
        ...

    def get_work(self, serial: int) -> WorkItem:
        """Return a piece of work. Raises StoreError when there is none of that serial."""
        ...

    def find_last_work(self, lab_id: str) -> WorkItem | None:
        """Return the newest piece of work on a lab."""
        ...

    def set_work(
        self, serial: int, status: WorkStatus, at: datetime, error: dict[str, str] | None = None
    ) -> None:
        """Record how a piece of work stands; an end carries its time, and a failure its error."""
        ...

    def set_lease(self, lab_id: str, generation: int, lease: Lease, audit: AuditEntry) -> None:
        """Record a lab's new lease, with its audit row."""
        ...

    def raise_event_key(self, lab_id: str, generation: int, event_key: int) -> None:
        """Record the newest event key that vCenter showed; it never goes down."""
        ...

    def find_lab(self, lab_id: str) -> Lab | None:
        """Return the newest generation of a lab."""
        ...

    def list_labs(self, *, closed: bool = False) -> tuple[Lab, ...]:
        """List living labs, or all with `closed`, newest generation of each, by lab id."""
        ...

    def set_state(
        self,
        lab_id: str,
        generation: int,
        state: LabState,
        at: datetime,
        *,
        note: str = "",
    ) -> None:
        """Move a lab to `state`; sets ready_at or closed_at where the state says so."""
        ...

    def set_desired(
        self, lab_id: str, generation: int, desired: Desired, audit: AuditEntry
    ) -> None:
        """Record what IT wants, with its audit row."""
        ...

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        """List a lab's guests in the blueprint's order."""
        ...

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        """Record hints of a guest: any of the fields of GuestRecord after `pin`."""
        ...

    def move_guest(
        self,
        identity: GuestIdentity,
        state: GuestState,
        *,
        pin: TemplatePin | None = None,
        **hints: str | tuple[str, ...],
    ) -> None:
        """Move a guest to `state` with what is known of it then.

        `pin` None leaves the pin as it is; going back to `planned` removes it. Raises RefusedError
        for an illegal move.
        """
        ...

    def add_progress(self, row: Progress) -> None:
        """Append to the lab's log."""
        ...

    def list_progress(
        self, lab_id: str, *, after: int = 0, slot: str = "", step: str = ""
    ) -> tuple[Progress, ...]:
        """List a lab's log after serial `after`, oldest first; empty filters let all through."""
        ...

    def usual_s(self, workflow: str, step: str) -> float | None:
        """Return the median time of past successful runs of a step, or None."""
        ...

    def save_receipt(self, lab_id: str, generation: int, receipt: str) -> None:
        """Keep a teardown's receipt (JSON text)."""
        ...

    def find_receipt(self, lab_id: str) -> str | None:
        """Return the newest receipt of a lab."""
        ...

    def close(self) -> None:
        """Release the database."""
        ...


class Audit(Protocol):
    """Who asked for what. Append only."""

    def record(self, entry: AuditEntry) -> None:
        """Append an entry."""
        ...

    def list_entries(self, lab_id: str = "") -> tuple[AuditEntry, ...]:
        """List entries, oldest first."""
        ...


@dataclass(frozen=True)
class Step:
    """One durable step of a workflow.

    `name` plus `slot` is its own key within the workflow. `act` is idempotent: it reads the world
    first. It returns plain JSON-able data, without a secret. When vCenter does not answer, the
    step is tried again until `patience_s` after its first failure.
    """

    name: str
    act: Callable[[], Any]
    slot: str = ""
    patience_s: float = 0.0


class Flow(Protocol):
    """What the engine hands to a workflow: it records each step's outcome."""

    def run(self, *steps: Step) -> tuple[Any, ...]:
        """Run steps side by side; returns their values in order.

        All are brought to an end before the first error (in the order given) is raised.
        """
        ...


Workflow = Callable[[Flow, str, int], None]


class Engine(Protocol):
    """Runs workflows; one run of a workflow of one lab and generation is under way at most once.

    `run` counts the runs that were asked for, from 1.
    """

    def submit(self, workflow: str, lab_id: str, generation: int, run: int) -> None:
        """Start a run, or do nothing when that one is under way or ended well.

        One that ended with a step's error continues at that step: what was recorded before it is
        not done again.
        """
        ...

    def is_running(self, workflow: str, lab_id: str, generation: int, run: int) -> bool:
        """Tell whether that run is under way."""
        ...

    def wait(self, workflow: str, lab_id: str, generation: int, run: int, timeout_s: float) -> bool:
        """Wait for its end; False when `timeout_s` ran out. Raises the error it ended with."""
        ...

    def close(self) -> None:
        """Stop taking work, and return when nothing runs any more."""
        ...
