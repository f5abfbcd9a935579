"""labctl forget."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import confirm, verb
from provisioner.cli.output import Output


@verb("forget", 'labctl forget ana-mlops --reason "vCenter was reinstalled"')
@click.argument("lab_id", metavar="LAB")
@click.option("--reason", required=True, help="Why there is nothing left to ask.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(labs: Labs, out: Output, lab_id: str, reason: str, *, yes: bool) -> None:
    """Close a lab of a vCenter that no longer exists. It proves nothing and asks nobody.

    For every other lab use teardown: it removes the VMs and proves it.
    """
    lab = labs.get_living_lab(lab_id)
    confirm(f"Forget lab {lab_id} of {lab.hire.email}? Its VMs may still exist.", yes=yes)
    lab = labs.forget(lab_id, reason)
    out.document(lab)
    out.say(f"Lab {lab_id} is forgotten. This proves nothing: its VMs may still exist somewhere.")
