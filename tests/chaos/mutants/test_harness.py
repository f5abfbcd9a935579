"""What `make test` shows of the mutations: the harness tells seen faults from unseen ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.mutants.mutation import (
    Mutation,
    StaleMutationError,
    load_by_hand,
    load_suites,
    load_survivors,
)
from tests.chaos.mutants.syntax import choose, list_mutations
from tests.chaos.mutants.trial import PROJECT, Copy, Outcome, Verdict, find_faults, try_all

BY_HAND = {mutation.name: mutation for mutation in load_by_hand()}
SHOWN = ("the mark's HMAC is not checked", "a copy's mark is genuine", "a receipt without sight")
DEAD = Mutation(
    name="words that nobody reads",
    file="provisioner/rules/mark.py",
    old="Judge a mark found on the VM",
    new="Judge a mark that was found on the VM",
    tests=("tests/unit/test_mark.py",),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


def test_faults_are_seen_and_dead_text_is_not(tmp_path: Path) -> None:
    shown = [BY_HAND[name] for name in SHOWN]
    outcomes = try_all([*shown, DEAD], tmp_path)
    assert {one.mutation.name: one.verdict for one in outcomes} == {
        **dict.fromkeys(SHOWN, Verdict.KILLED),
        DEAD.name: Verdict.SURVIVED,
    }
    (fault,) = find_faults(outcomes, {}, killed_at_least=0.7)
    assert fault.startswith(f"survived, unexplained: {DEAD.name}")


@pytest.mark.parametrize("fails", ["always", "once"])
def test_tests_that_fail_by_themselves_prove_nothing(
    copy: Copy, tmp_path: Path, fails: str
) -> None:
    test, seen = tmp_path / "test_broken.py", tmp_path / "seen"
    test.write_text(
        "from pathlib import Path\n"
        f"SEEN = Path({str(seen)!r})\n"
        "def test_it() -> None:\n"
        f"    again = SEEN.exists() and {fails == 'once'}\n"
        "    SEEN.touch()\n"
        "    assert again\n"
    )
    if fails == "once":
        copy.check([str(test)])
        return
    with pytest.raises(RuntimeError, match="fail without a mutation"):
        copy.check([str(test)])


def test_no_test_at_all_is_no_verdict(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").write_text("")
    for test in (str(tmp_path / "test_empty.py"), "tests/unit/test_that_is_not_there.py"):
        with pytest.raises(RuntimeError, match="pytest ran no test"):
            copy.run([test])


def test_a_mutation_that_hangs_is_ended_and_seen(copy: Copy) -> None:
    endless = replace(
        DEAD,
        old="    if not text:\n        return Ownership",
        new="    while not text: pass\n    if not text:\n        return Ownership",
    )
    tests = ("tests/unit/test_mark.py::test_no_mark_is_unmarked",)
    assert copy.try_out(replace(endless, tests=tests), timeout_s=5).verdict is Verdict.HUNG
    assert copy.run(tests)[0] is Verdict.SURVIVED, "the copy is whole again"


def test_a_stale_mutation_is_no_verdict(copy: Copy) -> None:
    for old in ("a text that never stood there", "import"):
        with pytest.raises(StaleMutationError, match="went stale"):
            copy.try_out(replace(DEAD, old=old))
    with pytest.raises(StaleMutationError):
        copy.try_out(replace(DEAD, at=0))


@pytest.mark.parametrize("mutation", BY_HAND.values(), ids=BY_HAND)
def test_every_mutation_by_hand_fits_the_code(mutation: Mutation) -> None:
    text = (PROJECT / mutation.file).read_text()
    compile(mutation.mutate(text), mutation.file, "exec")
    for test in mutation.tests:
        file, *names = test.split("::")
        assert (PROJECT / file).exists(), test
        assert not names or f"def {names[-1].partition('[')[0]}(" in (PROJECT / file).read_text()


def test_no_name_is_there_twice() -> None:
    assert len(BY_HAND) == len(load_by_hand())


# -- by grammar ------------------------------------------------------------------------------------

SOURCE = '''
LIMIT = 5

def f(a: int, b: int = 3) -> bool:
    """A text."""
    if not a:
        print(b)
    ("ümlaut", a and b)
    return a < 7 and b in (1,)

class C:
    def g(self) -> None:
        return None
'''


def test_a_grammar_fault_changes_one_place() -> None:
    found = {one.name.rpartition("::")[2]: one for one in list_mutations("m.py", SOURCE, ())}
    changed = {name: one.mutate(SOURCE) for name, one in found.items()}
    assert {name: (found[name].old, found[name].new) for name in found} == {
        "not-1": ("not a", "(a)"),
        "no-call-1": ("print(b)", "pass"),
        "and-or-1": ("a and b", "(a or b)"),
        "return-none-1": ("return a < 7 and b in (1,)", "return None"),
        "and-or-2": ("a < 7 and b in (1,)", "(a < 7 or b in (1,))"),
        "compare-1": ("a < 7", "(a <= 7)"),
        "plus-one-1": ("7", "8"),
        "minus-one-1": ("7", "(6)"),
        "compare-2": ("b in (1,)", "(b not in (1,))"),
        "plus-one-2": ("1", "2"),
        "minus-one-2": ("1", "(0)"),
    }
    for name, text in changed.items():
        compile(text, name, "exec")
        assert len(text) - len(SOURCE) == len(found[name].new) - len(found[name].old)
    assert '("ümlaut", (a or b))' in changed["and-or-1"]


def test_a_choice_is_the_same_again_and_stays_when_code_is_added() -> None:
    some = list_mutations("m.py", SOURCE, ())
    chosen = {one.name for one in choose(some, 4, seed=1)}
    assert chosen == {one.name for one in choose(reversed(some), 4, seed=1)}
    assert chosen != {one.name for one in choose(some, 4, seed=2)}
    more = list_mutations("m.py", SOURCE + "\ndef h() -> int:\n    return 1\n", ())
    assert len(chosen - {one.name for one in choose(more, 4, seed=1)}) <= 1


def test_every_module_of_the_rules_and_of_vsphere_has_its_tests() -> None:
    suites = load_suites()
    for folder in ("rules", "vsphere"):
        for path in (PROJECT / "provisioner" / folder).glob("*.py"):
            file = str(path.relative_to(PROJECT))
            assert file in suites or not list_mutations(file, path.read_text(), ()), file
    assert all((PROJECT / test).exists() for tests in suites.values() for test in tests)


# -- verdicts --------------------------------------------------------------------------------------


def judge(*verdicts: Verdict, explained: dict[str, str]) -> tuple[str, ...]:
    outcomes = [Outcome(replace(DEAD, name=str(at)), one, "") for at, one in enumerate(verdicts)]
    return find_faults(outcomes, explained, killed_at_least=0.5)


def test_only_a_survivor_may_and_must_be_explained() -> None:
    killed, hung, survived = Verdict.KILLED, Verdict.HUNG, Verdict.SURVIVED
    assert judge(killed, hung, survived, explained={"2": "it is equivalent"}) == ()
    assert judge(killed, survived, explained={})[0].startswith("survived, unexplained: 1")
    assert judge(killed, hung, explained={"1": "why"}) == ("explained, but killed: 1",)
    assert judge(killed, explained={"9": "why"}) == ("explained, but never tried: 9",)
    explained = {"1": "why", "2": "why"}
    assert judge(killed, survived, survived, explained=explained) == ("only 33% were killed",)


def test_every_survivor_is_explained_in_words() -> None:
    assert all(len(why.split()) > 5 for why in load_survivors().values())
