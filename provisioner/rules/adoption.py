"""What a store that was lost learns from vCenter: the decision of `labctl adopt`.

A VM that carries a genuine mark carries a dossier beside it. Together they say which labs this
installation made; everything else is refused with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from provisioner.errors import StoreError
from provisioner.model.lab import (
    Desired,
    GuestRecord,
    GuestState,
    Lab,
    LabState,
    Lease,
)
from provisioner.model.observed import ObservedVm, PowerState
from provisioner.model.spec import Site
from provisioner.rules.dossier import parse_dossier


@dataclass(frozen=True)
class Refusal:
    """A genuine VM that cannot be adopted, and why."""

    vm: ObservedVm
    why: str


@dataclass(frozen=True)
class FoundGuest:
    """A genuine VM, and what its dossier says of the guest and of its lab."""

    vm: ObservedVm
    lab: Lab
    guest: GuestRecord


@dataclass(frozen=True)
class FoundLab:
    """One generation of a lab as its VMs tell it; `missing` are the slots without a VM.

    Where their dossiers differ, the longest lease is the newest.
    """

    lab: Lab
    guests: tuple[FoundGuest, ...]
    missing: tuple[str, ...]


def find_labs(vms: Iterable[ObservedVm]) -> tuple[tuple[FoundLab, ...], tuple[Refusal, ...]]:
    """Group genuine VMs by lab and generation, lowest generation first; refuse the unreadable."""
    groups: dict[tuple[str, int], list[FoundGuest]] = {}
    refusals: list[Refusal] = []
    for vm in vms:
        try:
            found = _read(vm)
        except StoreError as error:
            refusals.append(Refusal(vm, error.what))
        else:
            groups.setdefault((found.lab.lab_id, found.lab.generation), []).append(found)
    labs: list[FoundLab] = []
    for _, guests in sorted(groups.items()):
        slots = Counter(one.guest.identity.slot for one in guests)
        if twice := [slot for slot, count in slots.items() if count > 1]:
            why = f"several VMs say that they are the lab's {', '.join(twice)}"
            refusals += [Refusal(one.vm, why) for one in guests]
        else:
            labs.append(_build_found(guests, slots))
    return tuple(labs), tuple(refusals)


def _read(vm: ObservedVm) -> FoundGuest:
    if not vm.dossier:
        raise StoreError("it carries no genuine dossier, so nothing says what its lab was")
    lab, guest = parse_dossier(vm.dossier)
    named = (lab.lab_id, lab.generation)
    slots = {spec.slot for spec in lab.blueprint.guests}
    is_same = guest.identity == vm.identity and guest.identity.slot in slots
    if not is_same or named != (guest.identity.lab_id, guest.identity.generation):
        raise StoreError("its dossier is about another guest than its mark")
    return FoundGuest(vm, lab, guest)


def _build_found(guests: list[FoundGuest], slots: Iterable[str]) -> FoundLab:
    lab = max((one.lab for one in guests), key=lambda lab: lab.lease.ends_at)
    order = [spec.slot for spec in lab.blueprint.guests]
    return FoundLab(
        lab=lab,
        guests=tuple(sorted(guests, key=lambda one: order.index(one.guest.identity.slot))),
        missing=tuple(slot for slot in order if slot not in set(slots)),
    )


def build_guest(found: FoundGuest, site: Site) -> GuestRecord:
    """Build the record of a guest whose VM stands; its birth disks only when they are beyond doubt.

    Where a NIC's portgroup is not told by name, the first NIC is the guest's own.
    """
    vm, guest = found.vm, found.guest
    specs = {spec.slot: spec for spec in found.lab.blueprint.guests}
    wanted = site.networks.get(specs[guest.identity.slot].networks[0], "").rpartition("/")[2]
    nics = sorted(vm.nics, key=lambda nic: nic.network != wanted)
    return replace(
        guest,
        state=GuestState.STANDING,
        moref=vm.moref,
        mac=nics[0].mac if nics else "",
        birth_disks=vm.find_birth_disks(guest.pin.disk_count) if guest.pin is not None else (),
    )


def build_adopted(found: FoundLab, doubts: Iterable[str], event_key: int, now: datetime) -> Lab:
    """Build the record of a lab that stands.

    It is `failed` when a guest is missing; `expired` when all are off, so that its lease decides
    whether it is brought back; `failed` too when labctl could not work on it; else `ready`.

    Args:
        found: the lab and its VMs.
        doubts: what labctl lacks to work on its guests, in plain words.
        event_key: vCenter's newest event.
        now: aware UTC. A lab that is due to be destroyed gets its grace time once more.
    """
    lab, lease = found.lab, found.lab.lease
    lacking = [f"{slot} has no VM" for slot in found.missing] + list(doubts)
    if found.missing:
        state = LabState.FAILED
    elif all(one.vm.power_state is PowerState.OFF for one in found.guests):
        state = LabState.EXPIRED
    else:
        state = LabState.FAILED if lacking else LabState.READY
    if now >= lease.ends_at + lease.grace_for:
        lease = Lease(now.replace(microsecond=0), lease.grace_for)
    return replace(
        lab,
        lease=lease,
        event_key=event_key,
        desired=Desired.PRESENT,
        state=state,
        ready_at=None if lacking else now,
        note=f"adopted from vCenter: {'; '.join(lacking)}" if lacking else "",
    )


def build_closed(found: FoundLab, now: datetime) -> Lab:
    """Build the record of a generation that was closed, because a later one was made after it."""
    return replace(
        found.lab,
        desired=Desired.ABSENT,
        state=LabState.FORGOTTEN,
        closed_at=now,
        note="adopted from vCenter: a later generation was made, so this one was closed",
    )
