"""labctl retry."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import following, verb
from provisioner.cli.output import Output


@verb("retry", "labctl retry ana-mlops")
@click.argument("lab_id", metavar="LAB")
def command(labs: Labs, out: Output, lab_id: str) -> None:
    """Ask again for the work that failed last on a lab, and follow it.

    A provision continues at the step that failed; what was done before is not done again.
    """
    out.banner(labs.get_site_of(labs.get_lab(lab_id)))
    with following("work"), out.progress(labs.house.store.usual_s) as on_row:
        lab = labs.retry(lab_id, on_row)
    out.document(lab)
    out.say(f"Lab {lab_id} is {lab.state}.")
