"""What every verb has in common: its options, and a wired house for the time it runs."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from provisioner.app.labs import Labs
from provisioner.app.wiring import House
from provisioner.cli.output import Output
from provisioner.errors import NotConfirmedError


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
def stopping_in_order(house: House) -> Iterator[None]:
    """While work runs, the first Ctrl-C or SIGTERM stops it after the step under way."""

    def stop(signum: int, _frame: object) -> None:
        if house.stopping.is_set():
            signal.signal(signum, signal.SIG_DFL)
        house.stopping.set()
        click.echo("stopping after the step under way; once more leaves at once", err=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
