"""One suite for every Engine."""

from __future__ import annotations

from functools import partial
from operator import mul
from typing import Any

import pytest

from provisioner.errors import (
    CapacityError,
    FileProblemsError,
    LabctlError,
    Problem,
    StoppedError,
    UnknownLabError,
    VsphereUnavailableError,
)
from provisioner.ports import Flow, Step
from tests.contract.engines import AT, SOON_S, MakeEngine, fail


def test_a_workflow_gets_its_lab_and_its_values_in_order(make_engine: MakeEngine) -> None:
    seen: list[Any] = []

    def workflow(flow: Flow, lab_id: str, generation: int) -> None:
        seen.append((lab_id, generation))
        seen.append(flow.run(*(Step("clone", partial(mul, n, 10), slot=str(n)) for n in range(20))))
        seen.append(flow.run())

    engine = make_engine({"provision": workflow})
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)
    assert not engine.is_running(*AT)
    assert seen == [("ana-mlops", 1), tuple(n * 10 for n in range(20)), ()]


def test_values_come_back_as_json_makes_them(run_flow: Any) -> None:
    seen: list[Any] = []
    value = {"pair": (1, 2), 3: None, "text": "ä"}
    run_flow(lambda flow: seen.extend(flow.run(Step("preflight", lambda: value))))
    assert seen == [{"pair": [1, 2], "3": None, "text": "ä"}]
    assert isinstance(seen[0]["pair"], list)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", float("nan"), ValueError("x")])
def test_what_cannot_be_recorded_is_refused(run_flow: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        run_flow(lambda flow: flow.run(Step("preflight", lambda: value)))


def test_the_first_error_in_order_is_raised_when_all_have_ended(run_flow: Any) -> None:
    ended: list[str] = []
    steps = [
        Step("clone", lambda: ended.append("a"), slot="a"),
        Step("clone", lambda: fail("b has no room"), slot="b"),
        Step("clone", lambda: fail("c has no room"), slot="c"),
        *(Step("clone", partial(ended.append, n), slot=n) for n in "defghijklm"),
    ]
    with pytest.raises(CapacityError, match="b has no room"):
        run_flow(lambda flow: flow.run(*steps))
    assert sorted(ended) == list("adefghijklm")


def test_the_same_key_in_one_call_is_refused_before_any_runs(run_flow: Any) -> None:
    ran: list[str] = []
    twice = [Step("clone", lambda: ran.append("x"), slot="a")] * 2
    with pytest.raises(ValueError, match="two steps"):
        run_flow(lambda flow: flow.run(*twice))
    assert ran == []


def test_the_same_key_in_a_later_call_is_refused(run_flow: Any) -> None:
    ran: list[str] = []

    def body(flow: Flow) -> None:
        flow.run(Step("clone", lambda: ran.append("a"), slot="a"))
        flow.run(Step("clone", lambda: ran.append("b"), slot="b"))
        flow.run(Step("clonea", lambda: ran.append("c")))
        flow.run(Step("clone", lambda: ran.append("again"), slot="a"))

    with pytest.raises(ValueError, match="two steps"):
        run_flow(body)
    assert ran == ["a", "b", "c"]


def test_keys_are_forgotten_with_their_run(make_engine: MakeEngine) -> None:
    runs: list[int] = []
    engine = make_engine(
        {"provision": lambda flow, *_: flow.run(Step("clone", lambda: runs.append(1)))}
    )
    for number in (11, 1, 2):
        engine.submit(*AT[:3], number)
        assert engine.wait(*AT[:3], number, timeout_s=SOON_S)
    assert runs == [1, 1, 1]


def test_a_run_that_ended_well_is_not_run_again(make_engine: MakeEngine) -> None:
    runs: list[int] = []
    engine = make_engine({"provision": lambda *_: runs.append(1)})
    for _ in range(3):
        engine.submit(*AT)
        assert engine.wait(*AT, timeout_s=SOON_S)
    assert runs == [1]


def test_wait_raises_the_error_each_time_until_the_run_succeeds(make_engine: MakeEngine) -> None:
    errors: list[LabctlError] = [CapacityError("full")]
    engine = make_engine(
        {"provision": lambda flow, *_: flow.run(Step("a", lambda: errors and fail("full")))}
    )
    engine.submit(*AT)
    for _ in range(2):
        with pytest.raises(CapacityError, match="full"):
            engine.wait(*AT, timeout_s=SOON_S)
    errors.clear()
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)


def test_a_run_continues_at_the_step_that_failed(make_engine: MakeEngine) -> None:
    ran: list[str] = []
    broken = {"b", "d"}
    seen: list[Any] = []

    def act(name: str) -> str:
        ran.append(name)
        return fail(f"{name} has no room") if name in broken else f"value of {name}"

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        group = flow.run(*(Step("clone", partial(act, name), slot=name) for name in "abc"))
        seen.append((*group, *flow.run(Step("power-on", partial(act, "d")))))

    engine = make_engine({"provision": workflow})
    for first_broken in ("b", "b", "d"):
        engine.submit(*AT)
        with pytest.raises(CapacityError, match=f"{first_broken} has no room"):
            engine.wait(*AT, timeout_s=SOON_S)
        if len(ran) == 4:
            broken.discard("b")
    broken.clear()
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)
    assert sorted(ran[:3]) == ["a", "b", "c"]
    assert ran[3:] == ["b", "b", "d", "d"], "only what had failed, and what came after it"
    assert seen == [("value of a", "value of b", "value of c", "value of d")]


def test_a_workflow_that_failed_by_itself_goes_through_again_with_its_values(
    make_engine: MakeEngine,
) -> None:
    ran: list[str] = []
    errors = ["no receipt"]

    def act() -> int:
        ran.append("a")
        return 7

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        assert flow.run(Step("a", act)) == (7,)
        if errors:
            fail(errors[0])
        ran.append("end")

    engine = make_engine({"provision": workflow})
    engine.submit(*AT)
    with pytest.raises(CapacityError, match="no receipt"):
        engine.wait(*AT, timeout_s=SOON_S)
    errors.clear()
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)
    assert ran == ["a", "end"]


def test_an_error_keeps_its_class_its_text_and_its_hint(make_engine: MakeEngine) -> None:
    problems = FileProblemsError((Problem("lab.yml", 1, 2, "guests", "half \udcff a pair"),))
    error = CapacityError("full", hint="free a host")
    stopped = StoppedError("not wanted any more", hint="")
    errors: list[Exception] = [error, problems, VsphereUnavailableError("away"), stopped]

    def act() -> None:
        raise errors[0]

    engine = make_engine({"provision": lambda flow, *_: flow.run(Step("a", act))})
    for kind, what, hint in (
        (CapacityError, "full", "free a host"),
        (FileProblemsError, "lab.yml:1:2 guests: half \\udcff a pair", ""),
        (VsphereUnavailableError, "away", ""),
        (StoppedError, "not wanted any more", ""),
    ):
        engine.submit(*AT)
        with pytest.raises(kind) as caught:
            engine.wait(*AT, timeout_s=SOON_S)
        assert type(caught.value) is kind
        assert (caught.value.what, caught.value.hint) == (what, hint)
        errors.pop(0)


def test_of_a_foreign_error_only_the_type_is_told(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise PermissionError("password=hunter2")

    engine = make_engine(
        {
            "provision": lambda flow, *_: flow.run(Step("a", refuse)),
            "teardown": lambda *_: refuse(),
        }
    )
    for name in ("provision", "teardown"):
        engine.submit(name, *AT[1:])
        with pytest.raises(LabctlError, match="internal error: PermissionError") as caught:
            engine.wait(name, *AT[1:], timeout_s=SOON_S)
        assert "hunter2" not in str(caught.value)
    assert "in refuse" in caplog.text, "the log says where it happened"
    assert "PermissionError('" not in caplog.text


def test_what_was_never_submitted_cannot_be_waited_for(make_engine: MakeEngine) -> None:
    engine = make_engine({"provision": lambda *_: None})
    assert not engine.is_running(*AT)
    with pytest.raises(UnknownLabError):
        engine.wait(*AT, timeout_s=SOON_S)
    with pytest.raises(KeyError):
        engine.submit("provison", "ana-mlops", 1, 1)


def test_a_closed_engine_takes_no_work(make_engine: MakeEngine) -> None:
    engine = make_engine({"provision": lambda *_: None})
    engine.close()
    engine.close()
    with pytest.raises(StoppedError):
        engine.submit(*AT)
