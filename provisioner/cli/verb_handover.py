"""labctl handover."""

from __future__ import annotations

from pathlib import Path

import click

from provisioner.app.handover import write_handover
from provisioner.app.labs import Labs
from provisioner.cli.options import verb
from provisioner.cli.output import Output


@verb("handover", "labctl handover ana-mlops --out /tmp/for-ana")
@click.argument("lab_id", metavar="LAB")
@click.option(
    "--out", "out_dir", type=click.Path(path_type=Path), help="Where to write (default: the state)."
)
def command(labs: Labs, out: Output, lab_id: str, out_dir: Path | None) -> None:
    """Write what the hire receives: a folder, and the same as .tar.gz. Nothing in it is secret."""
    handover = write_handover(labs, labs.get_living_lab(lab_id), out_dir)
    out.document(handover)
    out.say(f"folder   {handover.folder}")
    out.say(f"to send  {handover.archive}")
    out.say(f"log in   {handover.ssh_command}")
