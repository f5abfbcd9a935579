"""labctl teardown."""

from __future__ import annotations

import json

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import confirm, following, verb
from provisioner.cli.output import Output
from provisioner.errors import LabctlError
from provisioner.rules.receipt import render_text, to_json
from provisioner.rules.states import CLOSED_STATES


@verb("teardown", "labctl teardown ana-mlops --yes")
@click.argument("lab_id", metavar="LAB")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(labs: Labs, out: Output, lab_id: str, *, yes: bool) -> None:
    """Remove a lab and print the receipt. Exit 0 only when vCenter shows nothing of it any more.

    The hire's access ends first. A disk that was attached by hand stops it before its VM is
    touched: exit 6, detach the disk and run it again.
    """
    lab = labs.get_lab(lab_id)
    if lab.state not in CLOSED_STATES:
        out.banner(labs.get_site_of(lab))
        names = ", ".join(guest.vm_name for guest in labs.list_guests(lab))
        confirm(f"Destroy lab {lab_id} of {lab.hire.email} ({names}) with all its data?", yes=yes)
    try:
        with following("teardown"), out.progress(labs.house.store.usual_s) as on_row:
            labs.teardown(lab_id, on_row)
    except LabctlError as error:
        _show_receipt(labs, out, lab_id, error)
        raise
    _show_receipt(labs, out, lab_id, None)


def _show_receipt(labs: Labs, out: Output, lab_id: str, error: LabctlError | None) -> None:
    receipt = labs.find_receipt(lab_id)
    if receipt is None:
        return
    out.say(render_text(receipt))
    if error is None:
        out.document(json.loads(to_json(receipt)))
