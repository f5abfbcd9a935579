"""Faults put into the package on purpose: the tests must see nearly all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.mutants.mutation import load_by_hand, load_suites, load_survivors
from tests.chaos.mutants.syntax import choose, list_mutations
from tests.chaos.mutants.trial import PROJECT, Verdict, find_faults, try_all

SEED = 2026
BY_GRAMMAR = {"rules": 30, "vsphere": 30}
KILLED_AT_LEAST = 0.9


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_faults_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutations = list(load_by_hand())
    for folder, number in BY_GRAMMAR.items():
        every = [
            mutation
            for file, tests in load_suites().items()
            if file.startswith(f"provisioner/{folder}/")
            for mutation in list_mutations(file, (PROJECT / file).read_text(), tests)
        ]
        mutations += choose(every, number, SEED)
    outcomes = try_all(mutations, tmp_path)
    survived = sum(one.verdict is Verdict.SURVIVED for one in outcomes)
    with capsys.disabled():
        sys.stdout.write(
            f"\nseed {SEED}: {len(outcomes) - survived} of {len(outcomes)} were seen\n"
        )
    assert find_faults(outcomes, load_survivors(), killed_at_least=KILLED_AT_LEAST) == ()
