"""Text from machines that are not ours, made harmless for logs and terminals."""

from __future__ import annotations

import re
import unicodedata

# CSI and OSC sequences, then every other two-character escape (ECMA-48).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
# Characters that turn the reading direction: they make a line look like another one.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def build_plain_text(text: str) -> str:
    r"""Return `text` without terminal escapes, control and direction characters.

    Tabs and line ends stay; `\r\n` and `\r` become `\n`. Surrogates become `?`.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(_clean(char) for char in text)


def build_plain_line(text: str) -> str:
    """Return `text` as `build_plain_text` does, on one line, with single spaces."""
    return " ".join(build_plain_text(text).split())


def _clean(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cs":
        return "?"
    if char in _BIDI or (category == "Cc" and char not in "\n\t"):
        return ""
    return char
