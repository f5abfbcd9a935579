"""One suite for every LabStore and Audit: in memory and on SQLite."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from provisioner.errors import BusyError, RefusedError, UnknownLabError
from provisioner.model.lab import (
    Desired,
    LabState,
    Progress,
    StepStatus,
)
from provisioner.rules.states import CLOSED_STATES, LEGAL_MOVES
from tests.contract.stores import Store
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab


def row(lab_id: str = "ana-mlops", generation: int = 1, **changes: object) -> Progress:
    plain = Progress(lab_id, generation, NOW, "provision", "clone", "workbench", StepStatus.OK)
    return replace(plain, **changes)  # type: ignore[arg-type]


def walk(store: Store, lab_id: str, generation: int, *states: LabState) -> None:
    for state in states:
        store.set_state(lab_id, generation, state, NOW)


def test_a_lab_comes_back_as_it_was(store: Store) -> None:
    lab = make_lab("ana-mlops", 1, "workbench", "tracking")
    guests = make_guests(
        lab, birth_disks=("[ds] a/a.vmdk", "[ds] a/b.vmdk"), mac="00:50:56:00:00:01"
    )
    store.add_lab(lab, guests, make_audit())
    assert store.find_lab("ana-mlops") == lab
    assert store.list_guests("ana-mlops", 1) == guests
    assert store.list_entries() == (make_audit(),)


def test_times_of_another_zone_come_back_as_utc(store: Store) -> None:
    there = datetime(2026, 3, 2, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    store.add_lab(replace(make_lab(), created_at=there), (), make_audit())
    found = store.find_lab("ana-mlops")
    assert found is not None
    assert found.created_at == there
    assert found.created_at.utcoffset() is not None


def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    assert store.find_lab("ana-mlops") is None
    assert store.list_labs(closed=True) == ()
    assert store.list_guests("ana-mlops", 1) == ()
    assert store.list_progress("ana-mlops") == ()
    assert store.find_receipt("ana-mlops") is None
    assert store.usual_s("provision", "clone") is None
    assert store.list_entries() == ()


def test_a_living_lab_blocks_its_next_generation(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    for generation in (1, 2):
        with pytest.raises(BusyError, match="stands already"):
            store.add_lab(make_lab("ana-mlops", generation), (), make_audit())
    assert len(store.list_entries()) == 1, "a refused intent leaves no audit row of one"


@pytest.mark.parametrize("closed", sorted(CLOSED_STATES))
def test_a_closed_lab_makes_room_for_the_next_generation(store: Store, closed: LabState) -> None:
    first = make_lab()
    store.add_lab(first, make_guests(first), make_audit())
    walk(store, "ana-mlops", 1, LabState.TEARING_DOWN, closed)
    with pytest.raises(BusyError, match="recorded meanwhile"):
        store.add_lab(make_lab(), (), make_audit())
    second = make_lab("ana-mlops", 2)
    store.add_lab(second, make_guests(second), make_audit())
    assert store.find_lab("ana-mlops") == second
    assert store.list_guests("ana-mlops", 1) == make_guests(first)
    assert [lab.generation for lab in store.list_labs(closed=True)] == [2]


def test_labs_are_listed_by_id_and_closed_ones_on_request(store: Store) -> None:
    for lab_id in ("mia-mlops", "ana-mlops", "bo-mlops"):
        store.add_lab(make_lab(lab_id), (), make_audit(lab_id))
    walk(store, "bo-mlops", 1, LabState.FORGOTTEN)
    assert [lab.lab_id for lab in store.list_labs()] == ["ana-mlops", "mia-mlops"]
    assert [lab.lab_id for lab in store.list_labs(closed=True)] == [
        "ana-mlops",
        "bo-mlops",
        "mia-mlops",
    ]


def test_states_set_their_times_and_notes(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    later = NOW + timedelta(minutes=5)
    store.set_state("ana-mlops", 1, LabState.FAILED, NOW, note="no answer")
    found = store.find_lab("ana-mlops")
    assert found == replace(make_lab(), state=LabState.FAILED, note="no answer")
    store.set_state("ana-mlops", 1, LabState.READY, later)
    store.set_state("ana-mlops", 1, LabState.READY, later + timedelta(hours=1))
    found = store.find_lab("ana-mlops")
    assert found == replace(make_lab(), state=LabState.READY, ready_at=later), (
        "a repeat moves nothing"
    )
    walk(store, "ana-mlops", 1, LabState.TEARING_DOWN)
    store.set_state("ana-mlops", 1, LabState.GONE, later + timedelta(days=1))
    found = store.find_lab("ana-mlops")
    assert found is not None
    assert (found.ready_at, found.closed_at) == (later, later + timedelta(days=1))


ROADS = {
    LabState.PROVISIONING: (),
    LabState.READY: (LabState.READY,),
    LabState.FAILED: (LabState.FAILED,),
    LabState.EXPIRED: (LabState.READY, LabState.EXPIRED),
    LabState.TEARING_DOWN: (LabState.TEARING_DOWN,),
    LabState.RESIDUE: (LabState.TEARING_DOWN, LabState.RESIDUE),
    LabState.GONE: (LabState.TEARING_DOWN, LabState.GONE),
    LabState.FORGOTTEN: (LabState.FORGOTTEN,),
}


def test_every_move_is_legal_or_refused(store: Store) -> None:
    for number, (before, after) in enumerate(itertools.product(LabState, LabState)):
        lab_id = f"hire{number}-mlops"
        store.add_lab(make_lab(lab_id), (), make_audit(lab_id))
        walk(store, lab_id, 1, *ROADS[before])
        if after is before or after in LEGAL_MOVES[before]:
            store.set_state(lab_id, 1, after, NOW)
            expected = after
        else:
            with pytest.raises(
                RefusedError, match=f"{lab_id} is {before} and cannot become {after}"
            ):
                store.set_state(lab_id, 1, after, NOW, note="never kept")
            expected = before
        found = store.find_lab(lab_id)
        assert found is not None
        assert (found.state, found.note) == (expected, "")


def test_what_it_wants_is_kept_with_its_audit_row(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    store.set_desired("ana-mlops", 1, Desired.ABSENT, make_audit(action="teardown"))
    found = store.find_lab("ana-mlops")
    assert found == replace(make_lab(), desired=Desired.ABSENT)
    assert [entry.action for entry in store.list_entries("ana-mlops")] == ["provision", "teardown"]


def test_hints_of_a_guest_are_kept(store: Store) -> None:
    lab = make_lab("ana-mlops", 1, "workbench", "tracking")
    first, second = make_guests(lab)
    store.add_lab(lab, (first, second), make_audit())
    store.update_guest(second.identity, moref="vm-12", birth_disks=("[ds] t/t.vmdk",))
    store.update_guest(second.identity, address="192.0.2.77")
    expected = replace(second, moref="vm-12", birth_disks=("[ds] t/t.vmdk",), address="192.0.2.77")
    assert store.list_guests("ana-mlops", 1) == (first, expected)


@pytest.mark.parametrize(
    "hint", ["nonce", "vm_name", "identity", "instance_uuid", "place", "state", "pin"]
)
def test_what_a_guest_was_born_with_is_no_hint(store: Store, hint: str) -> None:
    lab = make_lab()
    (guest,) = make_guests(lab)
    store.add_lab(lab, (guest,), make_audit())
    with pytest.raises(TypeError, match=hint):
        store.update_guest(guest.identity, **{hint: "other"})
    assert store.list_guests("ana-mlops", 1) == (guest,)


def test_what_does_not_exist_cannot_be_changed(store: Store) -> None:
    lab = make_lab()
    (guest,) = make_guests(lab)
    store.add_lab(lab, (guest,), make_audit())
    stranger = replace(guest.identity, instance_uuid="another")
    changes: tuple[Callable[[], None], ...] = (
        lambda: store.update_guest(stranger, moref="vm-1"),
        lambda: store.set_state("ana-mlops", 2, LabState.READY, NOW),
        lambda: store.set_desired("bo-mlops", 1, Desired.ABSENT, make_audit()),
        lambda: store.save_receipt("bo-mlops", 1, "{}"),
    )
    for change in changes:
        with pytest.raises(UnknownLabError):
            change()
    assert store.find_lab("ana-mlops") == lab
    assert store.list_guests("ana-mlops", 1) == (guest,)
    assert len(store.list_entries()) == 1


def test_the_log_grows_and_is_filtered(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    store.add_lab(make_lab("bo-mlops"), (), make_audit("bo-mlops"))
    rows = [
        row(status=StepStatus.STARTED, slot="workbench"),
        row(
            status=StepStatus.NOTE, step="converge", slot="tracking", text="docker_engine: install"
        ),
        row(elapsed_s=1.5),
    ]
    for number, entry in enumerate(rows):
        store.add_progress(entry)
        store.add_progress(row("bo-mlops", text=str(number)))
    found = store.list_progress("ana-mlops")
    assert [replace(entry, serial=0) for entry in found] == rows
    serials = [entry.serial for entry in found]
    assert serials == sorted(set(serials))
    assert store.list_progress("ana-mlops", after=serials[0]) == found[1:]
    assert store.list_progress("ana-mlops", slot="tracking") == found[1:2]
    assert store.list_progress("ana-mlops", step="clone") == (found[0], found[2])
    assert store.list_progress("ana-mlops", step="clone", slot="tracking") == ()


def test_the_usual_time_is_the_median_of_newest_successes(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    for elapsed_s in (9.0, 1.0, 2.0):
        store.add_progress(row(elapsed_s=elapsed_s))
    store.add_progress(row(status=StepStatus.FAILED, elapsed_s=500.0))
    store.add_progress(row(workflow="teardown", elapsed_s=500.0))
    store.add_progress(row(step="converge", elapsed_s=500.0))
    assert store.usual_s("provision", "clone") == 2.0
    for _ in range(25):
        store.add_progress(row(elapsed_s=7.0))
    assert store.usual_s("provision", "clone") == 7.0, "the old ones no longer count"


def test_the_newest_receipt_is_found(store: Store) -> None:
    store.add_lab(make_lab(), (), make_audit())
    store.save_receipt("ana-mlops", 1, '{"first": 1}')
    store.save_receipt("ana-mlops", 1, '{"again": 1}')
    assert store.find_receipt("ana-mlops") == '{"again": 1}'
    walk(store, "ana-mlops", 1, LabState.TEARING_DOWN, LabState.GONE)
    store.add_lab(make_lab("ana-mlops", 2), (), make_audit())
    assert store.find_receipt("ana-mlops") == '{"again": 1}'
    store.save_receipt("ana-mlops", 2, '{"second": 2}')
    assert store.find_receipt("ana-mlops") == '{"second": 2}'


def test_audit_entries_are_kept_in_order(store: Store) -> None:
    entries = tuple(
        replace(make_audit(lab_id), at=NOW - timedelta(minutes=number), detail="why: ümläut")
        for number, lab_id in enumerate(("ana-mlops", "bo-mlops", "ana-mlops"))
    )
    for entry in entries:
        store.record(entry)
    assert store.list_entries() == entries
    assert store.list_entries("ana-mlops") == (entries[0], entries[2])
    assert entries[0].at.tzinfo is UTC


HOSTILE = ["' OR 1=1 --", 'a"b', "%", "ana\x00mlops", "ana\nmlops", "{{ x }}", "é", "", "x" * 5000]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(store: Store, name: str) -> None:
    store.add_lab(make_lab(), (), make_audit())
    assert store.find_lab(name) is None
    assert store.list_progress(name) == ()
    store.record(make_audit(name, action=name))
    assert store.list_entries()[-1] == make_audit(name, action=name)
