from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.rules.plain_text import build_plain_line, build_plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ended", "0;never ended"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("bell\x07 back\x08 del\x7f c1\x9b31m", "bell back del c131m"),
        ("\u202egnp.exe", "gnp.exe"),
        ("héllo 日本", "héllo 日本"),
        ("half \ud800", "half ?"),
    ],
)
def test_cases(text: str, plain: str) -> None:
    assert build_plain_text(text) == plain


@given(st.text())
def test_nothing_of_it_can_steer_a_terminal(text: str) -> None:
    plain = build_plain_text(text)
    assert not [c for c in plain if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    assert build_plain_text(plain) == plain


def test_a_name_stays_on_its_line() -> None:
    assert build_plain_line(" vm\x1b[2J\r\n  two\tthree ") == "vm two three"
