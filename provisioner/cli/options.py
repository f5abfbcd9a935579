"""What every verb has in common: its options, and a wired house for the time it runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from provisioner.app.labs import Labs
from provisioner.app.wiring import House
from provisioner.cli.output import Output
from provisioner.errors import NotConfirmedError

STOPPED_FOLLOWING = 130


def verb(name: str, epilog: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a verb: `--site`, `--json`, an example, and `labs` and `out` as first arguments."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.command(name, epilog=f"\b\nExample:\n  {epilog}")
        @click.option("--site", "site_name", metavar="NAME", help="The site to act on.")
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
        @functools.wraps(function)
        def command(*args: Any, site_name: str | None, as_json: bool, **kwargs: Any) -> Any:
            with open_house() as house:
                return function(Labs(house, site_name), Output(as_json=as_json), *args, **kwargs)

        return command

    return decorate


@contextmanager
def open_house() -> Iterator[House]:
    """Wire a house, and close it whatever happens."""
    house = House(ask_password=lambda who: click.prompt(f"Password of {who}", hide_input=True))
    try:
        yield house
    finally:
        house.close()


@contextmanager
def following(what: str) -> Iterator[None]:
    """While work is followed, Ctrl-C ends the following only, and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"The {what} goes on without you. The same command follows it again; labctl logs LAB"
            " shows how far it is, labctl teardown LAB stops and removes it.",
            err=True,
        )
        sys.exit(STOPPED_FOLLOWING)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed. Raises NotConfirmedError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            "nobody is at the terminal to confirm this", hint="say --yes when you are sure"
        )
    if not click.confirm(question, default=False, err=True):
        raise NotConfirmedError("not confirmed; nothing was changed")
