"""The passphrase of a backup: from a file, or typed; never an argument, never the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from provisioner.errors import NotConfirmedError
from provisioner.files.site import read_password_file

FILE = click.Path(dir_okay=False, path_type=Path)


def passphrase_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--passphrase-file`."""
    return click.option(
        "--passphrase-file",
        type=FILE,
        metavar="F",
        help="A file of mode 0600 with the passphrase in one line; by default it is typed.",
    )(function)


def read_passphrase(file: Path | None, *, twice: bool) -> str:
    """Read the passphrase from its file, or ask the person at the terminal.

    Raises InputError when the file is open to others, NotConfirmedError when nobody is there.
    """
    if file is not None:
        return read_password_file(file, f"--passphrase-file {file}")
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            "nobody is at the terminal to type the passphrase", hint="say --passphrase-file F"
        )
    typed: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True)
    return typed
