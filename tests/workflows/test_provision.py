from __future__ import annotations

import pytest

from provisioner.errors import (
    CheckFailedError,
    HostKeyError,
    LabctlError,
    PlayFailedError,
    RolledBackError,
    StoppedError,
    TaskFailedError,
    TeardownIncompleteError,
    TemplateChangedError,
    VmGoneError,
    VsphereUnavailableError,
)
from provisioner.model.lab import Desired, GuestRecord, GuestState, LabState
from provisioner.model.observed import PlayProgress
from provisioner.model.spec import CheckKind
from provisioner.rules.plan import STEPS
from provisioner.workflows.checks import run_checks
from tests.fakes.samples import make_audit
from tests.workflows.conftest import CHECK, TRIAL, World, make_world


def test_a_lab_becomes_ready_by_the_steps_of_the_plan(world: World) -> None:
    world.provision()
    assert world.get_state() is LabState.READY
    assert tuple(step for step, _ in world.steps("ok")) == STEPS
    (guest,) = world.store.list_guests("ana-mlops", 1)
    assert guest.host_key
    assert guest.address
    assert guest.birth_disks


def test_guests_go_through_each_step_side_by_side() -> None:
    world = make_world("workbench", "tracking")
    world.provision()
    clones = [slot for step, slot in world.steps("ok") if step == "clone"]
    assert clones == ["workbench", "tracking"]
    assert len(world.configurator.orders) == 1, "one Ansible run for all guests"
    assert len(world.vcenter.vms) == 2


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        ("observe_site", "preflight"),
        ("ensure_clone", "clone"),
        ("ensure_powered_on", "power-on"),
        ("wait_for_guestinfo", "host-key"),
        ("wait_for_address", "address"),
    ],
)
def test_a_failed_step_is_continued_and_nothing_is_doubled(
    world: World, verb: str, step: str
) -> None:
    world.hypervisor.failures[verb] = [TaskFailedError("it broke")]
    with pytest.raises(TaskFailedError):
        world.provision()
    assert world.get_state() is LabState.FAILED
    assert world.lab.note == "it broke"
    assert [name for name, _ in world.steps("failed")] == [step]
    world.provision()
    assert world.get_state() is LabState.READY
    assert len(world.vcenter.vms) == 1


@pytest.mark.parametrize(
    ("verb", "step"), [("ensure_clone", "clone"), ("wait_for_address", "address")]
)
def test_a_vcenter_that_is_away_for_a_while_is_waited_for(
    world: World, verb: str, step: str
) -> None:
    world.hypervisor.failures[verb] = [VsphereUnavailableError("no answer")] * 3
    world.provision()
    assert world.get_state() is LabState.READY
    assert [name for name, _ in world.steps("waiting")] == [step] * 3
    assert world.steps("failed") == []
    assert len(world.vcenter.vms) == 1


def read_guest(world: World) -> GuestRecord:
    (guest,) = world.store.list_guests("ana-mlops", 1)
    return guest


def test_the_journal_is_ahead_of_the_clone_call(world: World) -> None:
    world.hypervisor.failures["ensure_clone"] = [TaskFailedError("it broke")]
    with pytest.raises(TaskFailedError):
        world.provision()
    guest = read_guest(world)
    assert guest.state is GuestState.INTENDED
    assert guest.pin == world.hypervisor.pin_template("debian-13")
    world.provision()
    assert read_guest(world).state is GuestState.STANDING


def test_a_template_that_changed_is_pinned_anew_only_when_asked_again(world: World) -> None:
    world.hypervisor.failures["ensure_clone"] = [TemplateChangedError("it is another one")]
    with pytest.raises(TemplateChangedError):
        world.provision()
    assert (read_guest(world).state, read_guest(world).pin) == (GuestState.PLANNED, None)
    world.provision()
    assert world.get_state() is LabState.READY


def test_a_vm_that_stood_is_never_made_a_second_time(world: World) -> None:
    world.hypervisor.failures["ensure_powered_on"] = [TaskFailedError("it broke")]
    with pytest.raises(TaskFailedError):
        world.provision()
    world.vcenter.vms.clear()
    with pytest.raises(VmGoneError, match="does not show it any more"):
        world.provision()
    assert world.vcenter.vms == {}


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_disk_attached_before_the_clone_was_recorded_is_not_the_labs(
    world: World, monkeypatch: pytest.MonkeyPatch, *, exchanged: bool
) -> None:
    foreign = "[datastore-1] payroll/payroll.vmdk"

    def die(*_identity: object, **_hints: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        move = world.store.move_guest
        patched.setattr(
            world.store,
            "move_guest",
            lambda one, state, **hints: (die if state is GuestState.STANDING else move)(
                one, state, **hints
            ),
        )
        with pytest.raises(KeyboardInterrupt):
            world.provision()
    (vm,) = world.vcenter.vms.values()
    vm.disks = [*([] if exchanged else vm.disks), (foreign,)]
    world.vcenter.files.add(foreign)
    world.provision()
    with pytest.raises(TeardownIncompleteError):
        world.teardown()
    assert foreign in world.vcenter.files
    assert world.vcenter.vms


def test_after_a_crash_a_vcenter_that_was_rolled_back_is_seen(world: World) -> None:
    world.hypervisor.failures["ensure_clone"] = [TaskFailedError("it broke")]
    with pytest.raises(TaskFailedError):
        world.provision()
    world.store.raise_event_key("ana-mlops", 1, world.vcenter.events + 1000)
    with pytest.raises(RolledBackError, match="newest event"):
        world.provision()
    assert world.vcenter.vms == {}, "nothing is cloned that may be there already"


def test_an_address_that_changed_is_read_again(world: World) -> None:
    world.provision()
    (vm,) = world.vcenter.vms.values()
    (mac,) = vm.addresses
    vm.addresses[mac] = "198.18.0.99"
    world.shell.machines["198.18.0.99"] = world.shell.machines[read_guest(world).address]
    world.converge()
    assert read_guest(world).address == "198.18.0.99"


def test_a_teardown_ends_a_provision_at_its_next_step(world: World) -> None:
    def ask(_vm: object) -> None:
        world.store.ask_for_work(
            "teardown",
            "ana-mlops",
            1,
            make_audit(action="teardown"),
            desired=Desired.ABSENT,
            state=LabState.TEARING_DOWN,
        )

    boot, world.hypervisor.on_boot = world.hypervisor.on_boot, ask
    with pytest.raises(StoppedError):
        world.provision()
    assert world.get_state() is LabState.TEARING_DOWN, "the provision leaves that to the teardown"
    world.hypervisor.on_boot = boot
    world.teardown()
    assert world.get_state() is LabState.GONE
    assert world.vcenter.vms == {}


def test_a_pinned_host_key_is_never_learned_again(world: World) -> None:
    world.configurator.events = [
        PlayProgress("workbench", "linux_baseline", "Harden", "failed", "no"),
    ]
    with pytest.raises(PlayFailedError):
        world.provision()
    (vm,) = world.vcenter.vms.values()
    (before,) = world.store.list_guests("ana-mlops", 1)
    vm.guestinfo["guestinfo.labctl.hostkey"] = "somebody else's"
    world.configurator.events = []
    world.provision()
    (after,) = world.store.list_guests("ana-mlops", 1)
    assert after.host_key == before.host_key


@pytest.mark.parametrize("name", [CHECK, TRIAL])
def test_a_failing_check_fails_the_lab(world: World, name: str) -> None:
    world.broken = {name}
    with pytest.raises(CheckFailedError, match=name):
        world.provision()
    assert world.get_state() is LabState.FAILED


@pytest.mark.parametrize("broken", [set(), {TRIAL}])
def test_the_trial_key_is_gone_afterwards(world: World, broken: set[str]) -> None:
    world.broken = set(broken)
    try:
        world.provision()
    except LabctlError:
        assert broken
    commands = [command for _, command, _ in world.shell.ran]
    assert any("install -m" in command for command in commands), "there was one"
    assert all(name == "1" for _, name in world.credentials.keys), "only the lab's own key stays"
    for machine in world.shell.machines.values():
        assert "ana" not in machine.keys


def test_a_stop_ends_before_the_next_step(world: World) -> None:
    world.stopping = True
    with pytest.raises(StoppedError):
        world.provision()
    assert world.vcenter.vms == {}
    world.stopping = False
    world.provision()
    assert world.get_state() is LabState.READY


def test_a_machine_with_another_host_key_is_asked_nothing(world: World) -> None:
    world.provision()
    ran = len(world.shell.ran)
    for machine in world.shell.machines.values():
        machine.host_key = "ssh-ed25519 another"
    (guest,) = world.store.list_guests("ana-mlops", 1)
    kinds = (CheckKind.CHECK,)
    with pytest.raises(HostKeyError):
        run_checks(world.tools, world.lab, guest, kinds=kinds, on_result=lambda _: None)
    assert len(world.shell.ran) == ran
