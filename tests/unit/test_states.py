from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from provisioner.errors import BusyError, RefusedError
from provisioner.model.lab import GuestState, LabState
from provisioner.rules.states import (
    CLOSED_STATES,
    LEGAL_GUEST_MOVES,
    LEGAL_MOVES,
    check_guest_move,
    check_move,
    check_next_generation,
)
from tests.fakes.samples import make_lab


def test_every_state_is_in_the_table() -> None:
    assert set(LEGAL_MOVES) == set(LabState)
    assert {LabState.GONE, LabState.FORGOTTEN} == CLOSED_STATES


def test_only_a_teardown_ends_in_gone() -> None:
    into_gone = {before for before, after in LEGAL_MOVES.items() if LabState.GONE in after}
    assert into_gone == {LabState.TEARING_DOWN}


def test_no_work_revives_a_lab_that_is_torn_down() -> None:
    for before in (LabState.TEARING_DOWN, LabState.RESIDUE, *CLOSED_STATES):
        living = {LabState.PROVISIONING, LabState.READY, LabState.FAILED}
        assert not LEGAL_MOVES[before] & living


def test_every_living_lab_can_be_torn_down_and_forgotten() -> None:
    for before in set(LabState) - CLOSED_STATES - {LabState.TEARING_DOWN}:
        check_move("ana-mlops", before, LabState.TEARING_DOWN)
        check_move("ana-mlops", before, LabState.FORGOTTEN)


@pytest.mark.parametrize("state", LabState)
def test_a_repeat_is_legal(state: LabState) -> None:
    check_move("ana-mlops", state, state)


def test_an_illegal_move_is_refused_in_words() -> None:
    with pytest.raises(RefusedError, match="lab ana-mlops is gone and cannot become ready"):
        check_move("ana-mlops", LabState.GONE, LabState.READY)


def is_legal(before: GuestState, after: GuestState) -> bool:
    return after is before or after in LEGAL_GUEST_MOVES[before]


@pytest.mark.parametrize(
    ("before", "after"), [pair for pair in product(GuestState, repeat=2) if is_legal(*pair)]
)
def test_a_guest_moves_by_the_table_and_repeats(before: GuestState, after: GuestState) -> None:
    check_guest_move("ana-mlops-workbench", before, after)


@pytest.mark.parametrize(
    ("before", "after"), [pair for pair in product(GuestState, repeat=2) if not is_legal(*pair)]
)
def test_a_guest_moves_no_other_way(before: GuestState, after: GuestState) -> None:
    with pytest.raises(RefusedError, match=f"is {before} and cannot become {after}"):
        check_guest_move("ana-mlops-workbench", before, after)


def test_a_guest_that_stood_is_never_made_again() -> None:
    made = {GuestState.PLANNED, GuestState.INTENDED, GuestState.CLONING}
    for before in (GuestState.STANDING, GuestState.GONE):
        assert not LEGAL_GUEST_MOVES[before] & made


def test_the_first_generation_follows_nothing() -> None:
    check_next_generation(make_lab(), None)


@pytest.mark.parametrize("state", sorted(CLOSED_STATES))
def test_only_a_later_generation_follows_a_closed_one(state: LabState) -> None:
    closed = replace(make_lab(generation=2), state=state)
    check_next_generation(make_lab(generation=3), closed)
    for generation in (1, 2):
        with pytest.raises(BusyError, match="was recorded meanwhile"):
            check_next_generation(make_lab(generation=generation), closed)


@pytest.mark.parametrize("state", sorted(set(LabState) - CLOSED_STATES))
def test_nothing_follows_a_living_lab(state: LabState) -> None:
    with pytest.raises(BusyError, match=f"its generation 1 is {state}"):
        check_next_generation(make_lab(generation=2), replace(make_lab(), state=state))
