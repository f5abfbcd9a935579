"""The journal of guests, work that was asked for, leases and notes: in memory and on SQLite."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.errors import BusyError, RefusedError, StoreError, UnknownLabError
from provisioner.model.lab import (
    Desired,
    GuestRecord,
    GuestState,
    LabState,
    Lease,
    TemplatePin,
    WorkItem,
    WorkStatus,
)
from provisioner.rules.states import LEGAL_GUEST_MOVES
from tests.contract.stores import Store
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab

PIN = TemplatePin("5001-uuid", "2026-03-02T09:00:00Z", "snapshot-7", 1)


def test_the_journal_of_a_guest(store: Store) -> None:
    lab = make_lab()
    (guest,) = make_guests(lab)
    store.add_lab(lab, (guest,), make_audit())

    def read() -> GuestRecord:
        return store.list_guests("ana-mlops", 1)[0]

    store.move_guest(guest.identity, GuestState.INTENDED, pin=PIN)
    assert read() == replace(guest, state=GuestState.INTENDED, pin=PIN)
    store.move_guest(guest.identity, GuestState.CLONING, vim_task="task-9")
    assert read() == replace(guest, state=GuestState.CLONING, pin=PIN, vim_task="task-9")
    store.move_guest(guest.identity, GuestState.PLANNED, vim_task="")
    assert read() == guest
    store.move_guest(guest.identity, GuestState.INTENDED, pin=PIN)
    store.move_guest(guest.identity, GuestState.STANDING, moref="vm-1", birth_disks=("[d] a/a",))
    with pytest.raises(RefusedError, match="is standing and cannot become planned"):
        store.move_guest(guest.identity, GuestState.PLANNED, moref="never kept")
    assert (read().moref, read().pin, read().birth_disks) == ("vm-1", PIN, ("[d] a/a",))


@pytest.mark.parametrize(("before", "after"), list(itertools.product(GuestState, GuestState)))
def test_every_move_of_a_guest_is_legal_or_refused(
    store: Store, before: GuestState, after: GuestState
) -> None:
    lab = make_lab()
    guest = replace(make_guests(lab)[0], state=before)
    store.add_lab(lab, (guest,), make_audit())
    if after is before or after in LEGAL_GUEST_MOVES[before]:
        store.move_guest(guest.identity, after)
        assert store.list_guests("ana-mlops", 1)[0].state is after
    else:
        with pytest.raises(RefusedError, match=f"is {before} and cannot become {after}"):
            store.move_guest(guest.identity, after)
        assert store.list_guests("ana-mlops", 1) == (guest,)


def ask(store: Store, workflow: str, state: LabState | None = None) -> WorkItem:
    wanted = Desired.ABSENT if workflow == "teardown" else Desired.PRESENT
    audit = make_audit(action=workflow)
    return store.ask_for_work(workflow, "ana-mlops", 1, audit, desired=wanted, state=state)


def test_a_lab_is_recorded_with_its_work(store: Store) -> None:
    item = store.add_lab(make_lab(), (), make_audit())
    assert item == WorkItem(1, "provision", "ana-mlops", 1, 1, WorkStatus.WAITING, NOW)
    assert store.list_open_work() == (item,)
    assert store.get_work(1) == store.find_last_work("ana-mlops") == item
    assert store.find_last_work("bo-mlops") is None
    with pytest.raises(StoreError, match="no work of number 2"):
        store.get_work(2)
    with pytest.raises(StoreError, match="no work of number 2"):
        store.set_work(2, WorkStatus.DONE, NOW)


def test_an_adopted_lab_has_no_work(store: Store) -> None:
    lab = replace(make_lab(generation=3), state=LabState.READY)
    store.adopt_lab(lab, make_guests(lab), make_audit(action="adopt"))
    assert store.find_lab("ana-mlops") == lab
    assert store.list_open_work() == ()
    with pytest.raises(BusyError):
        store.adopt_lab(lab, make_guests(lab), make_audit())


def test_failed_work_keeps_its_error_and_a_provision_its_run(store: Store) -> None:
    later = NOW + timedelta(minutes=5)
    error = {"kind": "TaskFailedError", "what": "it broke", "hint": ""}
    first = store.add_lab(make_lab(), (), make_audit())
    store.set_work(first.serial, WorkStatus.RUNNING, NOW)
    assert ask(store, "provision").serial == first.serial, "it is under way"
    store.set_work(first.serial, WorkStatus.FAILED, later, error)
    assert store.get_work(first.serial) == replace(
        first, status=WorkStatus.FAILED, ended_at=later, error=error
    )
    assert store.list_open_work() == ()
    again = ask(store, "provision")
    assert (again.serial, again.run, again.status) == (2, 1, WorkStatus.WAITING)
    store.set_work(again.serial, WorkStatus.DONE, later)
    assert ask(store, "provision").run == 2


def test_other_work_begins_anew_after_a_failure(store: Store) -> None:
    store.set_work(store.add_lab(make_lab(), (), make_audit()).serial, WorkStatus.DONE, NOW)
    first = ask(store, "teardown", LabState.TEARING_DOWN)
    store.set_work(first.serial, WorkStatus.FAILED, NOW, {"kind": "x", "what": "y", "hint": ""})
    assert ask(store, "teardown").run == 2


def test_only_a_teardown_may_be_asked_for_during_other_work(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    with pytest.raises(BusyError, match="provision of lab ana-mlops is under way"):
        ask(store, "converge", LabState.FAILED)
    found = store.find_lab("ana-mlops")
    assert found == make_lab(), "a refused request leaves nothing"
    assert len(store.list_entries()) == 1
    teardown = ask(store, "teardown", LabState.TEARING_DOWN)
    assert [one.workflow for one in store.list_open_work()] == ["provision", "teardown"]
    assert ask(store, "teardown") == teardown
    found = store.find_lab("ana-mlops")
    assert found is not None
    assert (found.desired, found.state) == (Desired.ABSENT, LabState.TEARING_DOWN)


def test_an_illegal_state_asks_for_no_work(store: Store) -> None:
    store.set_work(store.add_lab(make_lab(), (), make_audit()).serial, WorkStatus.DONE, NOW)
    with pytest.raises(RefusedError):
        ask(store, "expire", LabState.EXPIRED)
    assert store.list_open_work() == ()
    assert store.find_lab("ana-mlops") == make_lab()


def test_asking_again_while_work_ends_takes_no_lab_back(store: Store) -> None:
    item = store.add_lab(make_lab(), (), make_audit())
    store.set_work(item.serial, WorkStatus.RUNNING, NOW)
    store.set_state("ana-mlops", 1, LabState.READY, NOW)
    assert ask(store, "provision", LabState.PROVISIONING).serial == item.serial
    found = store.find_lab("ana-mlops")
    assert found is not None
    assert found.state is LabState.READY


@pytest.mark.parametrize(
    "states", [(), (LabState.RESIDUE,), (LabState.GONE,)], ids=["leaving", "residue", "gone"]
)
def test_nothing_is_asked_for_that_wants_a_lab_back(
    store: Store, states: tuple[LabState, ...]
) -> None:
    store.set_work(store.add_lab(make_lab(), (), make_audit()).serial, WorkStatus.DONE, NOW)
    for state in (LabState.READY, LabState.TEARING_DOWN, *states):
        store.set_state("ana-mlops", 1, state, NOW)
    with pytest.raises(RefusedError, match="lab ana-mlops is"):
        ask(store, "converge")
    assert store.list_open_work() == ()


def test_work_decided_on_a_lease_that_was_extended_is_refused(store: Store) -> None:
    lab = make_lab()
    store.set_work(store.add_lab(lab, (), make_audit()).serial, WorkStatus.DONE, NOW)
    longer = Lease(NOW + timedelta(days=30), timedelta(days=1))
    store.set_lease("ana-mlops", 1, longer, make_audit(action="extend"))

    def end(lease: Lease) -> WorkItem:
        return store.ask_for_work(
            "teardown",
            "ana-mlops",
            1,
            make_audit(action="teardown"),
            desired=Desired.ABSENT,
            state=LabState.TEARING_DOWN,
            lease=lease,
        )

    with pytest.raises(RefusedError, match="was changed meanwhile"):
        end(lab.lease)
    found = store.find_lab("ana-mlops")
    assert found == replace(lab, lease=longer)
    assert end(longer).workflow == "teardown"


def test_open_work_comes_oldest_first(store: Store) -> None:
    names = ("ana-mlops", "bo-mlops", "cy-mlops")
    items = [store.add_lab(make_lab(name), (), make_audit(name)) for name in names]
    store.set_work(items[1].serial, WorkStatus.RUNNING, NOW)
    assert [one.lab_id for one in store.list_open_work()] == list(names)


def test_a_lease_is_replaced_with_its_audit_row(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    lease = Lease(NOW + timedelta(days=30), timedelta(days=1))
    store.set_lease("ana-mlops", 1, lease, make_audit(action="extend"))
    assert store.find_lab("ana-mlops") == replace(make_lab(), lease=lease)
    assert [entry.action for entry in store.list_entries()] == ["provision", "extend"]
    with pytest.raises(UnknownLabError):
        store.set_lease("bo-mlops", 1, lease, make_audit())


def test_an_event_key_only_rises(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    for key, kept in ((4712, 4712), (4700, 4712), (9_000_000_000, 9_000_000_000)):
        store.raise_event_key("ana-mlops", 1, key)
        assert store.find_lab("ana-mlops") == replace(make_lab(), event_key=kept)


def test_notes_are_kept_replaced_and_removed(store: Store) -> None:
    assert store.find_note("clock") is None
    store.set_note("clock", "one")
    store.set_note("clock", "two")
    store.set_note("restored", "yes")
    assert (store.find_note("clock"), store.find_note("restored")) == ("two", "yes")
    store.set_note("clock", "")
    assert store.find_note("clock") is None
