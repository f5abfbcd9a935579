"""Which datastore each guest goes to, and whether there is room at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.errors import CapacityError, InputError
from provisioner.model.observed import ObservedSite, ObservedTemplate
from provisioner.model.spec import GuestSpec

GROWTH_SHARE = 0.25
GROWTH_MIN_GIB = 4.0
MIB_PER_GIB = 1024


def place_guests(
    guests: Iterable[GuestSpec],
    observed: ObservedSite,
    datastores: Sequence[str],
    reserve_gib: float,
) -> tuple[tuple[str, str], ...]:
    """Choose a datastore for each guest: the usable one with most room left.

    What earlier guests of the lab were promised is counted as taken. `build_need_gib` says what
    a guest needs.

    Args:
        guests: those that have no VM yet, in the blueprint's order.
        observed: the site as it is now.
        datastores: names of the site file that may be used; the first wins a tie.
        reserve_gib: what must stay free on each datastore.

    Returns:
        Slot and datastore name of each guest.

    Raises:
        InputError: a VM template is not there or not fit to be cloned.
        CapacityError: no datastore has the room.
    """
    seen = {datastore.name: datastore for datastore in observed.datastores}
    usable = [seen[name] for name in datastores if name in seen and seen[name].usable]
    room_gib = {datastore.name: datastore.free_gib - reserve_gib for datastore in usable}
    placed: list[tuple[str, str]] = []
    for guest in guests:
        need_gib = build_need_gib(guest, get_template(observed, guest.vm_template))
        best = max(room_gib, key=lambda name: room_gib[name], default=None)
        if best is None or room_gib[best] < need_gib:
            rooms = ", ".join(
                f"{name} has {max(room_gib[name], 0):.1f} GiB"
                if name in room_gib
                else f"{name} cannot be used"
                for name in datastores
            )
            raise CapacityError(
                f"no datastore has room for guest {guest.slot}: it needs {need_gib:.1f} GiB; "
                f"{rooms} beside the reserve of {reserve_gib:g} GiB and this lab's other guests",
                hint="free space, add a datastore to the site file, or tear down a lab",
            )
        room_gib[best] -= need_gib
        placed.append((guest.slot, best))
    return tuple(placed)


def build_need_gib(guest: GuestSpec, template: ObservedTemplate) -> float:
    """Return what a guest may take of its datastore, in GiB.

    A linked clone begins at almost nothing. It takes a swap file of its whole memory when it is
    powered on, and its delta disk grows with what is written: counted is a quarter of the VM
    template's disk, and at least 4 GiB.
    """
    growth_gib = max(GROWTH_MIN_GIB, template.disk_gib * GROWTH_SHARE)
    return guest.memory_mib / MIB_PER_GIB + growth_gib


def get_template(observed: ObservedSite, name: str) -> ObservedTemplate:
    """Return a VM template of the site. Raises InputError when it is not fit to be cloned."""
    for template in observed.templates:
        if template.name == name and template.fit:
            return template
        if template.name == name:
            raise InputError(
                f"VM template {name} ({template.path}) cannot be cloned: {template.problem}",
                hint="mend it in vCenter, or name another one in the site file",
            )
    raise InputError(
        f"there is no VM template {name} on {observed.vcenter_name}",
        hint="mend vm_templates in the site file",
    )
