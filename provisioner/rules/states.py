"""Which state of a lab, and of a guest, may follow which: two tables, asked before every move."""

from __future__ import annotations

from provisioner.errors import BusyError, RefusedError
from provisioner.model.lab import Desired, GuestState, Lab, LabState, Lease

_S = LabState
_G = GuestState

# A move to the state that a lab is in already is always legal: work is repeated after a crash.
LEGAL_MOVES: dict[LabState, frozenset[LabState]] = {
    _S.PROVISIONING: frozenset({_S.READY, _S.FAILED, _S.TEARING_DOWN, _S.FORGOTTEN}),
    _S.READY: frozenset({_S.PROVISIONING, _S.FAILED, _S.EXPIRED, _S.TEARING_DOWN, _S.FORGOTTEN}),
    _S.FAILED: frozenset({_S.PROVISIONING, _S.READY, _S.EXPIRED, _S.TEARING_DOWN, _S.FORGOTTEN}),
    _S.EXPIRED: frozenset({_S.READY, _S.FAILED, _S.TEARING_DOWN, _S.FORGOTTEN}),
    _S.TEARING_DOWN: frozenset({_S.RESIDUE, _S.GONE, _S.FORGOTTEN}),
    _S.RESIDUE: frozenset({_S.TEARING_DOWN, _S.FORGOTTEN}),
    _S.GONE: frozenset(),
    _S.FORGOTTEN: frozenset(),
}

# Repeats are legal here too. A guest goes back to `planned` when nothing came of its clone call.
LEGAL_GUEST_MOVES: dict[GuestState, frozenset[GuestState]] = {
    _G.PLANNED: frozenset({_G.INTENDED, _G.GONE}),
    _G.INTENDED: frozenset({_G.PLANNED, _G.CLONING, _G.STANDING, _G.GONE}),
    _G.CLONING: frozenset({_G.PLANNED, _G.STANDING, _G.GONE}),
    _G.STANDING: frozenset({_G.GONE}),
    _G.GONE: frozenset(),
}

CLOSED_STATES = frozenset(state for state, following in LEGAL_MOVES.items() if not following)


def check_move(lab_id: str, before: LabState, after: LabState) -> None:
    """Check that a lab may go from `before` to `after`. Raises RefusedError when it may not."""
    if after is not before and after not in LEGAL_MOVES[before]:
        raise RefusedError(
            f"lab {lab_id} is {before} and cannot become {after}",
            hint=f"something else worked on it meanwhile; see labctl status {lab_id}",
        )


def check_wanted(lab_id: str, state: LabState, desired: Desired) -> None:
    """Check that work which wants a lab so may be asked for. A lab that leaves does not come back.

    Raises RefusedError when the lab is being torn down, or closed.
    """
    leaving = {_S.TEARING_DOWN, _S.RESIDUE, *CLOSED_STATES}
    if desired is Desired.PRESENT and state in leaving:
        raise RefusedError(
            f"lab {lab_id} is {state}", hint=f"see labctl status {lab_id}; teardown finishes it"
        )


def check_lease(lab_id: str, recorded: Lease, decided_on: Lease | None) -> None:
    """Check that a lease is still the one on which work was decided. Raises RefusedError."""
    if decided_on not in (None, recorded):
        raise RefusedError(
            f"the lease of lab {lab_id} was changed meanwhile",
            hint="run the same command again",
        )


def check_guest_move(vm_name: str, before: GuestState, after: GuestState) -> None:
    """Check that a guest may go from `before` to `after`. Raises RefusedError when it may not."""
    if after is not before and after not in LEGAL_GUEST_MOVES[before]:
        raise RefusedError(
            f"guest {vm_name} is {before} and cannot become {after}",
            hint="something else worked on it meanwhile; see labctl status of its lab",
        )


def check_next_generation(lab: Lab, newest: Lab | None) -> None:
    """Check that `lab` may follow `newest`, its newest recorded generation.

    Raises BusyError when that one is not closed, or `lab` comes no later than it.
    """
    if newest is None:
        return
    if newest.state not in CLOSED_STATES:
        raise BusyError(
            f"lab {lab.lab_id} stands already: its generation {newest.generation} is "
            f"{newest.state}",
            hint=f"tear it down first: labctl teardown {lab.lab_id}",
        )
    if lab.generation <= newest.generation:
        raise BusyError(
            f"generation {lab.generation} of lab {lab.lab_id} was recorded meanwhile",
            hint="run the same command again",
        )
