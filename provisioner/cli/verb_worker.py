"""labctl worker."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

import click

from provisioner.app.wiring import House
from provisioner.app.worker_process import holding_the_lock
from provisioner.errors import CredentialError


@click.command("worker", epilog="\b\nExample:\n  labctl worker")
@click.option("--idle-s", type=float, help="End after so many seconds without work.")
@click.option("--passwords-from-stdin", is_flag=True, hidden=True)
def command(idle_s: float | None, *, passwords_from_stdin: bool) -> None:
    """Do the work that the other verbs ask for, until stopped.

    One runs for each state folder. As a service it is bootstrap/labctl-worker.service; without
    one, a verb that needs work done starts a worker by itself. SIGTERM ends it after the steps
    under way, and the next one continues there; so it does after a kill or a power cut.
    """
    typed = json.load(sys.stdin) if passwords_from_stdin else {}
    house = House(ask_password=_build_asking(typed))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr
    )
    _stop_on_signals(house.stopping)
    with holding_the_lock(house.state):
        _work(house, idle_s)
    sys.stdout.flush()
    os._exit(0)  # threads that wait for nothing any more must not keep the process


def _stop_on_signals(stopping: threading.Event) -> None:
    """Set an event on SIGTERM and SIGINT, from a thread.

    A handler runs on top of whatever the main thread does: setting an event there could wait for
    a lock that the same thread holds.
    """
    waking, woken = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(woken, b"."))

    def watch() -> None:
        os.read(waking, 1)
        stopping.set()

    threading.Thread(target=watch, name="signals", daemon=True).start()


def _work(house: House, idle_s: float | None) -> None:
    from provisioner.app.worker import Worker

    engine = house.open_engine()
    try:
        Worker(house, engine, idle_s).run()
    finally:
        engine.close()
        house.close()


def _build_asking(typed: dict[str, str]) -> Callable[[str], str]:
    def ask(who: str) -> str:
        if who not in typed:
            raise CredentialError(
                f"the worker was not told the password of {who}",
                hint="set password_file or password_command in the site file, or end the worker:"
                " a verb asks for the password and starts another one",
            )
        return typed[who]

    return ask
