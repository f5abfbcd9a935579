"""What can be set of a running simulator: its clock, idle sessions, full datastores, guests."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.simulator.guests import GuestHardware, NullGuests
from tests.simulator.conftest import Client, running
from tests.simulator.test_control import ask

DEADLINE_S = 10.0
NEAR = timedelta(minutes=1)


@pytest.fixture(name="client")
def _client(start: Callable[..., Client]) -> Client:
    return start()


def change(client: Client, **settings: Any) -> Any:
    status, answer = ask(client.simulator, "POST", "settings", settings)
    assert status == 200, answer
    return answer


def ahead(when: datetime) -> timedelta:
    return when - datetime.now(UTC)


def test_a_clock_that_disagrees(client: Client) -> None:
    assert abs(ahead(client.si.CurrentTime())) < NEAR
    hour = timedelta(hours=1)
    for offset in (hour, -hour):
        answer = change(client, clock_offset_s=offset.total_seconds())
        assert answer["clock_offset_s"] == offset.total_seconds()
        vm = client.clone(f"made {offset}")
        times = (
            client.si.CurrentTime(),
            client.si.serverClock,
            vm.config.createDate,
            client.content.eventManager.latestEvent.createdTime,
            vm.recentTask[0].info.completeTime if vm.recentTask else client.si.CurrentTime(),
        )
        assert all(abs(ahead(when) - offset) < NEAR for when in times)


def test_an_idle_session_ends_and_a_busy_one_does_not(client: Client) -> None:
    """As if an hour had gone by since their last call."""
    world, busy, late = client.simulator.world, Client(client.simulator), Client(client.simulator)
    busy.filter([busy.labs], ["name"])
    version, ended = busy.wait().version, []
    waiting = threading.Thread(target=lambda: ended.append(busy.wait(version, 60)))
    waiting.start()
    deadline = time.monotonic() + DEADLINE_S
    while not any(one.calls for one in world.sessions.values()):
        assert time.monotonic() < deadline
    for one in world.sessions.values():
        one.used_at_s -= 3600
    assert change(client, session_idle_s=7200)["session_idle_s"] == 7200
    assert late.labs.name == "labs"
    change(client, session_idle_s=1800)
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = client.labs
    late.do(late.labs.Rename_Task("renamed"))
    waiting.join(DEADLINE_S)
    assert ended[0].filterSet[0].objectSet[0].changeSet[0].val == "renamed"


def test_a_datastore_becomes_full(client: Client) -> None:
    store = client.find("DC0/datastore/datastore-0")
    change(client, datastore_gib=1)
    assert (store.summary.capacity, store.summary.freeSpace) == (1024**3, 0)
    with pytest.raises(vim.fault.NoDiskSpace):
        client.clone("no room")
    change(client, datastore_gib=500)
    client.clone("room")


def test_methods_take_longer(client: Client) -> None:
    change(client, method_delays_s={"CurrentTime": 0.3})
    began = time.monotonic()
    client.si.CurrentTime()
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "give an object with some of method_delays_s"),
        ({"clock": 1}, "give an object with some of"),
        ({"clock_offset_s": "1"}, "clock_offset_s cannot be '1'"),
        ({"datastore_gib": True}, "datastore_gib cannot be True"),
        ({"method_delays_s": {"CurrentTime": "soon"}}, "CurrentTime cannot be 'soon'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(client: Client, settings: Any, text: str) -> None:
    before = change(client, clock_offset_s=0)
    status, answer = ask(client.simulator, "POST", "settings", settings)
    assert (status, text in answer["error"]) == (400, True), answer
    assert change(client, clock_offset_s=0) == before


def test_a_null_guest_publishes_what_it_is_told_to(tmp_path: Path) -> None:
    def publish(booted: GuestHardware) -> dict[str, str]:
        return {"guestinfo.answer": booted.guestinfo["guestinfo.question"] + "!", "other": "x"}

    guests = NullGuests(boot_s=0.02, on_boot=publish)
    with running(tmp_path / "state", guests) as simulator:
        client = Client(simulator)
        asked = [vim.option.OptionValue(key="guestinfo.question", value="who")]
        vm = client.clone("talks", extraConfig=asked)
        client.do(vm.PowerOnVM_Task())
        client.wait_until(vm, "guest.ipAddress", bool)
        options = {one.key: one.value for one in vm.config.extraConfig}
        assert options["guestinfo.answer"] == "who!"
        assert "other" not in options


def test_what_a_vm_is_known_by_stays(client: Client) -> None:
    """Its disk's UUID and its files stay, its changeVersion is new with each change."""
    vm = client.clone("known")

    def known() -> tuple[Any, ...]:
        (disk,) = [one for one in vm.config.hardware.device if hasattr(one, "capacityInKB")]
        return vm.config.createDate, vm.config.files.vmPathName, disk.backing.uuid, vm.parent

    before, versions = known(), [vm.config.changeVersion]
    assert all(before)
    for act in (
        lambda: vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=1)),
        lambda: vm.Rename_Task("renamed"),
        lambda: vm.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=2)),
    ):
        client.do(act())
        versions.append(vm.config.changeVersion)
    assert known() == before
    assert len(set(versions)) == len(versions)
    other = client.clone("other")
    disks = [one for one in other.config.hardware.device if hasattr(one, "capacityInKB")]
    assert disks[0].backing.uuid != before[2]
