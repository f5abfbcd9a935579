"""The control calls: what tests and demonstrations do to the simulated vCenter besides SOAP.

All take HTTP basic authentication with the simulator's own user, from loopback only. Bodies and
answers are JSON; what makes no sense is refused (400) with a text, and nothing changes.

- ``GET /labctl/faults``: the fault rules, each with how many calls it saw and how often it fired.
- ``POST /labctl/faults``: a list of rules to add (see ``fault_rules``).
- ``DELETE /labctl/faults``: forget them all.
- ``POST /labctl/state``: ``{"remember": name}``, ``{"rollback": name}`` or ``{"restart": true}``;
  the state right after the start is remembered as ``start``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from provisioner.simulator.fault_rules import RuleError
from provisioner.simulator.restore import remember, restart, roll_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from provisioner.simulator.world import World

PREFIX = "/labctl/"


class ControlError(ValueError):
    """A control call makes no sense; the text says why."""


def is_allowed(world: World, client: str, authorization: str) -> bool:
    """Tell whether a request comes from this machine and carries the simulator's own login."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    wanted = f"{world.settings.username}:{world.settings.password}".encode()
    is_own = scheme.lower() == "basic" and hmac.compare_digest(given, wanted)
    return is_own and ipaddress.ip_address(client).is_loopback


def _add_faults(world: World, body: Any) -> Any:
    if not isinstance(body, list):
        raise ControlError("give a list of rules")
    world.faults.add(*body)
    return world.faults.list_rules()


def _clear_faults(world: World, _body: Any) -> Any:
    world.faults.clear()
    return []


def _change_state(world: World, body: Any) -> Any:
    acts: dict[str, Callable[[Any], None]] = {
        "remember": lambda name: remember(world, name),
        "rollback": lambda name: roll_back(world, name),
        "restart": lambda _: restart(world),
    }
    if not isinstance(body, dict) or len(body) != 1 or not set(body) <= set(acts):
        raise ControlError(f"give one of {', '.join(acts)}")
    for name, value in body.items():
        if not isinstance(value, bool if name == "restart" else str) or not value:
            raise ControlError(f"{name} cannot be {value!r}")
        acts[name](value)
    return sorted(world.memories)


ROUTES: dict[tuple[str, str], Callable[[World, Any], Any]] = {
    ("GET", "faults"): lambda world, _: world.faults.list_rules(),
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "state"): _change_state,
}


def control(world: World, verb: str, path: str, body: bytes) -> tuple[HTTPStatus, Any]:
    """Do a control call; return the status and what to answer as JSON."""
    if (act := ROUTES.get((verb, path.removeprefix(PREFIX)))) is None:
        return HTTPStatus.NOT_FOUND, {"error": f"there is no {verb} {path}"}
    try:
        return HTTPStatus.OK, act(world, json.loads(body or b"null"))
    except (ControlError, RuleError, LookupError, json.JSONDecodeError) as error:
        return HTTPStatus.BAD_REQUEST, {"error": error.args[0]}
