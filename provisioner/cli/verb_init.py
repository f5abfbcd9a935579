"""labctl init."""

from __future__ import annotations

from provisioner.app.labs import Labs
from provisioner.app.wiring import make_installation
from provisioner.cli.options import verb
from provisioner.cli.output import Output


@verb("init", "labctl init")
def command(labs: Labs, out: Output) -> None:
    """Make this installation's identity and key, once; again it only shows the identity.

    The key signs the mark in every VM. Keep the state folder in your backups: without the key
    labctl cannot prove that a VM is its own.
    """
    installation_id = make_installation(labs.house)
    out.document({"installation": installation_id, "state": labs.house.state})
    out.say(f"installation {installation_id}")
    out.say(f"state folder {labs.house.state}")
