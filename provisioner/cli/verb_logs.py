"""labctl logs."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import following, verb
from provisioner.cli.output import Output, describe_row


@verb("logs", "labctl logs ana-mlops --guest workbench --step converge")
@click.argument("lab_id", metavar="LAB")
@click.option("--guest", "slot", default="", metavar="SLOT", help="Only this guest.")
@click.option("--step", default="", metavar="NAME", help="Only this step, such as converge.")
@click.option("--follow", "-f", is_flag=True, help="Follow the work under way to its end.")
def command(labs: Labs, out: Output, lab_id: str, slot: str, step: str, *, follow: bool) -> None:
    """Show what was done on a lab, step by step, of all its generations."""
    labs.get_lab(lab_id)
    if follow:
        with following("work"), out.progress(labs.house.store.usual_s) as on_row:
            labs.follow(lab_id, on_row)
    rows = labs.list_progress(lab_id, slot, step)
    out.document(rows)
    for row in rows:
        out.say(f"{row.at:%Y-%m-%d} {describe_row(row)}")
    if not rows:
        out.say("Nothing that fits is in the log.")
