"""labctl status."""

from __future__ import annotations

from collections.abc import Sequence

import click

from provisioner.app.drift import GuestDrift, observe_drift
from provisioner.app.labs import Labs
from provisioner.app.leases import find_stopped_timers
from provisioner.cli.options import verb
from provisioner.cli.output import Output
from provisioner.model.lab import WorkItem, WorkStatus
from provisioner.rules.lease import describe_lease
from provisioner.rules.states import CLOSED_STATES


@verb("status", "labctl status ana-mlops")
@click.argument("lab_id", metavar="LAB")
def command(labs: Labs, out: Output, lab_id: str) -> None:
    """Show a lab and its guests, and what vCenter shows otherwise than it is recorded."""
    lab = labs.get_lab(lab_id)
    guests: tuple[GuestDrift, ...] = ()
    timers = None
    if lab.state not in CLOSED_STATES:
        out.banner(labs.get_site_of(lab))
        guests = observe_drift(labs, lab)
        timers = find_stopped_timers(labs.house, lab.site)
    work = labs.house.store.find_last_work(lab_id)
    out.document({"lab": lab, "guests": guests, "timers": timers, "work": work})
    out.say(f"Lab {lab.lab_id}, generation {lab.generation}: {lab.state.value} {lab.note}".rstrip())
    out.say(f"  hire       {lab.hire.email} (login {lab.hire.login})")
    out.say(f"  blueprint  {lab.blueprint.blueprint}")
    out.say(f"  lease      {describe_lease(lab, labs.house.clock.now())}")
    if timers:
        out.say(f"  timers     {timers}")
    if work and work.status is not WorkStatus.DONE:
        out.say(f"  work       {_describe_work(work)}")
    if guests:
        out.table(
            ("GUEST", "VM", "MOREF", "POWER", "ADDRESS", "MAC"), [_row(guest) for guest in guests]
        )
        _show_drift(out, guests)


def _describe_work(work: WorkItem) -> str:
    why = f": {work.error['what']}" if work.error else ""
    return f"{work.workflow} {work.status}{why}"


def _row(guest: GuestDrift) -> tuple[str, ...]:
    record, vm = guest.record, guest.vm
    return (
        record.identity.slot,
        record.vm_name,
        vm.moref if vm else "-",
        vm.power_state.value if vm else "not seen",
        record.address or "-",
        record.mac or "-",
    )


def _show_drift(out: Output, guests: Sequence[GuestDrift]) -> None:
    rows = [
        (guest.record.identity.slot, one.what, one.recorded, one.observed)
        for guest in guests
        for one in guest.drift
    ]
    if rows:
        out.table(("GUEST", "DIFFERS", "RECORDED", "IN VCENTER"), rows)
    what = {0: "Nothing differs", 1: "1 thing differs"}.get(len(rows), f"{len(rows)} things differ")
    out.say(f"{what} from the record.")
