"""The site's vCenter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from provisioner.model.lab import (
    GuestIdentity,
    GuestRecord,
    TemplatePin,
)
from provisioner.model.observed import (
    DestroyOutcome,
    Evidence,
    ObservedSite,
    ObservedVm,
    Sight,
)


@dataclass(frozen=True)
class CloneOrder:
    """Everything one clone call needs; the adapter adds the mark itself, and signs the dossier.

    `vm_template`, `networks` and `datastore` are names of the site file, `pin` is what the template
    must still be. `guestinfo` maps keys like `guestinfo.userdata` to their final text.
    `may_be_coming` tells that an earlier clone call for the same guest may be under way; `vim_task`
    is its task, if that was recorded.
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
    may_be_coming: bool = False
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
        """Find the genuine VM of this identity by its instance UUID; None when there is none.

        Raises VsphereUnavailableError when there is one whose mark vCenter cannot read now.
        """
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
        """Ask vCenter for everything that could be left of a lab, object by object.

        What it refuses to tell is a row of its own. Raises VsphereUnavailableError when it does
        not answer now.
        """
        ...

    def close(self) -> None:
        """Log out. Never raises."""
        ...
