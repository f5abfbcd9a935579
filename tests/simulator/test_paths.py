"""Property paths: what parses comes back, what does not is refused."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyVmomi import vim, vmodl

from provisioner.simulator.paths import Step, check_path, parse_path

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
KEYS = st.none() | st.integers(-(2**31), 2**31) | st.text(st.characters(exclude_categories=["Cs"]))
STEPS = st.lists(st.builds(Step, NAMES, KEYS), min_size=1, max_size=5)


def written(step: Step) -> str:
    if step.key is None:
        return step.name
    if isinstance(step.key, int):
        return f"{step.name}[{step.key}]"
    quoted = step.key.replace("\\", "\\\\").replace('"', '\\"')
    return f'{step.name}["{quoted}"]'


@given(STEPS)
def test_a_written_path_is_read_back(steps: list[Step]) -> None:
    assert parse_path(".".join(map(written, steps))) == tuple(steps)


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    with contextlib.suppress(vmodl.query.InvalidProperty):
        assert all(step.name.isidentifier() for step in parse_path(text))


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a[", "a[]", 'a["b]', "a b", "a[1]b", "a\n"]
)
def test_no_paths(path: str) -> None:
    with pytest.raises(vmodl.query.InvalidProperty):
        parse_path(path)


@pytest.mark.parametrize(
    "path",
    ["name", "config.hardware.device[2000].backing.fileName", 'config.extraConfig["a.b"].value'],
)
def test_paths_through_subtypes_are_valid(path: str) -> None:
    check_path(path, vim.VirtualMachine)
