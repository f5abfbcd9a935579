"""The Hypervisor port on pyVmomi: straight verbs over session, lookup, machines and waiter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

from provisioner.errors import NotOwnedError
from provisioner.model.lab import GuestIdentity, GuestRecord, TemplatePin
from provisioner.model.observed import (
    DestroyOutcome,
    Evidence,
    ObservedSite,
    ObservedVm,
    Sight,
)
from provisioner.model.spec import Site
from provisioner.ports import Clock, CloneOrder
from provisioner.rules.mark import Installation
from provisioner.vsphere.acting import Acting
from provisioner.vsphere.cloning import Cloning
from provisioner.vsphere.destroying import Destroying
from provisioner.vsphere.devices import choose_address
from provisioner.vsphere.evidence import Asking
from provisioner.vsphere.files import Files
from provisioner.vsphere.lookup import Lookup
from provisioner.vsphere.machines import Machines
from provisioner.vsphere.running import Running
from provisioner.vsphere.session import Limits, Session
from provisioner.vsphere.sight import Seeing
from provisioner.vsphere.waiter import Waiter


class VsphereHypervisor:
    """The vCenter of one site, for one installation. It logs in when first used.

    Args:
        site: where it is and what is used there.
        installation: whose marks are ours.
        password: gives the account's password; called once vCenter's certificate was found good.
        clock: the time of evidence.
        limits: how long vCenter may take.
    """

    def __init__(
        self,
        site: Site,
        installation: Installation,
        password: Callable[[], str],
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self._session = session = Session(site.vcenter, password, limits or Limits(), clock)
        self._lookup = lookup = Lookup(session, site)
        self._machines = machines = Machines(session, installation)
        self._waiter = waiter = Waiter(session, clock)
        self._seeing = Seeing(session)
        acting = Acting(session, lookup, machines, waiter)
        files = Files(session, lookup, waiter)
        self._cloning = Cloning(session, installation, lookup, machines, acting, waiter, files)
        self._running = Running(session, installation, machines, acting, waiter, clock)
        self._destroying = Destroying(session, machines, acting, self._running, waiter)
        self._asking = Asking(session, lookup, machines, files, clock)

    # -- reading ----------------------------------------------------------------------------------

    def observe_site(self) -> ObservedSite:
        """Read what a plan needs, without a write.

        Raises:
            RolledBackError: vCenter showed newer events before.
        """
        self._seeing.read_event_key()
        place = self._lookup.get_place(anew=True)
        content, _ = self._session.open()
        folder = place.placement.get("folder")
        return ObservedSite(
            vcenter_uuid=str(content.about.instanceUuid),
            vcenter_name=f"{self._session.title} ({content.about.name} {content.about.version})",
            datastores=place.observed_datastores,
            templates=place.observed_templates,
            vm_names=self._lookup.list_names(folder) if folder else (),
            problems=place.problems,
        )

    def check_sight(self) -> Sight:
        """Read what proves that an empty answer means "gone".

        Raises:
            RolledBackError: vCenter showed newer events before.
        """
        return self._seeing.check(self._lookup.get_place(anew=True))

    def read_clock(self) -> datetime:
        """Return vCenter's own time, aware UTC."""
        return self._session.read_clock()

    def pin_template(self, vm_template: str) -> TemplatePin:
        """Read which VM template that name of the site file means now.

        Raises:
            NotFoundError: it does not exist, or cannot be the source of linked clones.
        """
        return self._lookup.pin_template(vm_template)

    def find_vm(self, identity: GuestIdentity) -> ObservedVm | None:
        """Find the genuine VM of this identity by its instance UUID; None when there is none.

        Raises:
            VsphereUnavailableError: there is a VM whose mark vCenter cannot read now.
        """
        with contextlib.suppress(NotOwnedError):
            machine = self._machines.find_own(identity)
            return machine.vm if machine is not None else None
        return None

    def list_marked_vms(self) -> tuple[ObservedVm, ...]:
        """List every VM of the whole vCenter that carries a labctl mark, whoever made it."""
        return tuple(machine.vm for machine in self._machines.list_marked())

    def collect_evidence(self, lab_id: str, guests: Iterable[GuestRecord]) -> tuple[Evidence, ...]:
        """Ask vCenter for everything that could be left of a lab, object by object."""
        return self._asking.collect(lab_id, guests)

    # -- coming and going -------------------------------------------------------------------------

    def ensure_clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        """Clone, powered off, with mark, size, network and guestinfo; see `Cloning.ensure`."""
        return self._cloning.ensure(order, on_task)

    def destroy_vm(self, guest: GuestRecord) -> DestroyOutcome:
        """Destroy the VM and its disks, or say why not; see `Destroying.destroy`."""
        return self._destroying.destroy(guest)

    # -- running ----------------------------------------------------------------------------------

    def ensure_powered_on(self, identity: GuestIdentity) -> None:
        """Bring the VM to powered on."""
        self._running.power_on(identity)

    def ensure_powered_off(self, identity: GuestIdentity, *, grace_s: float) -> None:
        """Bring the VM to powered off: ask the guest first, pull the plug after `grace_s`."""
        if grace_s > 0:
            self._running.shut_down(identity, grace_s)
        self._running.power_off(identity)

    def ensure_networks(self, identity: GuestIdentity, *, connected: bool) -> None:
        """Connect every NIC of the VM, or disconnect them all, now and at its next power on."""
        self._running.set_networks(identity, connected=connected)

    def write_dossier(self, identity: GuestIdentity, dossier: str) -> None:
        """Sign `dossier` and put it beside the VM's mark, in place of the one that is there."""
        self._running.set_dossier(identity, dossier)

    def wait_for_guestinfo(self, identity: GuestIdentity, key: str, timeout_s: float) -> str:
        """Wait until the guest has published `key`, and return its text."""
        return self._running.wait_for(
            identity,
            f'config.extraConfig["{key}"]',
            lambda option: str(option.value) or None if option is not None else None,
            timeout_s,
            f"see {key}",
        )

    def wait_for_address(self, identity: GuestIdentity, mac: str, timeout_s: float) -> str:
        """Wait for an address of the NIC with that MAC (never another bridge's) and return it."""
        return self._running.wait_for(
            identity,
            "guest.net",
            lambda nics: choose_address(nics or (), mac),
            timeout_s,
            "see an address",
        )

    def close(self) -> None:
        """Log out. Never raises."""
        self._waiter.close()
        self._session.close()
