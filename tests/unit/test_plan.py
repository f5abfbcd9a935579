from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.errors import CapacityError, InputError, NameTakenError, RefusedError
from provisioner.model.lab import Hire, Lab, LabState, Lease
from provisioner.model.observed import ObservedDatastore, ObservedSite
from provisioner.model.spec import Blueprint, Site
from provisioner.rules.plan import Plan, build_plan
from tests.fakes.samples import KEY, NOW, make_blueprint, make_lab, make_site
from tests.fakes.sites import make_observed

ANA = Hire("ana@example.com", "ana", KEY)
LEASE = Lease(NOW + timedelta(days=7), timedelta(days=3))


def plan(
    existing: Lab | None = None,
    *,
    blueprint: Blueprint | None = None,
    site: Site | None = None,
    observed: ObservedSite | None = None,
    hire: Hire = ANA,
) -> Plan:
    return build_plan(
        blueprint or make_blueprint(),
        site or make_site(),
        observed or make_observed(),
        hire=hire,
        lease=LEASE,
        existing=existing,
        usual_s={"clone": 2.5}.get,
    )


def test_a_first_lab() -> None:
    made = plan(blueprint=make_blueprint("workbench", "tracking"))
    assert (made.lab_id, made.generation, made.site) == ("ana-mlops", 1, "plant")
    assert made.vcenter == "vcenter.example.com"
    assert [(guest.slot, guest.vm_name) for guest in made.guests] == [
        ("workbench", "ana-mlops-workbench"),
        ("tracking", "ana-mlops-tracking"),
    ]
    assert {guest.datastore for guest in made.guests} == {"datastore-0"}
    assert made.guests[0].roles[0] == "linux_baseline"
    assert [step.usual_s for step in made.steps if step.name == "clone"] == [2.5]
    assert [step.usual_s for step in made.steps if step.name == "converge"] == [None]
    assert made.lease == LEASE
    assert not made.nothing_to_do


@pytest.mark.parametrize("state", [LabState.GONE, LabState.FORGOTTEN])
def test_after_a_closed_one_comes_the_next_generation(state: LabState) -> None:
    before = replace(make_lab(generation=3), state=state, hire=replace(ANA, email="x@example.com"))
    assert plan(before).generation == 4


def test_what_stands_is_left_as_it_is() -> None:
    made = plan(replace(make_lab(generation=2), state=LabState.READY, ready_at=NOW))
    assert made.nothing_to_do
    assert made.why == "It stands since 2026-03-02 09:30 UTC."
    assert made.generation == 2
    assert made.lease == make_lab().lease, "its own lease, not the one asked for"
    assert made.steps == ()


def test_what_stands_says_what_it_does_not_follow() -> None:
    existing = replace(make_lab(), state=LabState.READY, ready_at=NOW)
    made = plan(
        existing,
        hire=replace(ANA, public_key="ssh-ed25519 other"),
        blueprint=make_blueprint("workbench", "tracking"),
    )
    assert made.nothing_to_do
    assert "keeps the SSH key" in made.why
    assert "blueprint has changed" in made.why


def test_what_stands_needs_no_room_and_no_sound_site() -> None:
    full = make_observed(ObservedDatastore("datastore-0", 0, usable=True), problems=("x",))
    assert plan(replace(make_lab(), state=LabState.READY), observed=full).nothing_to_do


@pytest.mark.parametrize("state", [LabState.PROVISIONING, LabState.FAILED])
def test_what_was_begun_is_continued_as_it_was_recorded(state: LabState) -> None:
    existing = replace(make_lab(generation=2), state=state)
    names = ("ana-mlops-workbench",)
    changed = make_blueprint("workbench", "tracking")
    made = plan(existing, observed=make_observed(vm_names=names), blueprint=changed)
    assert not made.nothing_to_do
    assert made.why == f"It was begun before and is {state}: it is continued."
    assert made.generation == 2
    assert [guest.slot for guest in made.guests] == ["workbench"]
    assert made.lease == existing.lease


READY = replace(make_lab(), state=LabState.READY)


@pytest.mark.parametrize(
    ("existing", "what", "hint"),
    [
        (
            replace(READY, hire=Hire("ana@other.example", "ana", KEY)),
            "lab ana-mlops belongs to ana@other.example",
            "give ana@example.com another login with --login NAME",
        ),
        (
            replace(READY, blueprint=READY.blueprint.model_copy(update={"blueprint": "mlops-2"})),
            "lab ana-mlops was made from blueprint mlops-2",
            "labctl teardown ana-mlops",
        ),
        (
            replace(READY, site="berlin"),
            "lab ana-mlops stands on site berlin, not on plant",
            "--site",
        ),
        (
            replace(READY, vcenter_uuid="another"),
            "lab ana-mlops stands on another vCenter than site plant leads to now",
            "labctl forget ana-mlops",
        ),
        (
            replace(READY, state=LabState.TEARING_DOWN),
            "lab ana-mlops is being torn down (tearing-down)",
            "labctl teardown ana-mlops",
        ),
        (
            replace(READY, state=LabState.RESIDUE),
            "lab ana-mlops is being torn down (residue)",
            "labctl teardown ana-mlops",
        ),
        (
            replace(READY, state=LabState.EXPIRED),
            "the lease of lab ana-mlops ended on 2026-03-16 09:30 UTC: it is powered off",
            "labctl extend ana-mlops",
        ),
    ],
)
def test_another_lab_of_that_id_refuses(existing: Lab, what: str, hint: str) -> None:
    with pytest.raises(RefusedError) as caught:
        plan(existing)
    assert caught.value.what == what
    assert hint in caught.value.hint


def test_the_same_address_in_other_letters_is_the_same_hire() -> None:
    assert plan(READY, hire=replace(ANA, email="Ana@Example.com")).nothing_to_do


def test_a_site_that_vcenter_does_not_confirm() -> None:
    observed = make_observed(problems=("network lab is not there", "folder labs is a host folder"))
    with pytest.raises(InputError) as caught:
        plan(observed=observed)
    assert caught.value.what == (
        "vcenter.example.com does not confirm site plant: network lab is not there; "
        "folder labs is a host folder"
    )


def test_a_name_that_is_taken() -> None:
    with pytest.raises(NameTakenError, match="ana-mlops-workbench"):
        plan(observed=make_observed(vm_names=("other", "ana-mlops-workbench")))


def test_no_room() -> None:
    with pytest.raises(CapacityError):
        plan(observed=make_observed(ObservedDatastore("datastore-0", 21.9, usable=True)))
    assert plan(observed=make_observed(ObservedDatastore("datastore-0", 22, usable=True)))
