from __future__ import annotations

from datetime import timedelta

import pytest

from provisioner.errors import ClockError, GuestUnreachableError, NotOwnedError, StoppedError
from provisioner.model.lab import Desired, LabState, Lease
from provisioner.model.observed import PowerState
from provisioner.workflows.lease import expire, revive
from tests.fakes.engine import InlineFlow
from tests.fakes.samples import make_audit
from tests.workflows.conftest import FixedClock, World, make_world


def run_expire(world: World, flow: InlineFlow | None = None) -> None:
    expire(flow or InlineFlow(), world.tools, "ana-mlops", 1)


def run_revive(world: World) -> None:
    revive(InlineFlow(), world.tools, "ana-mlops", 1)


def extend(world: World) -> None:
    lease = Lease(world.clock.at + timedelta(days=7), timedelta(days=3))
    world.store.set_lease("ana-mlops", 1, lease, make_audit(action="extend"))


def let_end(world: World) -> None:
    world.clock.at = world.lab.lease.ends_at


def list_power(world: World) -> list[tuple[PowerState, bool]]:
    return [
        (vm.power_state, any(nic.connected for nic in vm.nics)) for vm in world.vcenter.vms.values()
    ]


ON, OFF = (PowerState.ON, True), (PowerState.OFF, False)


@pytest.fixture
def ready() -> World:
    world = make_world("workbench", "tracking")
    world.provision()
    assert list_power(world) == [ON, ON]
    return world


@pytest.fixture
def expired(ready: World) -> World:
    let_end(ready)
    run_expire(ready)
    return ready


def test_at_its_end_a_lab_is_off_and_disconnected_and_nothing_is_destroyed(ready: World) -> None:
    files = set(ready.vcenter.files)
    let_end(ready)
    run_expire(ready)
    assert ready.get_state() is LabState.EXPIRED
    assert list_power(ready) == [OFF, OFF]
    assert ready.vcenter.files == files
    vm = next(iter(ready.vcenter.vms.values()))
    guest = ready.store.list_guests("ana-mlops", 1)[0]
    ready.hypervisor.ensure_powered_on(guest.identity)
    assert vm.power_state is PowerState.ON
    assert not any(nic.connected for nic in vm.nics), "powered on by hand it has no network"


def test_before_its_end_nothing_happens(ready: World) -> None:
    ready.clock.at = ready.lab.lease.ends_at - timedelta(minutes=1)
    run_expire(ready)
    assert ready.get_state() is LabState.READY
    assert list_power(ready) == [ON, ON]


def test_a_lease_extended_meanwhile_leaves_the_lab_as_it_is(ready: World) -> None:
    let_end(ready)
    extend(ready)
    run_expire(ready)
    assert ready.get_state() is LabState.READY
    assert list_power(ready) == [ON, ON]


@pytest.mark.parametrize(("apart_s", "stops"), [(50, False), (-50, False), (70, True), (-70, True)])
def test_clocks_that_disagree_end_no_lab(ready: World, apart_s: int, *, stops: bool) -> None:
    let_end(ready)
    ready.clock.at += timedelta(minutes=5)
    ready.hypervisor.clock = FixedClock(ready.clock.at + timedelta(seconds=apart_s))
    if not stops:
        run_expire(ready)
        assert ready.get_state() is LabState.EXPIRED
        return
    with pytest.raises(ClockError, match="is not ended by the hour: this machine's clock is"):
        run_expire(ready)
    assert ready.get_state() is LabState.READY
    assert list_power(ready) == [ON, ON]


def test_an_expiry_that_was_cut_off_goes_on_where_it_stopped(ready: World) -> None:
    let_end(ready)
    ready.hypervisor.failures["ensure_networks"] = [NotOwnedError("no mark")]
    flow = InlineFlow()
    with pytest.raises(NotOwnedError):
        run_expire(ready, flow)
    assert ready.get_state() is LabState.READY
    run_expire(ready, InlineFlow(flow.values))
    assert ready.get_state() is LabState.EXPIRED
    assert list_power(ready) == [OFF, OFF]


def test_a_guest_without_a_vm_keeps_no_lab_from_its_end(ready: World) -> None:
    ready.vcenter.vms.popitem()
    let_end(ready)
    run_expire(ready)
    assert ready.get_state() is LabState.EXPIRED
    assert list_power(ready) == [OFF]


def test_an_expired_lab_comes_back_ready(expired: World) -> None:
    extend(expired)
    run_revive(expired)
    assert expired.get_state() is LabState.READY
    assert list_power(expired) == [ON, ON]
    assert [step for step, _ in expired.steps("ok")][-8:] == [
        *("connect", "connect", "power-on", "power-on"),
        *("address", "address", "login", "login"),
    ]


def test_a_revived_guest_has_its_present_address(expired: World) -> None:
    vm = next(iter(expired.vcenter.vms.values()))
    machine = expired.shell.machines.pop(vm.addresses[vm.nics[0].mac])
    vm.addresses[vm.nics[0].mac] = "198.18.0.250"
    expired.shell.machines["198.18.0.250"] = machine
    extend(expired)
    run_revive(expired)
    assert expired.store.list_guests("ana-mlops", 1)[0].address == "198.18.0.250"


def test_a_guest_that_lets_nobody_in_keeps_the_lab_expired(expired: World) -> None:
    expired.hypervisor.on_boot = lambda _: None
    for machine in expired.shell.machines.values():
        machine.up = False
    extend(expired)
    with pytest.raises(GuestUnreachableError):
        run_revive(expired)
    assert expired.get_state() is LabState.EXPIRED
    for machine in expired.shell.machines.values():
        machine.up = True
    run_revive(expired)
    assert expired.get_state() is LabState.READY


def test_a_lab_that_had_failed_comes_back_failed(ready: World) -> None:
    note = "1 of 2 checks failed on workbench"
    ready.store.set_state("ana-mlops", 1, LabState.FAILED, ready.clock.now(), note=note)
    let_end(ready)
    run_expire(ready)
    assert ready.get_state() is LabState.EXPIRED
    extend(ready)
    run_revive(ready)
    assert ready.get_state() is LabState.FAILED
    assert ready.lab.note == note


@pytest.mark.parametrize("run", [run_expire, run_revive])
def test_a_teardown_wins(expired: World, run: object) -> None:
    expired.store.set_desired("ana-mlops", 1, Desired.ABSENT, make_audit(action="teardown"))
    before = list_power(expired)
    with pytest.raises(StoppedError):
        run(expired)  # type: ignore[operator]
    assert list_power(expired) == before
