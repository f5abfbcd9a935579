"""labctl extend."""

from __future__ import annotations

from datetime import datetime

import click

from provisioner.app.following import follow
from provisioner.app.labs import Labs
from provisioner.app.leases import Extension, Leases
from provisioner.cli.options import following, verb
from provisioner.cli.output import Output


@verb("extend", "labctl extend ana-mlops --until 2026-04-30")
@click.argument("lab_id", metavar="LAB")
@click.option("--days", type=int, help="So many days more (from now when the lease is over).")
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD", help="The last day (UTC)."
)
def command(
    labs: Labs, out: Output, lab_id: str, *, days: int | None, until: datetime | None
) -> None:
    """Extend a lab's lease, as far as its blueprint allows from the day it was made.

    A lab that is powered off because its lease had ended is brought back, and this is followed.
    """
    lab = labs.get_living_lab(lab_id)
    out.banner(labs.get_site_of(lab))
    extension = Leases(labs.house).extend(lab, days=days, until=until.date() if until else None)
    _show(out, extension)
    if extension.revival is not None:
        with following("revival"), out.progress(labs.house.store.usual_s) as on_row:
            follow(labs.house, extension.revival, on_row)
        out.say(f"Lab {lab_id} is {labs.get_lab(lab_id).state}.")
    out.document(extension)


def _show(out: Output, extension: Extension) -> None:
    out.say(f"Lab {extension.lab_id}")
    out.say(f"  was until  {extension.old_end:%Y-%m-%d %H:%M} UTC")
    out.say(f"  now until  {extension.new_end:%Y-%m-%d %H:%M} UTC")
