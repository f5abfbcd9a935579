"""What `provision` would do: decided from what is known, with zero writes."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from provisioner.errors import InputError, NameTakenError, RefusedError
from provisioner.model.lab import Hire, Lab, LabState, Lease
from provisioner.model.observed import ObservedSite
from provisioner.model.spec import Blueprint, Site
from provisioner.rules.capacity import place_guests
from provisioner.rules.lease import refuse_expired
from provisioner.rules.naming import build_lab_id, build_vm_name
from provisioner.rules.states import CLOSED_STATES

STANDS = "stands already"
LEAVING = (LabState.TEARING_DOWN, LabState.RESIDUE)

# The steps of workflows.provision, in its order.
STEPS = (
    "preflight",
    "clone",
    "power-on",
    "host-key",
    "address",
    "login",
    "converge",
    "trials",
)


@dataclass(frozen=True)
class PlannedGuest:
    """One guest to be: sizes in MIB, names as in the site file."""

    slot: str
    vm_name: str
    cpus: int
    memory_mib: int
    vm_template: str
    datastore: str
    networks: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True)
class PlannedStep:
    """One step, and the seconds it usually takes; None when it was never done before."""

    name: str
    usual_s: float | None


@dataclass(frozen=True)
class Plan:
    """What would be done. `why` says why there is nothing to do, or what is continued."""

    lab_id: str
    generation: int
    site: str
    vcenter: str
    guests: tuple[PlannedGuest, ...]
    steps: tuple[PlannedStep, ...]
    lease: Lease
    nothing_to_do: bool = False
    why: str = ""


def build_plan(
    blueprint: Blueprint,
    site: Site,
    observed: ObservedSite,
    *,
    hire: Hire,
    lease: Lease,
    existing: Lab | None,
    standing: Container[str] = (),
    usual_s: Callable[[str], float | None],
) -> Plan:
    """Decide what `provision` would do.

    A lab that was begun is continued as it was recorded: with its own blueprint, key and lease.

    Args:
        blueprint: what IT offers now.
        site: where it would go.
        observed: the site as vCenter shows it.
        hire: whom it is for.
        lease: what a new lab would get.
        existing: the newest generation of the lab of that id, closed or not.
        standing: its guests, by slot, whose VMs stand: they need no room any more.
        usual_s: returns the usual time of a step, in seconds, or None.

    Raises:
        RefusedError: the lab of that id is another hire's, another blueprint's, on another site,
            has expired, or is being torn down.
        NameTakenError: a VM of the labs' folder has the name of a guest already.
        InputError: vCenter does not confirm the site file, or a VM template is not fit.
        CapacityError: no datastore has the room.
    """
    lab_id = build_lab_id(hire.login, blueprint.short)
    living = existing if existing and existing.state not in CLOSED_STATES else None
    if living:
        _refuse_other(living, blueprint, site, observed, hire)
    if living and living.state is LabState.READY:
        return Plan(
            lab_id=lab_id,
            generation=living.generation,
            site=site.site,
            vcenter=observed.vcenter_name,
            guests=(),
            steps=(),
            lease=living.lease,
            nothing_to_do=True,
            why=_describe_standing(living, blueprint, hire),
        )
    _refuse_unfit(site, observed)
    wanted = living.blueprint if living else blueprint
    guests = _plan_guests(lab_id, wanted, site, observed, standing if living else ())
    if living is None:
        _refuse_taken(guests, observed)
    return Plan(
        lab_id=lab_id,
        generation=living.generation if living else (existing.generation if existing else 0) + 1,
        site=site.site,
        vcenter=observed.vcenter_name,
        guests=guests,
        steps=tuple(PlannedStep(name, usual_s(name)) for name in STEPS),
        lease=living.lease if living else lease,
        why=f"It was begun before and is {living.state}: it is continued." if living else "",
    )


def _refuse_other(
    living: Lab, blueprint: Blueprint, site: Site, observed: ObservedSite, hire: Hire
) -> None:
    """Refuse when the lab that stands is not the one that is asked for."""
    lab_id = living.lab_id
    if living.hire.email.casefold() != hire.email.casefold():
        raise RefusedError(
            f"lab {lab_id} belongs to {living.hire.email}",
            hint=f"give {hire.email} another login with --login NAME",
        )
    if living.blueprint.blueprint != blueprint.blueprint:
        raise RefusedError(
            f"lab {lab_id} was made from blueprint {living.blueprint.blueprint}",
            hint=f"give one of the two blueprints another `short`, or: labctl teardown {lab_id}",
        )
    if living.site != site.site:
        raise RefusedError(
            f"lab {lab_id} stands on site {living.site}, not on {site.site}",
            hint=f"say --site {living.site}, or tear it down there first",
        )
    if living.vcenter_uuid != observed.vcenter_uuid:
        raise RefusedError(
            f"lab {lab_id} stands on another vCenter than site {site.site} leads to now",
            hint=f'when that vCenter is gone for good: labctl forget {lab_id} --reason "..."',
        )
    if living.state in LEAVING:
        raise RefusedError(
            f"lab {lab_id} is being torn down ({living.state})",
            hint=f"finish it first: labctl teardown {lab_id}",
        )
    refuse_expired(living)


def _describe_standing(living: Lab, blueprint: Blueprint, hire: Hire) -> str:
    """Say that the lab stands, and what of the request it does not follow."""
    text = f"It stands since {living.ready_at or living.created_at:%Y-%m-%d %H:%M} UTC."
    if living.hire.public_key != hire.public_key:
        text += " It keeps the SSH key that it was made with."
    if living.blueprint != blueprint:
        text += (
            " Its blueprint has changed since: tear it down and provision it to get the new one."
        )
    return text


def _refuse_unfit(site: Site, observed: ObservedSite) -> None:
    if observed.problems:
        raise InputError(
            f"{observed.vcenter_name} does not confirm site {site.site}: "
            + "; ".join(observed.problems),
            hint="mend the site file, or the account's rights",
        )


def _plan_guests(
    lab_id: str, blueprint: Blueprint, site: Site, observed: ObservedSite, standing: Container[str]
) -> tuple[PlannedGuest, ...]:
    placement = site.placement
    coming = [guest for guest in blueprint.guests if guest.slot not in standing]
    placed = dict(place_guests(coming, observed, placement.datastores, placement.reserve_gib))
    return tuple(
        PlannedGuest(
            slot=guest.slot,
            vm_name=build_vm_name(lab_id, guest.slot),
            cpus=guest.cpus,
            memory_mib=guest.memory_mib,
            vm_template=guest.vm_template,
            datastore=placed.get(guest.slot, STANDS),
            networks=guest.networks,
            roles=guest.roles,
        )
        for guest in blueprint.guests
    )


def _refuse_taken(guests: tuple[PlannedGuest, ...], observed: ObservedSite) -> None:
    taken = sorted({guest.vm_name for guest in guests} & set(observed.vm_names))
    if taken:
        raise NameTakenError(
            f"the labs' folder has a VM of this name already: {', '.join(taken)}",
            hint="look at it in vCenter: rename it, or take another login with --login",
        )
