"""The options that name a lab to be: shared by `plan` and `provision`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from provisioner.app.labs import Request, read_text

Function = Callable[..., Any]


def request_options(function: Function) -> Function:
    """Add blueprint, hire, key, days and login; the verb gets them as one `request`."""

    def with_request(
        labs: Any,
        out: Any,
        blueprint: str,
        email: str,
        key_file: Path,
        days: int | None,
        login: str | None,
        **rest: Any,
    ) -> Any:
        key = read_text(key_file, "public key")
        request = Request(blueprint=blueprint, email=email, key_text=key, days=days, login=login)
        return function(labs, out, request, **rest)

    with_request.__doc__ = function.__doc__
    options = (
        click.argument("blueprint"),
        click.option("--hire", "email", required=True, metavar="EMAIL", help="The new engineer."),
        click.option(
            "--key",
            "key_file",
            required=True,
            type=click.Path(path_type=Path),
            help="File with the hire's SSH public key.",
        ),
        click.option(
            "--days", type=int, help="Days until the lab ends (default: the blueprint's)."
        ),
        click.option("--login", help="Login on the guests (default: from the e-mail address)."),
    )
    decorated: Function = with_request
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
