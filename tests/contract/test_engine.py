"""One suite for every Engine; what only threads can show is asked of the real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any, Protocol

import pytest

from provisioner.engine import DurableEngine, InProcessEngine
from provisioner.engine.patience import act_patiently
from provisioner.errors import (
    CapacityError,
    FileProblemsError,
    LabctlError,
    Problem,
    StoppedError,
    UnknownLabError,
    VsphereUnavailableError,
)
from provisioner.ports import Engine, Flow, Step, Workflow
from tests.fakes.engine import InlineEngine

AT = ("provision", "ana-mlops", 1, 1)
SOON_S = 20.0
PAUSES_S = (0.001,)


class MakeEngine(Protocol):
    def __call__(self, workflows: Mapping[str, Workflow], **settings: Any) -> Engine: ...


@pytest.fixture(params=[InlineEngine, InProcessEngine, DurableEngine])
def make_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(workflows: Mapping[str, Workflow], **settings: Any) -> Engine:
        where = [tmp_path / "engine.db"] if request.param is DurableEngine else []
        made.append(request.param(workflows, *where, **{"pauses_s": PAUSES_S, **settings}))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


with_threads = pytest.mark.parametrize(
    "make_engine", [InProcessEngine, DurableEngine], indirect=True
)


@pytest.fixture
def run(make_engine: MakeEngine) -> Callable[[Callable[[Flow], Any]], None]:
    """Run a workflow body to its end, and raise what it raised."""

    def run_body(body: Callable[[Flow], Any]) -> None:
        raised: list[Exception] = []

        def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
            try:
                body(flow)
            except Exception as error:
                raised.append(error)
                raise

        engine = make_engine({"provision": workflow})
        engine.submit(*AT)
        ended_well = False
        with suppress(LabctlError):
            ended_well = engine.wait(*AT, timeout_s=SOON_S)
        assert ended_well is not bool(raised)
        if raised:
            raise raised[0]

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
    for number in (1, 2, 3):
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

    def workflow(flow: Flow, _lab_id: str, _generation: int) -> None:
        assert flow.run(Step("a", lambda: ran.append("a") or 7)) == (7,)
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
    errors: list[Exception] = [error, problems, VsphereUnavailableError("away")]

    def act() -> None:
        raise errors[0]

    engine = make_engine({"provision": lambda flow, *_: flow.run(Step("a", act))})
    for kind, what, hint in (
        (CapacityError, "full", "free a host"),
        (FileProblemsError, "lab.yml:1:2 guests: half \\udcff a pair", ""),
        (VsphereUnavailableError, "away", ""),
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


# -- patience -----------------------------------------------------------------------------------


def test_a_step_with_patience_is_tried_until_vcenter_answers(run: Any) -> None:
    tries: list[int] = []

    def act() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise VsphereUnavailableError("no answer")
        return "powered on"

    seen: list[Any] = []
    run(lambda flow: seen.extend(flow.run(Step("power-on", act, patience_s=SOON_S))))
    assert (len(tries), seen) == (4, ["powered on"])


def test_without_an_answer_the_error_is_the_outcome_when_patience_ends(run: Any) -> None:
    tries: dict[str, int] = {"none": 0, "some": 0}

    def act(slot: str) -> None:
        tries[slot] += 1
        raise VsphereUnavailableError(f"no answer for {slot}")

    with pytest.raises(VsphereUnavailableError, match="for none"):
        run(
            lambda flow: flow.run(
                Step("clone", partial(act, "none"), slot="none"),
                Step("clone", partial(act, "some"), slot="some", patience_s=0.05),
            )
        )
    assert tries["none"] == 1
    assert tries["some"] > 1


def test_patience_is_for_no_other_error(run: Any) -> None:
    tries: list[int] = []
    with pytest.raises(CapacityError):
        run(
            lambda flow: flow.run(
                Step("a", lambda: tries.append(1) or fail("full"), patience_s=SOON_S)
            )
        )
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


# -- what cannot be -------------------------------------------------------------------------------


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
