"""labctl list."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.app.leases import find_stopped_timers
from provisioner.cli.options import verb
from provisioner.cli.output import Output
from provisioner.model.lab import Lab
from provisioner.rules.lease import describe_lease
from provisioner.rules.states import CLOSED_STATES


@verb("list", "labctl list --all")
@click.option("--all", "closed", is_flag=True, help="Also labs that are gone or forgotten.")
def command(labs: Labs, out: Output, *, closed: bool) -> None:
    """List labs: whose, where, how far, until when. Asks the store only."""
    found = labs.list_labs(closed=closed)
    out.document(found)
    if not found:
        out.say("No labs.")
        return
    out.table(
        ("LAB", "HIRE", "BLUEPRINT", "SITE", "STATE", "LEASE"),
        [
            (
                lab.lab_id,
                lab.hire.email,
                lab.blueprint.blueprint,
                lab.site,
                lab.state.value,
                _describe(labs, lab),
            )
            for lab in found
        ],
    )
    for site in sorted({lab.site for lab in found if lab.state not in CLOSED_STATES}):
        if stopped := find_stopped_timers(labs.house, site):
            out.say(f"Site {site}: {stopped}")


def _describe(labs: Labs, lab: Lab) -> str:
    if lab.state in CLOSED_STATES:
        return f"closed {lab.closed_at:%Y-%m-%d}" if lab.closed_at else "closed"
    return describe_lease(lab, labs.house.clock.now())
