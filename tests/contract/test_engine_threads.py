"""Patience of every Engine, and what threads add: asked of the real ones."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from provisioner.engine import DurableEngine, InProcessEngine
from provisioner.engine.patience import act_patiently
from provisioner.errors import CapacityError, StoppedError, VsphereUnavailableError
from provisioner.ports import Flow, Step
from tests.contract.engines import AT, SOON_S, MakeEngine, fail

with_threads = pytest.mark.parametrize(
    "make_engine", [InProcessEngine, DurableEngine], indirect=True
)


def test_a_step_with_patience_is_tried_until_vcenter_answers(run_flow: Any) -> None:
    tries: list[int] = []

    def act() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise VsphereUnavailableError("no answer")
        return "powered on"

    seen: list[Any] = []
    run_flow(lambda flow: seen.extend(flow.run(Step("power-on", act, patience_s=SOON_S))))
    assert (len(tries), seen) == (4, ["powered on"])


def test_without_an_answer_the_error_is_the_outcome_when_patience_ends(run_flow: Any) -> None:
    tries: dict[str, int] = {"none": 0, "some": 0}

    def act(slot: str) -> None:
        tries[slot] += 1
        raise VsphereUnavailableError(f"no answer for {slot}")

    with pytest.raises(VsphereUnavailableError, match="for none"):
        run_flow(
            lambda flow: flow.run(
                Step("clone", partial(act, "none"), slot="none"),
                Step("clone", partial(act, "some"), slot="some", patience_s=0.05),
            )
        )
    assert tries["none"] == 1
    assert tries["some"] > 1


def test_patience_is_for_no_other_error(run_flow: Any) -> None:
    tries: list[int] = []

    def act() -> None:
        tries.append(1)
        fail("full")

    with pytest.raises(CapacityError):
        run_flow(lambda flow: flow.run(Step("a", act, patience_s=SOON_S)))
    assert tries == [1]


def test_pauses_grow_and_the_last_try_is_when_patience_ends() -> None:
    now_s, paused_s, tried_at_s = 100.0, list[float](), list[float]()

    class Closing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_s
            assert timeout is not None
            paused_s.append(timeout)
            now_s += timeout
            return self.is_set()

    def act() -> None:
        tried_at_s.append(now_s)
        raise VsphereUnavailableError("no answer")

    step = Step("clone", act, patience_s=100.0)
    with pytest.raises(VsphereUnavailableError):
        act_patiently(step, Closing(), monotonic_s=lambda: now_s)
    assert paused_s == [1, 2, 4, 8, 16, 30, 30, 9]
    assert tried_at_s[-1] == 200.0


# -- what threads add ---------------------------------------------------------------------------


@with_threads
def test_steps_run_side_by_side_up_to_the_width(make_engine: MakeEngine) -> None:
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
    engine = make_engine({"provision": lambda flow, *_: flow.run(*steps)}, width=width)
    engine.submit(*AT)
    assert engine.wait(*AT, timeout_s=SOON_S)
    assert most == width


@with_threads
def test_labs_run_side_by_side_and_each_only_once(make_engine: MakeEngine) -> None:
    met, go = threading.Barrier(3), threading.Event()
    runs: list[str] = []

    def workflow(_flow: Flow, lab_id: str, _generation: int) -> None:
        runs.append(lab_id)
        met.wait(SOON_S)
        assert go.wait(SOON_S)

    engine = make_engine({"provision": workflow})
    for lab_id in ("ana-mlops", "bo-mlops"):
        for _ in range(5):
            engine.submit("provision", lab_id, 1, 1)
    met.wait(SOON_S)
    assert engine.is_running(*AT)
    engine.submit(*AT)
    assert not engine.wait(*AT, timeout_s=0.01)
    go.set()
    for lab_id in ("ana-mlops", "bo-mlops"):
        assert engine.wait("provision", lab_id, 1, 1, timeout_s=SOON_S)
    assert sorted(runs) == ["ana-mlops", "bo-mlops"]


@with_threads
def test_close_lets_the_step_under_way_end_and_starts_no_other(make_engine: MakeEngine) -> None:
    begun, go, ran = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert go.wait(SOON_S)
        ran.append("first")

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        flow.run(Step("first", first), Step("beside", lambda: ran.append("beside")))
        flow.run(Step("second", lambda: ran.append("second")))

    engine = make_engine({"provision": workflow}, width=1)
    engine.submit(*AT)
    assert begun.wait(SOON_S)
    closer = threading.Thread(target=engine.close)
    closer.start()
    wait_until_closing(engine)
    with pytest.raises(StoppedError):
        engine.submit("provision", "bo-mlops", 1, 1)
    go.set()
    closer.join(SOON_S)
    assert not closer.is_alive()
    assert ran == ["first"], "not even the one that waited beside it"
    with pytest.raises(StoppedError) as caught:
        engine.wait(*AT, timeout_s=SOON_S)
    assert caught.value.exit_code == 5
    assert not engine.is_running(*AT)
    assert not [t for t in threading.enumerate() if t.name.startswith(("workflow", "step"))]


@with_threads
def test_close_ends_a_pause_at_once(make_engine: MakeEngine) -> None:
    tried = threading.Event()

    def act() -> None:
        tried.set()
        raise VsphereUnavailableError("no answer")

    step = Step("clone", act, patience_s=10 * SOON_S)
    engine = make_engine({"provision": lambda flow, *_: flow.run(step)}, pauses_s=[10 * SOON_S])
    engine.submit(*AT)
    assert tried.wait(SOON_S)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(SOON_S)
    assert not closer.is_alive()
    with pytest.raises(StoppedError):
        engine.wait(*AT, timeout_s=SOON_S)


def wait_until_closing(engine: Any) -> None:
    assert engine._closing.wait(SOON_S)
