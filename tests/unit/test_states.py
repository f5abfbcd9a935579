from __future__ import annotations

import pytest

from provisioner.errors import RefusedError
from provisioner.model.lab import LabState
from provisioner.rules.states import CLOSED_STATES, LEGAL_MOVES, check_move


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
