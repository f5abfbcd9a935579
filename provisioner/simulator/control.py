"""The control calls: what tests and demonstrations do to the simulated vCenter besides SOAP.

All take HTTP basic authentication with the simulator's own user, from loopback only. Bodies and
answers are JSON; what makes no sense is refused (400) with a text, and nothing changes.

- ``GET /labctl/faults``: the fault rules, each with how many calls it saw and how often it fired.
- ``POST /labctl/faults``: a list of rules to add (see ``fault_rules``).
- ``DELETE /labctl/faults``: forget them all.
- ``POST /labctl/state``: ``{"remember": name}``, ``{"rollback": name}`` or ``{"restart": true}``;
  the state right after the start is remembered as ``start``.
- ``POST /labctl/vm``: ``{"name": .. or "uuid": the instance UUID, "disabled_methods": [WSDL names],
  "connection_state": "connected", "disconnected", "inaccessible" or "orphaned"}``: disables methods
  as a backup does while it runs, or lets vCenter lose the VM; answers with what holds now.
- ``POST /labctl/users``: a list of ``{"name": .., "password": .., "grants": [{"path": "DC0/vm" or
  "/", "privileges": ["VirtualMachine.Interact.PowerOn", ..], "propagate": true}]}``: adds users, or
  replaces those of the same name.
- ``POST /labctl/settings``: some of ``clock_offset_s`` (how far vCenter's clock is ahead),
  ``session_idle_s`` (when an idle session ends), ``datastore_gib`` (of each one: when small, it is
  full) and ``method_delays_s`` (``{WSDL name: seconds}``); answers with all of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from provisioner.simulator.fault_rules import RuleError
from provisioner.simulator.machine import VM, Machine
from provisioner.simulator.permissions import User
from provisioner.simulator.restore import remember, restart, roll_back
from provisioner.simulator.service import find_by_path
from provisioner.simulator.world import METHODS, Record, World

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "/labctl/"
CONNECTION_STATES = ("connected", "disconnected", "inaccessible", "orphaned")


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


def _check(body: Any, **kinds: Any) -> dict[str, Any]:
    """Return a body that is an object with some of these keys, each of its type."""
    if not isinstance(body, dict) or not body or not set(body) <= set(kinds):
        raise ControlError(f"give an object with some of {', '.join(kinds)}")
    for name, value in body.items():
        is_odd = isinstance(value, bool) and kinds[name] is not bool
        if is_odd or not isinstance(value, kinds[name]) or value == "":
            raise ControlError(f"{name} cannot be {value!r}")
    return body


def _change_state(world: World, body: Any) -> Any:
    asked = _check(body, remember=str, rollback=str, restart=bool)
    if len(asked) > 1:
        raise ControlError("give one of remember, rollback and restart")
    if "remember" in asked:
        remember(world, asked["remember"])
    if "rollback" in asked:
        roll_back(world, asked["rollback"])
    if asked.get("restart"):
        restart(world)
    return sorted(world.memories)


def _get_vm(world: World, asked: dict[str, Any]) -> Machine:
    key = "instanceUuid" if "uuid" in asked else "name"
    wanted = asked.get("uuid", asked.get("name"))
    found = [vm for vm in world.of_type(VM) if getattr(vm.config, key) == wanted]
    if len(found) != 1:
        raise ControlError(f"{len(found)} VMs have the {key} {wanted!r}")
    vm: Machine = found[0]
    return vm


def _change_vm(world: World, body: Any) -> Any:
    asked = _check(body, name=str, uuid=str, disabled_methods=list, connection_state=str)
    with world.changed:
        vm = _get_vm(world, asked)
        methods, runtime = asked.get("disabled_methods", vm.disabled_methods), vm.props["runtime"]
        known = [name for kind, name in METHODS if kind is vim.vm.Snapshot or issubclass(VM, kind)]
        for method in methods:
            if method not in known:
                raise ControlError(f"no VM has a method {method!r} here")
        state = asked.get("connection_state", runtime.connectionState)
        if state not in CONNECTION_STATES:
            raise ControlError(f"connection_state is one of {', '.join(CONNECTION_STATES)}")
        vm.disabled_methods, runtime.connectionState = tuple(methods), state
        world.touch(vm)
        return {"disabled_methods": methods, "connection_state": state}


def _change_settings(world: World, body: Any) -> Any:
    number = (int, float)
    names = dict.fromkeys(("clock_offset_s", "session_idle_s", "datastore_gib"), number)
    asked = _check(body, method_delays_s=dict, **names)
    for name, value in (asked.get("method_delays_s") or {}).items():
        _check({name: value}, **{name: number})
    with world.changed:
        for name, value in asked.items():
            setattr(world.settings, name, value)
        world.touch(*world.records.values())
        return {name: getattr(world.settings, name) for name in (*names, "method_delays_s")}


def add_users(world: World, body: Any) -> Any:
    """Add users, or replace those of the same name, all of them or none; return their names.

    Raises:
        ControlError: one makes no sense.
    """
    if not isinstance(body, list):
        raise ControlError("give a list of users")
    users = {}
    for one in body:
        asked = _check(one, name=str, password=str, grants=list)
        if not {"name", "password"} < set(asked) or world.is_administrator(asked["name"]):
            raise ControlError("a user has a name (not the administrator's), password and grants")
        grants = dict(_build_grant(world, grant) for grant in asked["grants"])
        users[asked["name"].lower()] = User(asked["name"], asked["password"], grants)
    with world.changed:
        world.users |= users
        world.touch(*world.records.values())
        return sorted(user.name for user in world.users.values())


def _build_grant(world: World, grant: Any) -> tuple[Record, tuple[frozenset[str], bool]]:
    asked = _check(grant, path=str, privileges=list, propagate=bool)
    record = find_by_path(world, asked["path"]) if "path" in asked else None
    privileges = asked.get("privileges", [None])
    if record is None or not all(isinstance(one, str) for one in privileges):
        raise ControlError(f"a grant has a path that exists and a list of privileges, not {grant}")
    return record, (frozenset(privileges), asked.get("propagate", True))


ROUTES: dict[tuple[str, str], Callable[[World, Any], Any]] = {
    ("GET", "faults"): lambda world, _: world.faults.list_rules(),
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "state"): _change_state,
    ("POST", "vm"): _change_vm,
    ("POST", "users"): add_users,
    ("POST", "settings"): _change_settings,
}


def control(world: World, verb: str, path: str, body: bytes) -> tuple[HTTPStatus, Any]:
    """Do a control call; return the status and what to answer as JSON."""
    if (act := ROUTES.get((verb, path.removeprefix(PREFIX)))) is None:
        return HTTPStatus.NOT_FOUND, {"error": f"there is no {verb} {path}"}
    try:
        return HTTPStatus.OK, act(world, json.loads(body or b"null"))
    except (ControlError, RuleError, LookupError, json.JSONDecodeError) as error:
        return HTTPStatus.BAD_REQUEST, {"error": error.args[0]}
