"""What one site's vCenter shows of this installation's labs, compared with the store."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from provisioner.app.sweep import JudgedVm, Survey, Sweeping
from provisioner.app.wiring import House
from provisioner.errors import (
    CredentialError,
    GuestUnreachableError,
    NotProvedError,
    PrivilegeError,
)
from provisioner.model.lab import GuestIdentity, GuestRecord, Lab, Lease
from provisioner.model.observed import ObservedVm, Ownership, PowerState, Sight
from provisioner.model.spec import Site
from provisioner.rules.adoption import (
    FoundGuest,
    FoundLab,
    Refusal,
    build_adopted,
    build_closed,
    build_guest,
    find_labs,
)
from provisioner.rules.naming import build_vm_name
from provisioner.rules.receipt import list_doubts_of_sight
from provisioner.rules.states import CLOSED_STATES
from provisioner.rules.sweep import GRACE, list_doubts
from provisioner.rules.userdata import HOST_KEY_INFO, parse_published_host_key

LOOK_S = 5.0
"""How long to wait for what a guest has told long ago."""


@dataclass(frozen=True)
class Adoption:
    """A generation of a lab to record. `closes` is the earlier one that the store believes in."""

    lab: Lab
    guests: tuple[GuestRecord, ...]
    closes: Lab | None = None


@dataclass(frozen=True)
class Extension:
    """A lab that is recorded, and the longer lease that its VMs carry."""

    lab: Lab
    lease: Lease


@dataclass(frozen=True)
class Comparison:
    """How the store and a vCenter differ.

    `known` are recorded labs that stand, `absent` those that the store believes in and of which
    vCenter shows nothing. `refusals` are genuine VMs that stay unknown, `foreign` those that are
    not this installation's.
    """

    adoptions: tuple[Adoption, ...] = ()
    extensions: tuple[Extension, ...] = ()
    known: tuple[Lab, ...] = ()
    absent: tuple[Lab, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    foreign: tuple[JudgedVm, ...] = ()

    def join(self, other: Comparison) -> Comparison:
        """Join the comparisons of two sites; a VM that both see is told once."""
        refusals = {one.vm.instance_uuid: one for one in (*self.refusals, *other.refusals)}
        foreign = {one.vm.instance_uuid: one for one in (*self.foreign, *other.foreign)}
        return Comparison(
            adoptions=self.adoptions + other.adoptions,
            extensions=self.extensions + other.extensions,
            known=self.known + other.known,
            absent=self.absent + other.absent,
            refusals=tuple(refusals.values()),
            foreign=tuple(foreign.values()),
        )


class Comparing:
    """One site's comparison. Reads only."""

    def __init__(self, house: House, site: Site) -> None:
        self._house = house
        self._site = site
        self._hypervisor = house.get_hypervisor(site)

    def compare(self, all_sites: Collection[str]) -> Comparison:
        """Compare the store with what vCenter shows of this site's labs.

        VMs of labs of other sites are left to those, unless there is no file of their site.

        Raises:
            PrivilegeError: vCenter hides objects.
            NotProvedError: it is not the vCenter of the recorded labs, or was rolled back.
        """
        sight = self._check_sight()
        survey = Sweeping(self._house, self._site).survey(GRACE)
        ours = [one.vm for one in survey.vms if one.vm.ownership is Ownership.OURS]
        recorded = survey.known.living | survey.known.closed
        found, unread = find_labs(vm for vm in ours if vm.identity not in recorded)
        mine, refusals = list[FoundLab](), list(unread)
        for one in found:
            if why := self._find_obstacle(one, all_sites, sight):
                refusals += [Refusal(guest.vm, why) for guest in one.guests]
            elif one.lab.site == self._site.site:
                mine.append(one)
        newest = {one.lab.lab_id: one.lab.generation for one in found}
        first = {one.lab.lab_id: one.lab.generation for one in reversed(mine)}
        known, absent = self._look_at_recorded(survey)
        return Comparison(
            adoptions=tuple(
                self._build_adoption(
                    one,
                    sight,
                    is_first=first[one.lab.lab_id] == one.lab.generation,
                    is_newest=newest[one.lab.lab_id] == one.lab.generation,
                )
                for one in mine
            ),
            extensions=tuple(self._find_extensions(known, ours)),
            known=known,
            absent=absent,
            refusals=tuple(refusals),
            foreign=tuple(one for one in survey.vms if one.vm.ownership is not Ownership.OURS),
        )

    def _check_sight(self) -> Sight:
        sight = self._hypervisor.check_sight()
        if lacking := "; ".join((*sight.missing_privileges, *sight.missing_objects)):
            raise PrivilegeError(
                f"the account of site {self._site.site} does not see everything: {lacking}",
                hint="docs/runbook.md lists the vSphere role that labctl needs",
            )
        if doubts := list_doubts(self._list_living(), sight):
            raise NotProvedError(
                f"site {self._site.site} cannot be compared: {'; '.join(doubts)}",
                hint="look by hand which VMs exist, then close what is lost: labctl forget",
            )
        return sight

    def _list_living(self) -> tuple[Lab, ...]:
        labs = self._house.store.list_labs()
        return tuple(lab for lab in labs if lab.site == self._site.site)

    def _look_at_recorded(self, survey: Survey) -> tuple[tuple[Lab, ...], tuple[Lab, ...]]:
        """Part the site's living labs into those that show a VM and those that do not."""
        living = self._list_living()
        seen = {identity.lab_id for identity in survey.known.living}
        known = tuple(lab for lab in living if lab.lab_id in seen)
        return known, tuple(lab for lab in living if lab.lab_id not in seen)

    def _find_obstacle(self, found: FoundLab, all_sites: Collection[str], sight: Sight) -> str:
        """Say why the store cannot take in a lab; empty when it can."""
        lab, newest = found.lab, self._house.store.find_lab(found.lab.lab_id)
        if lab.site not in all_sites:
            return f"its lab stands on site {lab.site}, of which there is no file"
        if newest is not None and newest.generation >= lab.generation:
            return f"generation {newest.generation} of its lab is recorded, without this VM"
        is_here = lab.site == self._site.site
        return "; ".join(list_doubts_of_sight(lab, sight)) if is_here else ""

    def _build_adoption(
        self, found: FoundLab, sight: Sight, *, is_first: bool, is_newest: bool
    ) -> Adoption:
        """Build what to record of a generation; the first one closes what the store believes in."""
        newest, now = self._house.store.find_lab(found.lab.lab_id), self._house.clock.now()
        lives = newest is not None and newest.state not in CLOSED_STATES
        guests = {one.guest.identity.slot: self._learn(one) for one in found.guests}
        if is_newest:
            doubts = tuple(self._find_doubts(found, tuple(guests.values())))
            lab = build_adopted(found, doubts, sight.event_key, now)
            guests |= {slot: self._plan_guest(lab, slot) for slot in found.missing}
        else:
            lab = build_closed(found, now)
        order = [spec.slot for spec in lab.blueprint.guests if spec.slot in guests]
        return Adoption(
            lab=lab,
            guests=tuple(guests[slot] for slot in order),
            closes=newest if lives and is_first else None,
        )

    def _plan_guest(self, lab: Lab, slot: str) -> GuestRecord:
        """Plan a guest that is missing: provision can clone it anew."""
        identity = GuestIdentity(lab.lab_id, lab.generation, slot, str(uuid.uuid4()))
        return GuestRecord(identity, build_vm_name(lab.lab_id, slot), secrets.token_hex(16))

    def _learn(self, found: FoundGuest) -> GuestRecord:
        """Build a guest's record with its host key, if it is known, and the address it has now."""
        guest, address = build_guest(found, self._site), ""
        if found.vm.power_state is PowerState.ON and guest.mac:
            with suppress(GuestUnreachableError):
                address = self._hypervisor.wait_for_address(guest.identity, guest.mac, LOOK_S)
        return replace(
            guest, host_key=guest.host_key or self._find_host_key(guest), address=address
        )

    def _find_host_key(self, guest: GuestRecord) -> str:
        """Read the host key that a guest published; empty when it is not shown any more."""
        try:
            text = self._hypervisor.wait_for_guestinfo(guest.identity, HOST_KEY_INFO, LOOK_S)
            return parse_published_host_key(text, guest.nonce)
        except (GuestUnreachableError, CredentialError):
            return ""

    def _find_doubts(self, found: FoundLab, guests: tuple[GuestRecord, ...]) -> Iterator[str]:
        """Say what labctl lacks to work on a lab's guests."""
        try:
            self._house.credentials.get_lab_key(found.lab.lab_id, found.lab.generation)
        except CredentialError as error:
            yield error.what
        for guest in guests:
            if not guest.host_key:
                yield f"{guest.vm_name} does not show its host key"

    def _find_extensions(
        self, known: tuple[Lab, ...], vms: list[ObservedVm]
    ) -> Iterator[Extension]:
        """Find longer leases: a lab may have been extended after the backup of the store."""
        found = {(one.lab.lab_id, one.lab.generation): one.lab for one in find_labs(vms)[0]}
        for lab in known:
            shown = found.get((lab.lab_id, lab.generation))
            if shown is not None and shown.lease.ends_at > lab.lease.ends_at:
                yield Extension(lab, shown.lease)
