"""labctl restore."""

from __future__ import annotations

from pathlib import Path

import click

from provisioner.app.backup import Restoring, open_backup
from provisioner.app.labs import Labs
from provisioner.cli.options import confirm, verb
from provisioner.cli.output import Output
from provisioner.cli.passphrase import FILE, passphrase_option, read_passphrase


@verb("restore", "labctl restore /mnt/backup/labctl-2026-03-02")
@click.argument("file", type=FILE)
@passphrase_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    labs: Labs, out: Output, file: Path, passphrase_file: Path | None, *, yes: bool
) -> None:
    """Put a backup back into the state folder. What is in the way is moved aside, not deleted.

    Afterwards no lab is ended, and nothing is destroyed, before labctl adopt has compared the
    store with vCenter.
    """
    backup = open_backup(file, read_passphrase(passphrase_file, twice=False))
    restoring = Restoring(labs.house, backup)
    out.say(
        f"{file}: installation {backup.installation_id}, the store of"
        f" {backup.made_at:%Y-%m-%d %H:%M:%S} UTC, keys: {len(backup.keys)}"
    )
    replaced = restoring.list_replaced()
    if replaced:
        names = ", ".join(str(path.relative_to(labs.house.state)) for path in replaced)
        confirm(f"Replace {names} in {labs.house.state}? They are moved aside.", yes=yes)
    aside = restoring.restore()
    out.document({"made_at": backup.made_at, "replaced": replaced, "aside": aside})
    if aside is not None:
        out.say(f"What was there is in {aside}.")
    out.say("Restored. Now run labctl adopt: until then nothing is ended or destroyed.")
