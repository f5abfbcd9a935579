"""labctl converge."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import following, verb
from provisioner.cli.output import Output


@verb("converge", "labctl converge ana-mlops")
@click.argument("lab_id", metavar="LAB")
def command(labs: Labs, out: Output, lab_id: str) -> None:
    """Bring a ready lab's guests back to its blueprint, and prove it by checks and trials.

    Changes only what differs: run it when a check failed, or after an update of a role.
    """
    out.banner(labs.get_site_of(labs.get_lab(lab_id)))
    with following(f"converge of lab {lab_id}"), out.progress(labs.house.store.usual_s) as on_row:
        lab = labs.converge(lab_id, on_row)
    out.document(lab)
    out.say(f"Lab {lab_id} is as its blueprint says.")
