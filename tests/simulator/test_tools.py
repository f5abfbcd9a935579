"""What a guest says through its tools: shown to clients, lost at power off, never trusted."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim

from provisioner.simulator.guests import (
    GuestError,
    GuestHardware,
    GuestNic,
    GuestState,
    NullGuests,
    ToolsCallbacks,
)
from provisioner.simulator.machine import MachineTools

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulator.conftest import Client

KEY = "guestinfo.labctl.hostkey"


def options(vm: Any) -> dict[str, str]:
    found = {item.key: item.value for item in vm.config.extraConfig}
    assert found.pop("svga.present") == "TRUE", "every VM has some of its own"
    return found


def powered_on(client: Client, name: str, **config: Any) -> tuple[Any, Any]:
    vm = client.clone(name, **config)
    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.ipAddress", bool)
    return vm, client.simulator.guests.running[vm._moId]


def test_info_set_appears_at_once_and_goes_at_power_off(client: Client) -> None:
    given_value = vim.option.OptionValue(key="guestinfo.given", value="by the clone")
    vm, tools = powered_on(client, "informed", extraConfig=[given_value])
    path = f'config.extraConfig["{KEY}"].value'
    client.filter([vm], [path])
    tools.info_set(KEY, "ssh-ed25519 AAAA")
    tools.info_set("guestinfo.given", "changed by the guest")
    assert client.wait().filterSet[0].objectSet[0].changeSet[0].val == "ssh-ed25519 AAAA"
    assert tools.info_get(KEY) == "ssh-ed25519 AAAA"
    client.do(vm.PowerOffVM_Task())
    assert options(vm) == {"guestinfo.given": "by the clone"}


def test_what_a_client_sets_later_survives(client: Client) -> None:
    vm, tools = powered_on(client, "overruled")
    tools.info_set(KEY, "by the guest")
    value = vim.option.OptionValue(key=KEY, value="by a client")
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[value])))
    client.do(vm.PowerOffVM_Task())
    assert options(vm) == {KEY: "by a client"}


def test_the_tools_of_an_earlier_run_are_not_heard(client: Client) -> None:
    vm, old = powered_on(client, "twice-on")
    client.do(vm.PowerOffVM_Task())
    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.ipAddress", bool)
    old.info_set(KEY, "late")
    old.guest_state(GuestState(powered_on=False, tools_running=False))
    assert KEY not in options(vm)
    assert vm.runtime.powerState == "poweredOn"


def test_a_guest_that_stops_is_powered_off(client: Client) -> None:
    vm, tools = powered_on(client, "stopper")
    tools.guest_state(GuestState(powered_on=False, tools_running=False))
    assert vm.runtime.powerState == "poweredOff"
    assert vm.guest.toolsRunningStatus == "guestToolsNotRunning"
    client.do(vm.PowerOnVM_Task())


@pytest.mark.parametrize("key", ["labctl.mark", "", "guestinfo.\x00", "GUESTINFO.a"])
def test_other_keys_are_out_of_a_guests_reach(client: Client, key: str) -> None:
    mark = vim.option.OptionValue(key="labctl.mark", value="genuine")
    vm, tools = powered_on(client, f"reach {abs(hash(key))}", extraConfig=[mark])
    tools.info_set(key, "forged")
    assert options(vm) == {"labctl.mark": "genuine"}
    assert tools.info_get("labctl.mark") is None


ANY_TEXT = st.text(st.characters(codec=None), max_size=50)


@given(value=ANY_TEXT, name=ANY_TEXT, mac=st.none() | ANY_TEXT, address=ANY_TEXT)
def test_a_hostile_guest_breaks_no_client(
    hostile: tuple[Client, Any, MachineTools], value: str, name: str, mac: str | None, address: str
) -> None:
    _, vm, tools = hostile
    tools.info_set("guestinfo.x", value)
    nic = GuestNic(mac, name, (address, "10.1.2.3/24"))
    tools.guest_state(GuestState(powered_on=True, tools_running=True, hostname=name, nics=(nic,)))
    assert vm.config.hardware.numCPU
    assert vm.guest.net[0].ipAddress[-1] == "10.1.2.3"
    assert vm.guest.ipAddress is None, "no NIC of the VM has that address"


@pytest.fixture(scope="module", name="hostile")
def _hostile(module_client: Client) -> tuple[Client, Any, Any]:
    return module_client, *powered_on(module_client, "hostile")


class StillbornGuests(NullGuests):
    """Guests that stop before their start has returned."""

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        super().power_on(vm, tools)
        self.power_off(vm.vm_id)
        tools.guest_state(GuestState(powered_on=False, tools_running=False))


class BrokenGuests(NullGuests):
    """Guests that cannot be started."""

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        super().power_on(vm, tools)
        self.power_off(vm.vm_id)
        raise GuestError(f"no room for {vm.name}")


def test_a_guest_that_stops_while_it_starts(start: Callable[..., Client]) -> None:
    client = start(guests=StillbornGuests())
    vm = client.clone("stillborn")
    client.do(vm.PowerOnVM_Task())
    assert vm.runtime.powerState == "poweredOff"


def test_a_guest_that_does_not_start_is_a_failed_task(start: Callable[..., Client]) -> None:
    client = start(guests=BrokenGuests())
    vm = client.clone("broken")
    with pytest.raises(vim.fault.GenericVmConfigFault) as caught:
        client.do(vm.PowerOnVM_Task())
    assert caught.value.reason == "no room for broken"
    assert vm.runtime.powerState == "poweredOff"
    client.do(vm.Destroy_Task())
