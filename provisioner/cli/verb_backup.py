"""labctl backup."""

from __future__ import annotations

from pathlib import Path

import click

from provisioner.app.backup import make_backup
from provisioner.app.labs import Labs
from provisioner.cli.options import verb
from provisioner.cli.output import Output
from provisioner.cli.passphrase import FILE, passphrase_option, read_passphrase


@verb("backup", "labctl backup /mnt/backup/labctl-2026-03-02")
@click.argument("file", type=FILE)
@passphrase_option
def command(labs: Labs, out: Output, file: Path, passphrase_file: Path | None) -> None:
    """Write the store, this installation's key and the labs' keys to one file, sealed.

    Work may go on meanwhile. Without the passphrase nobody can use the file: keep it elsewhere.
    """
    passphrase = read_passphrase(passphrase_file, twice=True)
    backup = make_backup(labs.house, file.absolute(), passphrase)
    out.document({"file": file, "made_at": backup.made_at, "keys": len(backup.keys)})
    out.say(
        f"{file}: the store of {backup.made_at:%Y-%m-%d %H:%M:%S} UTC, keys: {len(backup.keys)}"
    )
