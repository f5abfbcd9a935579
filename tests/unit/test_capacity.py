from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import CapacityError, InputError
from provisioner.model.observed import ObservedDatastore, ObservedTemplate
from provisioner.rules.capacity import build_need_gib, place_guests
from tests.fakes.samples import make_blueprint
from tests.fakes.sites import make_observed

# A guest of the samples: 4 GiB of memory, and a quarter of its VM template's 32 GiB.
NEED_GIB = 12.0


def store(name: str, free_gib: float, *, usable: bool = True) -> ObservedDatastore:
    return ObservedDatastore(name, free_gib, usable=usable)


@pytest.mark.parametrize(("disk_gib", "need_gib"), [(32, 12), (100, 29), (16, 8), (0, 8)])
def test_what_a_guest_needs(disk_gib: float, need_gib: float) -> None:
    template = ObservedTemplate("debian-13", "/x", fit=True, disk_gib=disk_gib)
    assert build_need_gib(make_blueprint().guests[0], template) == need_gib


def test_guests_spread_over_what_is_free_counting_what_was_promised() -> None:
    observed = make_observed(store("a", 60), store("b", 55), store("c", 1000, usable=False))
    placed = place_guests(make_blueprint("x", "y", "z").guests, observed, ("a", "b", "c"), 10)
    assert placed == (("x", "a"), ("y", "b"), ("z", "a"))


def test_the_first_named_wins_a_tie_and_others_are_never_used() -> None:
    observed = make_observed(store("a", 50), store("b", 50), store("other", 5000))
    assert place_guests(make_blueprint().guests, observed, ("b", "a"), 0) == (("workbench", "b"),)


def test_exactly_enough_is_enough_and_less_is_not() -> None:
    blueprint = make_blueprint("x", "y")
    enough = make_observed(store("a", 10 + 2 * NEED_GIB))
    assert place_guests(blueprint.guests, enough, ("a",), 10) == (("x", "a"), ("y", "a"))
    with pytest.raises(CapacityError):
        place_guests(
            blueprint.guests, make_observed(store("a", 10 + 2 * NEED_GIB - 0.1)), ("a",), 10
        )


def test_the_refusal_names_need_and_room() -> None:
    observed = make_observed(store("a", 30), store("b", 3), store("c", 900, usable=False))
    with pytest.raises(CapacityError) as caught:
        place_guests(make_blueprint("x", "y").guests, observed, ("a", "b", "c", "d"), 10)
    assert caught.value.what == (
        "no datastore has room for guest y: it needs 12.0 GiB; a has 8.0 GiB, b has 0.0 GiB, "
        "c cannot be used, d cannot be used beside the reserve of 10 GiB and this lab's other "
        "guests"
    )


def test_a_vm_template_that_is_not_fit_or_not_there() -> None:
    unfit = ObservedTemplate("debian-13", "/DC0/vm/t", fit=False, disk_gib=1, problem="it is on")
    with pytest.raises(InputError) as caught:
        place_guests(
            make_blueprint().guests, make_observed(templates=(unfit,)), ("datastore-0",), 0
        )
    assert caught.value.what == "VM template debian-13 (/DC0/vm/t) cannot be cloned: it is on"
    with pytest.raises(InputError) as caught:
        place_guests(make_blueprint().guests, make_observed(templates=()), ("datastore-0",), 0)
    assert caught.value.what == "there is no VM template debian-13 on vcenter.example.com"


@given(
    st.lists(st.floats(0, 200), min_size=1, max_size=4),
    st.integers(1, 8),
    st.floats(0, 50),
)
def test_no_datastore_is_ever_promised_more_than_it_has(
    frees: list[float], count: int, reserve_gib: float
) -> None:
    names = tuple(f"d{index}" for index in range(len(frees)))
    observed = make_observed(*map(store, names, frees))
    blueprint = make_blueprint(*(f"s{index}" for index in range(count)))
    fitting = sum(max(0, int((free - reserve_gib + 1e-9) // NEED_GIB)) for free in frees)
    try:
        placed = place_guests(blueprint.guests, observed, names, reserve_gib)
    except CapacityError:
        assert count > fitting - len(frees), "rounding at the limit aside, none would have fitted"
        return
    for name, free in zip(names, frees, strict=True):
        taken = sum(NEED_GIB for _, datastore in placed if datastore == name)
        assert not taken or taken <= free - reserve_gib + 1e-6
