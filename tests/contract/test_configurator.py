"""What every Configurator promises; the real one runs Ansible on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from provisioner.errors import GuestUnreachableError, PlayFailedError, StoppedError
from provisioner.model.observed import PlayProgress, PlayRecap
from provisioner.ports import Configurator, PlayOrder
from tests.contract.conftest import Ansible
from tests.fakes.configurator import FakeConfigurator

LOCAL = {"ansible_connection": "local"}
DEAD = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-o BatchMode=yes",
}
PASSES: list[dict[str, Any]] = [
    {"name": "Look", "command": "true", "changed_when": False},
    {"name": "Change", "command": "true"},
    {"name": "Skip", "command": "true", "when": "false"},
]
FAILS: list[dict[str, Any]] = [{"name": "Break", "fail": {"msg": "no space on the disk"}}]
PINGS: list[dict[str, Any]] = [{"name": "Ping", "ping": {}}]


@dataclass
class Case:
    """A configurator and what it is to run."""

    configurator: Configurator
    order: PlayOrder
    events: list[PlayProgress] = field(default_factory=list)

    def run(self, *, cancelled: bool = False) -> tuple[PlayRecap, ...]:
        return self.configurator.run_play(self.order, self.events.append, lambda: cancelled)


def event(status: str, name: str, slot: str = "workbench", text: str = "") -> PlayProgress:
    return PlayProgress(slot, "", name, status, text)


@pytest.fixture(params=["fake", "real"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build_case(
    kind: str,
    ansible: Ansible,
    tasks: list[dict[str, Any]],
    hosts: dict[str, Any],
    events: list[PlayProgress],
) -> Case:
    order = ansible.order(tasks, hosts)
    return Case(FakeConfigurator(events) if kind == "fake" else ansible.configurator, order)


def test_a_run_tells_what_it_does_and_counts_it(kind: str, ansible: Ansible) -> None:
    told = [
        event(status, name, slot)
        for name, end in (("Look", "ok"), ("Change", "changed"), ("Skip", "skipped"))
        for status in ("started", end)
        for slot in ("workbench", "tracking")
    ]
    case = build_case(kind, ansible, PASSES, {"workbench": LOCAL, "tracking": LOCAL}, told)
    assert case.run() == (
        PlayRecap("workbench", 2, 1, 0, 0, 1),
        PlayRecap("tracking", 2, 1, 0, 0, 1),
    )
    for slot in ("workbench", "tracking"):
        expected = [row for row in told if row.slot == slot]
        assert [row for row in case.events if row.slot == slot] == expected


def test_a_failed_play_task_is_named_with_its_guest(kind: str, ansible: Ansible) -> None:
    told = [event("started", "Break"), event("failed", "Break", text="no space on the disk")]
    case = build_case(kind, ansible, FAILS, {"workbench": LOCAL}, told)
    with pytest.raises(PlayFailedError) as caught:
        case.run()
    for part in ("Break", "workbench", "no space on the disk"):
        assert part in caught.value.what
    assert case.events == told


def test_an_unreachable_guest_is_named_and_worth_another_try(kind: str, ansible: Ansible) -> None:
    told = [event("started", "Ping"), event("unreachable", "Ping", text="Connection refused")]
    case = build_case(kind, ansible, PINGS, {"workbench": DEAD}, told)
    with pytest.raises(GuestUnreachableError, match="workbench") as caught:
        case.run()
    assert caught.value.retryable
    assert "Connection refused" in caught.value.what
    assert case.events[-1].status == "unreachable"


def test_a_run_that_is_not_wanted_is_stopped(kind: str, ansible: Ansible) -> None:
    told = [event("started", "Sleep")]
    tasks = [{"name": "Sleep", "command": "sleep 120"}]
    case = build_case(kind, ansible, tasks, {"workbench": LOCAL}, told)
    with pytest.raises(StoppedError):
        case.run(cancelled=True)


def test_an_error_of_the_listener_ends_the_run_and_comes_through(
    kind: str, ansible: Ansible
) -> None:
    tasks = [{"name": "Sleep", "command": "sleep 120"}]
    case = build_case(kind, ansible, tasks, {"workbench": LOCAL}, [event("started", "Sleep")])

    def refuse(_event: PlayProgress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        case.configurator.run_play(case.order, refuse, lambda: False)
    assert ansible.run_folders() == []
