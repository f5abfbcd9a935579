"""Run a simulated vCenter: ``python -m provisioner.simulator --state DIR``."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioner.simulator.control import ControlError, add_users
from provisioner.simulator.fault_rules import Faults, RuleError
from provisioner.simulator.guests import GuestError, NullGuests
from provisioner.simulator.seed import seed
from provisioner.simulator.server import SoapServer
from provisioner.simulator.state_dir import USERNAME, StateDir, StateError, open_state_dir
from provisioner.simulator.world import Settings, World

if TYPE_CHECKING:
    from provisioner.simulator.guests import GuestRuntime

LOG = logging.getLogger("provisioner.simulator")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        is_loopback, number = ipaddress.ip_address(host).is_loopback, int(port)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: use 127.0.0.1:PORT, 0 for any") from error
    if not is_loopback:
        raise argparse.ArgumentTypeError(f"{host} is no loopback address: use 127.0.0.1:PORT")
    return host, number


def _delay(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    try:
        return name, float(seconds)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: use METHOD=SECONDS") from error


def _list_in(text: str) -> list[Any]:
    """Read a file that holds a list as JSON."""
    try:
        found = json.loads(Path(text).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error
    if not isinstance(found, list):
        raise argparse.ArgumentTypeError(f"{text} holds no list")
    return found


def _rules(text: str) -> list[Any]:
    """Read fault rules; they are refused before anything is made."""
    rules = _list_in(text)
    try:
        Faults().add(*rules)
    except RuleError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error
    return rules


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m provisioner.simulator", description=__doc__)
    add = parser.add_argument
    add("--state", type=Path, required=True, help="folder of this simulator (mode 0700)")
    add("--listen", type=_address, default=("127.0.0.1", 0), help="HOST:PORT, loopback only")
    add("--guests", choices=("null", "containers"), default="containers", help="what VMs run")
    add("--datastore-gib", type=int, default=500, help="capacity of each datastore")
    delay_help = "how long a method, or the task it starts, takes longer; repeatable"
    metavar = "METHOD=SECONDS"
    add(
        "--method-delay", type=_delay, action="append", default=[], metavar=metavar, help=delay_help
    )
    add("--faults", type=_rules, default=[], metavar="FILE", help="fault rules, a list as JSON")
    add("--users", type=_list_in, default=[], metavar="FILE", help="more users, a list as JSON")
    return parser.parse_args(argv)


def _runtime(kind: str, state: StateDir) -> GuestRuntime:
    if kind == "null":
        return NullGuests()
    from provisioner.simulator.containers import ContainerGuests

    return ContainerGuests(state.path)


def serve(options: argparse.Namespace, asked_to_stop: int) -> None:
    """Run a simulator until that pipe holds a byte, then take everything down in order."""
    state = open_state_dir(options.state)
    try:
        guests = _runtime(options.guests, state)
        settings = Settings(USERNAME, state.password, state.instance_uuid, state.first_event_key)
        settings.datastore_gib = options.datastore_gib
        settings.method_delays_s = dict(options.method_delay)
        world = World(guests, settings)
        world.faults.add(*options.faults)
        try:
            seed(world)
            add_users(world, options.users)
            with SoapServer(options.listen, world, state.certificate, state.key) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                host, port = server.server_address[:2]
                state.announce(str(host), port)
                LOG.info("ready: https://%s:%s/sdk", host, port)
                os.read(asked_to_stop, 1)
                state.endpoint.unlink(missing_ok=True)
                world.close()
                server.shutdown()
        finally:
            guests.close()
    finally:
        state.close()


def main(argv: list[str] | None = None) -> int:
    """Run a simulator until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    options = _options(argv)
    # Signals interrupt each other: a lock would wait for itself in a handler, a pipe does not.
    asked_to_stop, stop = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(stop, b"."))
    try:
        serve(options, asked_to_stop)
    except (StateError, GuestError, ControlError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
