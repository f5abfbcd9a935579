from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import StoreError
from provisioner.model.observed import Evidence, Sight
from provisioner.rules.receipt import (
    NOT_MANAGED,
    Receipt,
    Residue,
    build_receipt,
    from_json,
    is_complete,
    list_doubts,
    render_text,
    to_json,
)
from tests.fakes.samples import NOW, VCENTER, make_lab

SIGHT = Sight(vcenter_uuid=VCENTER, event_key=4800, missing_privileges=(), missing_objects=())
VM = Evidence(
    kind="VM",
    name="ana-mlops-workbench",
    moref="vm-12",
    uuid="5021c0de-0000-4000-8000-000000000001",
    asked_at=NOW,
    answer="no VM of that instance UUID",
    gone=True,
)
MARK = replace(VM, kind="mark", moref="", answer="no VM carries our mark")


def build(**changes: Any) -> Receipt:
    parts: dict[str, Any] = {"sight": SIGHT, "evidence": (VM, MARK), "residue": (), **changes}
    return build_receipt(make_lab(), asked_at=NOW, **parts)


PROVED = {
    "all gone": {},
    "no event since the lab was made": {"sight": replace(SIGHT, event_key=4711)},
    "one row": {"evidence": (VM,)},
}

NOT_PROVED: dict[str, tuple[dict[str, Any], str]] = {
    "another vCenter": (
        {"sight": replace(SIGHT, vcenter_uuid="other")},
        f"another vCenter answered: other, but the lab was made on {VCENTER}",
    ),
    "a vCenter without a UUID": (
        {"sight": replace(SIGHT, vcenter_uuid="")},
        f"another vCenter answered: without a UUID, but the lab was made on {VCENTER}",
    ),
    "a vCenter rolled back": (
        {"sight": replace(SIGHT, event_key=4710)},
        (
            "vCenter was rolled back: its newest event is 4710, "
            "but it had 4711 when the lab was worked on"
        ),
    ),
    "a privilege lost": (
        {"sight": replace(SIGHT, missing_privileges=("System.View on /DC0/vm/labs",))},
        "not allowed to see everything: System.View on /DC0/vm/labs is missing",
    ),
    "an object out of sight": (
        {"sight": replace(SIGHT, missing_objects=("VM template debian-13",))},
        "not everything is visible: VM template debian-13",
    ),
    "nothing was asked": ({"evidence": ()}, "vCenter was asked about nothing"),
    "one is left": (
        {"evidence": (VM, replace(MARK, gone=False, answer="vm-12 carries our mark"))},
        "mark ana-mlops-workbench: vm-12 carries our mark",
    ),
    "one is unknown": (
        {"evidence": (replace(VM, gone=None, answer="no answer"), MARK)},
        "VM ana-mlops-workbench: no answer",
    ),
    "residue": (
        {"residue": (Residue("ana-mlops-workbench", "a disk is not its own"),)},
        "ana-mlops-workbench: a disk is not its own",
    ),
}


@pytest.mark.parametrize("changes", PROVED.values(), ids=PROVED.keys())
def test_proved(changes: dict[str, Any]) -> None:
    receipt = build(**changes)
    assert list_doubts(receipt) == ()
    assert is_complete(receipt)
    assert "result   COMPLETE: vCenter shows nothing" in render_text(receipt)
    assert json.loads(to_json(receipt))["complete"] is True


@pytest.mark.parametrize(("changes", "doubt"), NOT_PROVED.values(), ids=NOT_PROVED.keys())
def test_not_proved(changes: dict[str, Any], doubt: str) -> None:
    receipt = build(**changes)
    assert list_doubts(receipt) == (doubt,)
    assert not is_complete(receipt)
    text = render_text(receipt)
    assert "result   NOT COMPLETE\n" in text
    assert f"  - {doubt}\n" in text
    document = json.loads(to_json(receipt))
    assert (document["complete"], document["doubts"]) == (False, [doubt])


def test_a_receipt_says_what_was_asked_when_and_what_was_answered() -> None:
    receipt = build(
        evidence=(VM, replace(MARK, gone=None, answer="timed out"), replace(MARK, gone=False)),
        residue=(Residue("ana-mlops-workbench", "a disk is not its own", "detach it"),),
    )
    assert (
        render_text(receipt)
        == f"""\
Receipt  lab ana-mlops, generation 1
for      ana@example.com
site     plant, vCenter {VCENTER}
asked    2026-03-02 09:30:00 UTC
result   NOT COMPLETE

Not proved, because
  - mark ana-mlops-workbench: timed out
  - mark ana-mlops-workbench: no VM carries our mark
  - ana-mlops-workbench: a disk is not its own

Left, and what to do
  ana-mlops-workbench: a disk is not its own
    -> detach it

What vCenter was asked
           object  name                 moref  uuid                                  asked     \
vCenter answered
  gone     VM      ana-mlops-workbench  vm-12  5021c0de-0000-4000-8000-000000000001  09:30:00  \
no VM of that instance UUID
  UNKNOWN  mark    ana-mlops-workbench  -      5021c0de-0000-4000-8000-000000000001  09:30:00  \
timed out
  LEFT     mark    ana-mlops-workbench  -      5021c0de-0000-4000-8000-000000000001  09:30:00  \
no VM carries our mark

Not managed by labctl, so not part of this receipt
"""
        + "\n".join(f"  - {sentence}" for sentence in NOT_MANAGED)
    )


def test_what_labctl_does_not_manage_is_named() -> None:
    text = render_text(build())
    for word in ("DNS", "backups", "blocks", "logs outside"):
        assert word in text


def test_a_name_from_vcenter_cannot_paint_the_terminal_or_fake_a_row() -> None:
    hostile = "\x1b[2Jana\x07\n  gone  VM  fake"
    text = render_text(build(evidence=(replace(VM, name=hostile, gone=False),)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\n  gone  VM  fake" not in text


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"lab_id": "ana-mlops"}', "\x00"])
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="receipt cannot be read"):
        from_json(text)


def test_the_verdict_in_the_file_is_not_believed() -> None:
    document = json.loads(to_json(build(evidence=(replace(VM, gone=False),))))
    document |= {"complete": True, "doubts": []}
    assert not is_complete(from_json(json.dumps(document)))


TIMES = st.datetimes(min_value=datetime(2020, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
EVIDENCE = st.builds(
    Evidence,
    kind=TEXTS,
    name=TEXTS,
    moref=TEXTS,
    uuid=TEXTS,
    asked_at=TIMES,
    answer=TEXTS,
    gone=st.none() | st.booleans(),
)
SIGHTS = st.builds(
    Sight,
    vcenter_uuid=st.sampled_from([VCENTER, "", "other"]),
    event_key=st.integers(4700, 4720),
    missing_privileges=st.lists(TEXTS, max_size=1).map(tuple),
    missing_objects=st.lists(TEXTS, max_size=1).map(tuple),
)


@given(
    SIGHTS,
    st.lists(EVIDENCE, max_size=3).map(tuple),
    st.lists(st.builds(Residue, TEXTS, TEXTS), max_size=1).map(tuple),
)
def test_any_receipt_comes_back_and_is_complete_only_with_proof(
    sight: Sight, evidence: tuple[Evidence, ...], residue: tuple[Residue, ...]
) -> None:
    receipt = build(sight=sight, evidence=evidence, residue=residue)
    assert from_json(to_json(receipt)) == receipt
    proof = (
        sight.vcenter_uuid == VCENTER
        and sight.event_key >= 4711
        and not sight.missing_privileges
        and not sight.missing_objects
        and len(evidence) > 0
        and all(row.gone is True for row in evidence)
        and not residue
    )
    assert is_complete(receipt) is proof
    assert render_text(receipt).splitlines()[4].startswith("result   NOT") is not proof
