from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import StoreError
from provisioner.model.lab import Desired, GuestState, LabState, Lease, TemplatePin
from provisioner.rules.dossier import LONGEST_CHARS, build_dossier, parse_dossier
from tests.fakes.samples import NOW, make_guests, make_lab

PIN = TemplatePin("5001-uuid", "2026-03-02T09:00:00Z", "snapshot-7", 1)


def test_it_brings_back_what_was_decided_and_not_how_far_it_came() -> None:
    lab = replace(
        make_lab("ana-mlops", 3, "workbench", "tracking"),
        state=LabState.READY,
        desired=Desired.ABSENT,
        ready_at=NOW,
        note="seen",
    )
    guest = replace(make_guests(lab)[1], pin=PIN, state=GuestState.STANDING, moref="vm-7")
    found_lab, found_guest = parse_dossier(build_dossier(lab, guest))
    assert found_lab == make_lab("ana-mlops", 3, "workbench", "tracking")
    assert found_guest == replace(guest, state=GuestState.PLANNED, moref="", address="")


@given(
    days=st.integers(0, 4000),
    login=st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True),
    name=st.text(max_size=60),
)
def test_it_comes_back_as_it_was(days: int, login: str, name: str) -> None:
    lab = make_lab(f"{login}-mlops")
    lab = replace(lab, lease=Lease(NOW + timedelta(days=days), timedelta(hours=days)))
    guest = replace(make_guests(lab, address="")[0], vm_name=name, pin=PIN)
    assert parse_dossier(build_dossier(lab, guest)) == (lab, guest)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"lab": 1}', "x" * (LONGEST_CHARS + 1)])
def test_what_is_no_dossier_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="not one that this labctl knows"):
        parse_dossier(text)


def test_the_longest_dossier_is_read() -> None:
    text = build_dossier(make_lab(), make_guests(make_lab())[0])
    assert parse_dossier(text + " " * (LONGEST_CHARS - len(text)))
