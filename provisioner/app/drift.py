"""What vCenter shows of a lab's guests, and where that differs from the record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.app.labs import Labs
from provisioner.model.lab import GuestRecord, GuestState, Lab
from provisioner.model.observed import ObservedVm
from provisioner.model.spec import Site
from provisioner.ports import Hypervisor
from provisioner.rules.drift import Difference, build_drift


@dataclass(frozen=True)
class GuestDrift:
    """A guest as recorded, the VM of its instance UUID (None: none is seen), and what differs."""

    record: GuestRecord
    vm: ObservedVm | None
    drift: tuple[Difference, ...]


def observe_drift(labs: Labs, lab: Lab) -> tuple[GuestDrift, ...]:
    """Ask vCenter for each guest of a lab and compare it with its record."""
    site = labs.get_site_of(lab)
    return compare_guests(labs.house.get_hypervisor(site), site, lab, labs.list_guests(lab))


def compare_guests(
    hypervisor: Hypervisor, site: Site, lab: Lab, records: Iterable[GuestRecord]
) -> tuple[GuestDrift, ...]:
    """Compare guests of a lab with what its site's vCenter shows of them."""
    sizes_gib = {one.name: one.disk_gib for one in hypervisor.observe_site().templates}
    templates = {spec.slot: spec.vm_template for spec in lab.blueprint.guests}
    guests = []
    for record in records:
        vm, answer = _observe(hypervisor, record)
        template_gib = sizes_gib.get(templates[record.identity.slot]) or None
        drift = build_drift(lab, site, record, vm, template_gib=template_gib, answer=answer)
        guests.append(GuestDrift(record, vm, drift))
    return tuple(guests)


def _observe(hypervisor: Hypervisor, record: GuestRecord) -> tuple[ObservedVm | None, str]:
    """Find the VM of a guest even when its mark is not genuine; else what vCenter answers."""
    vm = hypervisor.find_vm(record.identity)
    if vm is not None or record.state is not GuestState.STANDING:
        return vm, ""
    uuid = record.identity.instance_uuid.lower()
    for marked in hypervisor.list_marked_vms():
        if marked.instance_uuid.lower() == uuid:
            return marked, ""
    rows = hypervisor.collect_evidence(record.identity.lab_id, (record,))
    return None, "; ".join(row.answer for row in rows if row.kind == "uuid" and not row.gone)
