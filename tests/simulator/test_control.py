"""The control call: who may use it, what it refuses, and what it does."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from provisioner.simulator.control import is_allowed
from provisioner.simulator.state_dir import USERNAME
from tests.simulator.conftest import Client, Simulator


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(
    simulator: Simulator, verb: str, path: str, body: Any = None, login: str | None = None
) -> tuple[int, Any]:
    """Do a control call; a text is sent as it is."""
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=simulator.tls, timeout=10
    )
    login = basic(USERNAME, simulator.password) if login is None else login
    text = body if isinstance(body, str | None) else json.dumps(body)
    try:
        connection.request(verb, f"/labctl/{path}", text, {"Authorization": login} if login else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_rules_are_added_listed_and_cleared(client: Client) -> None:
    simulator = client.simulator
    assert ask(simulator, "GET", "faults") == (200, [])
    rule = {"method": "CurrentTime", "what": "vmodl.fault.SystemError", "nth": 2}
    status, listed = ask(simulator, "POST", "faults", [rule])
    assert (status, listed[0]["nth"], listed[0]["fired"]) == (200, 2, 0)
    client.si.CurrentTime()
    with pytest.raises(vmodl.fault.SystemError):
        client.si.CurrentTime()
    (found,) = ask(simulator, "GET", "faults")[1]
    assert (found["seen"], found["fired"]) == (2, 1)
    ask(simulator, "POST", "faults", [rule])
    assert ask(simulator, "DELETE", "faults") == (200, [])
    assert client.si.CurrentTime()
    assert client.si.CurrentTime()


@pytest.mark.parametrize("login", ["", "Basic", "Basic ???", "Bearer x", basic("a", "b")])
def test_only_the_own_login_may_control(client: Client, login: str) -> None:
    rule = {"method": "*", "what": "vmodl.fault.SystemError"}
    for verb, body in (("GET", None), ("POST", [rule]), ("DELETE", None)):
        assert ask(client.simulator, verb, "faults", body, login)[0] == 401
    assert client.si.CurrentTime()


def test_only_this_machine_may_control(simulator: Simulator) -> None:
    login = basic(USERNAME, simulator.password)
    assert is_allowed(simulator.world, "127.0.0.1", login)
    assert not is_allowed(simulator.world, "192.0.2.1", login)
    assert not is_allowed(simulator.world, "127.0.0.1", basic(USERNAME, "wrong"))


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("faults", {"method": "*", "what": "lost"}, "give a list"),
        ("faults", [{"method": "*", "what": "loss"}], "rule 0: 'loss' is neither"),
        ("faults", ["lost"], "rule 0: a rule is an object"),
        ("faults", "[", "Expecting value"),
        ("state", {}, "give an object with some of remember, rollback, restart"),
        ("state", {"remember": "x", "rollback": "start"}, "give one of remember, rollback and"),
        ("state", {"remember": ""}, "remember cannot be ''"),
        ("state", {"restart": "yes"}, "restart cannot be 'yes'"),
        ("state", {"rollback": "never"}, "no state 'never' is remembered: start"),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, path: str, body: Any, text: str) -> None:
    status, answer = ask(client.simulator, "POST", path, body)
    assert status == 400
    assert text in answer["error"]
    assert ask(client.simulator, "GET", "faults") == (200, [])
    assert client.labs.name == "labs"


def test_an_unknown_path(simulator: Simulator) -> None:
    assert ask(simulator, "GET", "state")[0] == 404
    assert ask(simulator, "POST", "nothing", {})[0] == 404


def test_the_inventory_is_remembered_and_rolled_back(client: Client) -> None:
    simulator = client.simulator
    client.clone("kept")
    assert ask(simulator, "POST", "state", {"remember": "now"}) == (200, ["now", "start"])
    client.clone("made since")
    assert ask(simulator, "POST", "state", {"rollback": "now"})[0] == 200
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = client.labs
    again = Client(simulator)
    assert [vm.name for vm in again.labs.childEntity] == ["kept"]
    ask(simulator, "POST", "state", {"rollback": "start"})
    assert Client(simulator).labs.childEntity == []


def test_a_restart_by_hand(client: Client) -> None:
    moid = client.template._moId
    assert ask(client.simulator, "POST", "state", {"restart": True})[0] == 200
    assert Client(client.simulator).template._moId != moid
