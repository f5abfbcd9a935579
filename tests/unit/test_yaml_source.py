from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.errors import FileProblemsError, Problem
from provisioner.files.yaml_source import (
    MAX_BYTES,
    YamlSource,
    parse_yaml,
    read_yaml,
    show_path,
)
from tests.cases.harness import load_cases


def find_problems(raw: bytes) -> tuple[YamlSource | None, tuple[Problem, ...]]:
    try:
        source = parse_yaml("f", raw)
    except FileProblemsError as error:
        return None, error.problems
    return source, source.problems


@pytest.mark.parametrize(
    "case", load_cases("files/yaml.yml", needed={"text"}, allowed={"problems"})
)
def test_yaml(case: dict[str, Any]) -> None:
    _, problems = find_problems(case["text"].encode())
    seen = sorted(problems, key=lambda problem: (problem.line, problem.column))
    assert [str(problem) for problem in seen] == [f"f:{text}" for text in case.get("problems", [])]


def test_what_is_built_is_plain() -> None:
    source = parse_yaml("f", b"a: 1\nb: [x, 1.5, true, ~, 'yes', !!str 010]\nc: {d: FALSE}\n")
    assert source.data == {"a": 1, "b": ["x", 1.5, True, None, "yes", "010"], "c": {"d": False}}
    assert source.places["c", "d"] == (3, 5)
    assert source.places["b", 1] == (2, 8)


def test_lines_are_counted_as_editors_do() -> None:
    """NEL and LINE SEPARATOR end a line for YAML, but not for an editor."""
    text = '\ufeffa: "x\u2028y\u0085"\r\nb: 1\r\nb: 2\r\n'
    _, (problem,) = find_problems(text.encode())
    assert (problem.line, problem.column) == (3, 1)


def test_a_byte_order_mark_is_no_column() -> None:
    _, (problem,) = find_problems("\ufeffa: on\n".encode())
    assert (problem.line, problem.column) == (1, 4)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a: 1\nb: caf\xe9\n", "2:7: a byte that is not UTF-8; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "1:1: a byte that is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \x07\n", "2:4: an invisible control character; remove it"),
        (b"a: \x00", "1:4: an invisible control character; remove it"),
        (b"a: 1\n" * MAX_BYTES, "1:1: too large; allowed: 256 KiB"),
    ],
)
def test_bytes_that_are_no_text(raw: bytes, expected: str) -> None:
    source, problems = find_problems(raw)
    assert source is None
    assert [str(problem) for problem in problems] == [f"f:{expected}"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileProblemsError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "nowhere.yml")
    with pytest.raises(FileProblemsError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ((), ""),
        (("guests", 0, "networks", 1), "guests[0].networks[1]"),
        (("a b",), "'a b'"),
        (("a", "\n\x1b[31m"), r"a.'\n\x1b[31m'"),
        (("k" * 200,), "k" * 60),
    ],
)
def test_key_paths_are_shown_safely(path: tuple[str | int, ...], shown: str) -> None:
    assert show_path(path) == shown


def is_inside(problem: Problem, raw: bytes) -> bool:
    lines = raw.decode("utf-8", errors="replace").split("\n")
    if not 1 <= problem.line <= len(lines):
        return False
    return 1 <= problem.column <= len(lines[problem.line - 1]) + 1


YAML_BITS = st.sampled_from(
    [
        *"a1-:#[]{}&*!|>'\"%@`,?.~\n\t \r=<",
        *("\n  ", "- ", ": ", "<<", "\\U00110000", "\\x", "\ud7ff", "\u2028", "\x85", "\ufeff"),
        *("yes", "0x1", "1:2", "2026-01-31", "---\n", "...\n", "%YAML 1.1\n", "!!int ", "&a "),
        *("*a", "\x00", "\U0001f600"),
    ]
)


@given(
    st.binary(max_size=200) | st.lists(YAML_BITS, max_size=40).map(lambda b: "".join(b).encode())
)
@example(b'"\\UFFFFFFFF"')
@example(b"!<tag:yaml.org,2002:int> x: 1")
@example(b"? *a\n")
def test_any_bytes_give_data_or_problems_inside_the_file(raw: bytes) -> None:
    source, problems = find_problems(raw)
    assert source is not None or problems
    assert all(is_inside(problem, raw) for problem in problems)
    assert all("\n" not in str(problem) for problem in problems), "one line each"
