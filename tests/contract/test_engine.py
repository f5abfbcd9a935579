"""One suite for every Engine; what only threads can show is asked of the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import mul
from typing import Any

import pytest

from provisioner.engine import InProcessEngine
from provisioner.errors import CapacityError, LabctlError, StoppedError, UnknownLabError
from provisioner.ports import Engine, Flow, Step, Workflow
from tests.fakes.engine import InlineEngine

AT = ("provision", "ana-mlops", 1)
SOON_S = 20.0

MakeEngine = Callable[[Mapping[str, Workflow]], Engine]


@pytest.fixture(params=[InlineEngine, InProcessEngine])
def make_engine(request: pytest.FixtureRequest) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(workflows: Mapping[str, Workflow]) -> Engine:
        made.append(request.param(workflows))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def run(make_engine: MakeEngine) -> Callable[[Callable[[Flow], None]], None]:
    """Run a workflow body to its end, and raise what it raised."""

    def run_body(body: Callable[[Flow], None]) -> None:
        engine = make_engine({"provision": lambda flow, _lab_id, _generation: body(flow)})
        engine.submit(*AT)
        assert engine.wait(*AT, timeout_s=SOON_S)

    return run_body


def fail(text: str) -> Any:
    raise CapacityError(text)


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


def test_values_come_back_as_json_makes_them(run: Any) -> None:
    seen: list[Any] = []
    value = {"pair": (1, 2), 3: None, "text": "ä"}
    run(lambda flow: seen.extend(flow.run(Step("preflight", lambda: value))))
    assert seen == [{"pair": [1, 2], "3": None, "text": "ä"}]
    assert isinstance(seen[0]["pair"], list)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", float("nan"), ValueError("x")])
def test_what_cannot_be_recorded_is_refused(run: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        run(lambda flow: flow.run(Step("preflight", lambda: value)))


def test_the_first_error_in_order_is_raised_when_all_have_ended(run: Any) -> None:
    ended: list[str] = []
    steps = [
        Step("clone", lambda: ended.append("a"), slot="a"),
        Step("clone", lambda: fail("b has no room"), slot="b"),
        Step("clone", lambda: fail("c has no room"), slot="c"),
        *(Step("clone", partial(ended.append, n), slot=n) for n in "defghijklm"),
    ]
    with pytest.raises(CapacityError, match="b has no room"):
        run(lambda flow: flow.run(*steps))
    assert sorted(ended) == list("adefghijklm")


def test_the_same_key_in_one_call_is_refused_before_any_runs(run: Any) -> None:
    ran: list[str] = []
    twice = [Step("clone", lambda: ran.append("x"), slot="a")] * 2
    with pytest.raises(ValueError, match="two steps"):
        run(lambda flow: flow.run(*twice))
    assert ran == []


def test_the_same_key_in_a_later_call_is_refused(run: Any) -> None:
    ran: list[str] = []

    def body(flow: Flow) -> None:
        flow.run(Step("clone", lambda: ran.append("a"), slot="a"))
        flow.run(Step("clone", lambda: ran.append("b"), slot="b"))
        flow.run(Step("clonea", lambda: ran.append("c")))
        flow.run(Step("clone", lambda: ran.append("again"), slot="a"))

    with pytest.raises(ValueError, match="two steps"):
        run(body)
    assert ran == ["a", "b", "c"]


def test_keys_are_forgotten_with_their_run(make_engine: MakeEngine) -> None:
    runs: list[int] = []
    engine = make_engine(
        {"provision": lambda flow, *_: flow.run(Step("clone", lambda: runs.append(1)))}
    )
    for _ in range(3):
        engine.submit(*AT)
        assert engine.wait(*AT, timeout_s=SOON_S)
    assert runs == [1, 1, 1]


def test_wait_raises_the_error_each_time_until_a_run_succeeds(make_engine: MakeEngine) -> None:
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


def test_an_error_that_is_no_labctl_error_is_raised_too(run: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda flow: flow.run(Step("a", lambda: 1 // 0)))
    with pytest.raises(ZeroDivisionError):
        run(lambda _flow: 1 // 0)


def test_what_was_never_submitted_cannot_be_waited_for(make_engine: MakeEngine) -> None:
    engine = make_engine({"provision": lambda *_: None})
    assert not engine.is_running(*AT)
    with pytest.raises(UnknownLabError):
        engine.wait(*AT, timeout_s=SOON_S)
    with pytest.raises(KeyError):
        engine.submit("provison", "ana-mlops", 1)


def test_a_closed_engine_takes_no_work(make_engine: MakeEngine) -> None:
    engine = make_engine({"provision": lambda *_: None})
    engine.close()
    engine.close()
    with pytest.raises(StoppedError):
        engine.submit(*AT)


# -- what threads add ---------------------------------------------------------------------------


def test_steps_run_side_by_side_up_to_the_width() -> None:
    width, running, most = 3, 0, 0
    lock, met = threading.Lock(), threading.Barrier(width)

    def act() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        met.wait(SOON_S)  # passes only when `width` steps are under way at once
        with lock:
            running -= 1

    steps = [Step("clone", act, slot=str(number)) for number in range(width * 3)]
    engine = InProcessEngine({"provision": lambda flow, *_: flow.run(*steps)}, width=width)
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)
    engine.close()
    assert most == width


def test_labs_run_side_by_side_and_each_only_once() -> None:
    met, go = threading.Barrier(3), threading.Event()
    runs: list[str] = []

    def workflow(_flow: Flow, lab_id: str, _generation: int) -> None:
        runs.append(lab_id)
        met.wait(SOON_S)
        assert go.wait(SOON_S)

    engine = InProcessEngine({"provision": workflow})
    for lab_id in ("ana-mlops", "bo-mlops"):
        for _ in range(5):
            engine.submit("provision", lab_id, 1)
    met.wait(SOON_S)
    assert engine.is_running("provision", "ana-mlops", 1)
    engine.submit("provision", "ana-mlops", 1)
    assert not engine.wait("provision", "ana-mlops", 1, timeout_s=0.01)
    go.set()
    for lab_id in ("ana-mlops", "bo-mlops"):
        assert engine.wait("provision", lab_id, 1, timeout_s=SOON_S)
    engine.close()
    assert sorted(runs) == ["ana-mlops", "bo-mlops"]


def test_close_lets_the_step_under_way_end_and_starts_no_other() -> None:
    begun, go, ran = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert go.wait(SOON_S)
        ran.append("first")

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        flow.run(Step("first", first), Step("beside", lambda: ran.append("beside")))
        flow.run(Step("second", lambda: ran.append("second")))

    engine = InProcessEngine({"provision": workflow}, width=1)
    engine.submit(*AT)
    assert begun.wait(SOON_S)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while not engine._closing.is_set():
        assert closer.is_alive()
    go.set()
    closer.join(SOON_S)
    assert not closer.is_alive()
    assert ran == ["first"], "not even the one that waited beside it"
    with pytest.raises(StoppedError) as caught:
        engine.wait(*AT, timeout_s=SOON_S)
    assert caught.value.exit_code == 5
    assert not [t for t in threading.enumerate() if t.name.startswith(("workflow", "step"))]
