"""labctl inventory."""

from __future__ import annotations

import click
import yaml

from provisioner.app.labs import Labs
from provisioner.cli.options import verb
from provisioner.cli.output import Output


@verb("inventory", "labctl inventory ana-mlops > ana-mlops.yml")
@click.argument("lab_id", metavar="LAB")
def command(labs: Labs, out: Output, lab_id: str) -> None:
    """Print a lab's Ansible inventory, for a run by hand with playbooks/converge.yml.

    It names labctl's own key by its path and holds no secret.
    """
    inventory = labs.build_inventory(lab_id)
    out.document(inventory)
    out.say(yaml.safe_dump(inventory, sort_keys=False).rstrip())
