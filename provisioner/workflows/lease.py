"""What becomes of a lab when its lease ends, and how it comes back when that was extended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from provisioner.errors import ClockError, VmGoneError
from provisioner.model.lab import GuestState, LabState
from provisioner.ports import Flow
from provisioner.rules.clock import ClockReading, find_clock_doubt
from provisioner.rules.restored import refuse_when_restored
from provisioner.workflows.provision import log_in, power_on, read_address
from provisioner.workflows.work import Toolbox, Work

SHUTDOWN_S = 120.0


def expire(flow: Flow, tools: Toolbox, lab_id: str, generation: int) -> None:
    """Power a lab's guests off and disconnect them; nothing is destroyed.

    A lease that was extended meanwhile leaves the lab as it is. Raises ClockError when this
    machine's clock and vCenter's disagree: nothing is touched then.
    """
    work = Work(tools, "expire", lab_id, generation)
    slots = [guest.identity.slot for guest in work.list_guests()]
    (is_over,) = flow.run(work.step("lease", partial(_is_over, work)))
    if not is_over:
        return
    _run_each(flow, work, slots, {"power-off": _power_off, "disconnect": _disconnect})
    # The note tells, after a revival too, what had failed before.
    _set_state(work, LabState.EXPIRED, work.get_lab().note)


def revive(flow: Flow, tools: Toolbox, lab_id: str, generation: int) -> None:
    """Connect an expired lab's guests, power them on and wait until they let labctl in.

    The lab is then what it was before its lease ended.
    """
    work = Work(tools, "revive", lab_id, generation)
    guests = [guest for guest in work.list_guests() if guest.state is GuestState.STANDING]
    slots = [guest.identity.slot for guest in guests]
    reached = [guest.identity.slot for guest in guests if guest.host_key]
    _run_each(flow, work, slots, {"connect": _connect, "power-on": power_on})
    _run_each(flow, work, reached, {"address": read_address, "login": log_in})
    lab = work.get_lab()
    was_ready = lab.ready_at is not None and not lab.note
    _set_state(work, LabState.READY if was_ready else LabState.FAILED, lab.note)


def _run_each(
    flow: Flow, work: Work, slots: Iterable[str], acts: dict[str, Callable[[Work, str], str]]
) -> None:
    for name, act in acts.items():
        flow.run(*(work.step(name, partial(act, work, slot), slot) for slot in slots))


def _set_state(work: Work, state: LabState, note: str) -> None:
    tools = work.tools
    tools.store.set_state(work.lab_id, work.generation, state, tools.clock.now(), note=note)


def _is_over(work: Work) -> bool:
    refuse_when_restored(work.tools.store)
    tools, lease = work.tools, work.get_lab().lease
    vcenter_at = tools.hypervisor.read_clock()
    now = ClockReading(tools.clock.now(), tools.clock.monotonic_s())
    if doubt := find_clock_doubt(now, None, vcenter_at):
        raise ClockError(
            f"lab {work.lab_id} is not ended by the hour: {doubt}",
            hint="set the clock that is wrong; the worker goes on when they agree",
        )
    return now.at >= lease.ends_at


def _power_off(work: Work, slot: str) -> str:
    identity = work.get_guest(slot).identity
    try:
        work.tools.hypervisor.ensure_powered_off(identity, grace_s=SHUTDOWN_S)
    except VmGoneError:
        return "it has no VM"
    return "powered off"


def _disconnect(work: Work, slot: str) -> str:
    identity = work.get_guest(slot).identity
    try:
        work.tools.hypervisor.ensure_networks(identity, connected=False)
    except VmGoneError:
        return "it has no VM"
    return "disconnected"


def _connect(work: Work, slot: str) -> str:
    work.tools.hypervisor.ensure_networks(work.get_guest(slot).identity, connected=True)
    return "connected"
