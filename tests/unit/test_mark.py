from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import Ownership
from provisioner.rules.mark import (
    LONGEST_CHARS,
    Installation,
    build_dossier,
    build_mark,
    read_dossier,
    read_mark,
)

UUID = "0b4a1c2e-9c2b-4a52-8a51-6f4f5e3c2d10"
OTHER_UUID = "0b4a1c2e-9c2b-4a52-8a51-6f4f5e3c2d11"
OURS = Installation("site-a-1", b"k" * 32)
IDENTITY = GuestIdentity("ana-mlops", 3, "workbench", UUID)
MARK = build_mark(OURS, IDENTITY)


def test_our_mark_on_its_own_vm_is_ours() -> None:
    assert read_mark(OURS, MARK, UUID) == (Ownership.OURS, IDENTITY)


def test_the_case_of_a_uuid_does_not_matter() -> None:
    loud = build_mark(OURS, replace(IDENTITY, instance_uuid=UUID.upper()))
    assert read_mark(OURS, loud, UUID.upper()) == (Ownership.OURS, IDENTITY)


def test_our_mark_on_another_vm_is_a_copy() -> None:
    assert read_mark(OURS, MARK, OTHER_UUID) == (Ownership.COPY, IDENTITY)


def test_blanks_count_for_the_length_of_a_mark() -> None:
    assert read_mark(OURS, MARK.ljust(LONGEST_CHARS), UUID) == (Ownership.OURS, IDENTITY)
    assert read_mark(OURS, MARK.ljust(LONGEST_CHARS + 1), UUID) == (Ownership.VOID, None)


@pytest.mark.parametrize("number", ["v", "generation"])
def test_a_claim_of_another_installation_must_be_well_formed_too(number: str) -> None:
    theirs = json.loads(build_mark(Installation("site-a-2", b"x" * 32), IDENTITY))
    assert read_mark(OURS, json.dumps({**theirs, number: True}), UUID) == (Ownership.VOID, None)


def test_another_installations_mark_is_theirs_whatever_it_says() -> None:
    theirs = build_mark(Installation("site-a-2", b"x" * 32), IDENTITY)
    assert read_mark(OURS, theirs, UUID) == (Ownership.OTHER_INSTALLATION, IDENTITY)


def test_our_name_with_another_key_is_void() -> None:
    forged = build_mark(Installation(OURS.installation_id, b"x" * 32), IDENTITY)
    assert read_mark(OURS, forged, UUID) == (Ownership.VOID, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lab", "bo-mlops"), ("generation", 4), ("slot", "tracking"), ("uuid", OTHER_UUID)],
)
def test_a_changed_word_makes_it_void(field: str, value: object) -> None:
    changed = json.dumps({**json.loads(MARK), field: value})
    assert read_mark(OURS, changed, OTHER_UUID) == (Ownership.VOID, None)


@pytest.mark.parametrize("text", [None, ""])
def test_no_mark_is_unmarked(text: str | None) -> None:
    assert read_mark(OURS, text, UUID) == (Ownership.UNMARKED, None)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[" * 2000,
        "[]",
        "{}",
        "7",
        MARK[:-1],
        MARK + MARK,
        json.dumps({**json.loads(MARK), "more": 1}),
        json.dumps({**json.loads(MARK), "generation": True}),
        json.dumps({**json.loads(MARK), "generation": "3"}),
        json.dumps({**json.loads(MARK), "v": 2}),
        json.dumps({**json.loads(MARK), "hmac": "é"}),
        json.dumps({**json.loads(MARK), "lab": "a\nb"}),
        json.dumps({**json.loads(MARK), "lab": "x" * 4000}),
    ],
)
def test_what_is_no_mark_of_ours_is_void(text: str) -> None:
    assert read_mark(OURS, text, UUID) == (Ownership.VOID, None)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_makes_it_raise_or_ours(text: str) -> None:
    ownership, identity = read_mark(OURS, text, UUID)
    assert ownership in (Ownership.VOID, Ownership.UNMARKED)
    assert identity is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text() | st.integers() | st.none() | st.sampled_from([MARK, UUID])
            for name in json.loads(MARK)
        },
    )
)
def test_no_mix_of_words_makes_it_raise_or_ours(words: dict[str, object]) -> None:
    text = json.dumps({**json.loads(MARK), **words})
    ownership, _ = read_mark(OURS, text, UUID)
    assert ownership is not Ownership.OURS or json.loads(text) == json.loads(MARK)


def test_the_key_is_not_shown() -> None:
    assert "kkk" not in repr(OURS)
    assert "kkk" not in MARK


TEXT = 'lab: "ana-mlops"\n# ä\t|0A \\'


def test_a_dossier_reads_as_it_was_written() -> None:
    value = build_dossier(OURS, IDENTITY, TEXT)
    assert read_dossier(OURS, IDENTITY, value) == TEXT
    assert re.fullmatch(r"[0-9a-f]{64} [A-Za-z0-9+/=]+", value), "nothing that a vCenter could bend"
    assert build_dossier(OURS, IDENTITY, "") == ""


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, lab_id="bo-mlops"),
        replace(IDENTITY, generation=4),
        replace(IDENTITY, slot="tracking"),
        replace(IDENTITY, instance_uuid=OTHER_UUID),
    ],
)
def test_a_dossier_that_lies_beside_another_mark_is_empty(other: GuestIdentity) -> None:
    assert read_dossier(OURS, other, build_dossier(OURS, IDENTITY, TEXT)) == ""


@pytest.mark.parametrize(
    "maker",
    [Installation(OURS.installation_id, b"x" * 32), Installation("site-a-2", OURS.key)],
)
def test_a_dossier_that_another_installation_wrote_is_empty(maker: Installation) -> None:
    assert read_dossier(OURS, IDENTITY, build_dossier(maker, IDENTITY, TEXT)) == ""


def test_a_changed_dossier_is_empty() -> None:
    signature, _, _ = build_dossier(OURS, IDENTITY, TEXT).partition(" ")
    assert read_dossier(OURS, IDENTITY, f"{signature} {b64encode(b'other').decode()}") == ""
    assert read_dossier(OURS, IDENTITY, f"{signature} ") == ""


def test_a_mark_is_no_dossier_and_signs_none() -> None:
    signature = json.loads(MARK)["hmac"]
    assert read_dossier(OURS, IDENTITY, MARK) == ""
    assert read_dossier(OURS, IDENTITY, f"{signature} ") == ""


@given(st.none() | st.text())
def test_no_text_makes_a_dossier_raise(value: str | None) -> None:
    assert read_dossier(OURS, IDENTITY, value) == ""


@given(st.text(min_size=1))
def test_every_text_can_be_a_dossier(text: str) -> None:
    assert read_dossier(OURS, IDENTITY, build_dossier(OURS, IDENTITY, text)) == text
