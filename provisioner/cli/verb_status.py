"""labctl status."""

from __future__ import annotations

import click

from provisioner.app.labs import GuestStatus, Labs
from provisioner.cli.options import verb
from provisioner.cli.output import Output
from provisioner.rules.lease import describe_lease
from provisioner.rules.states import CLOSED_STATES


@verb("status", "labctl status ana-mlops")
@click.argument("lab_id", metavar="LAB")
def command(labs: Labs, out: Output, lab_id: str) -> None:
    """Show a lab and its guests, as recorded and as vCenter shows them now."""
    lab = labs.get_lab(lab_id)
    guests: tuple[GuestStatus, ...] = ()
    if lab.state not in CLOSED_STATES:
        out.banner(labs.get_site_of(lab))
        guests = labs.observe_guests(lab)
    out.document({"lab": lab, "guests": guests})
    out.say(f"Lab {lab.lab_id}, generation {lab.generation}: {lab.state.value} {lab.note}".rstrip())
    out.say(f"  hire       {lab.hire.email} (login {lab.hire.login})")
    out.say(f"  blueprint  {lab.blueprint.blueprint}")
    out.say(f"  lease      {describe_lease(lab.lease, labs.house.clock.now())}")
    if guests:
        out.table(
            ("GUEST", "VM", "MOREF", "POWER", "ADDRESS", "MAC"), [_row(guest) for guest in guests]
        )


def _row(guest: GuestStatus) -> tuple[str, ...]:
    record, vm = guest.record, guest.vm
    power = vm.power_state.value if vm else "missing in vCenter"
    moref = vm.moref if vm else "-"
    return (
        record.identity.slot,
        vm.name if vm else record.vm_name,
        moref,
        power,
        record.address or "-",
        record.mac or "-",
    )
