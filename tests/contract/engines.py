"""What the suites of the engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from provisioner.engine import DurableEngine
from provisioner.errors import CapacityError, LabctlError
from provisioner.ports import Engine, Flow, Workflow

AT = ("provision", "ana-mlops", 1, 1)
SOON_S = 20.0
PAUSES_S = (0.001,)


class MakeEngine(Protocol):
    def __call__(self, workflows: Mapping[str, Workflow], **settings: Any) -> Engine: ...


def fail(text: str) -> Any:
    raise CapacityError(text)


@contextmanager
def making(kind: Callable[..., Engine], folder: Path) -> Iterator[MakeEngine]:
    """Lend a maker of engines of this kind; all of them are closed in the end."""
    made: list[Engine] = []

    def make(workflows: Mapping[str, Workflow], **settings: Any) -> Engine:
        where = [folder / "engine.db"] if kind is DurableEngine else []
        made.append(kind(workflows, *where, **{"pauses_s": PAUSES_S, **settings}))
        return made[-1]

    try:
        yield make
    finally:
        for engine in made:
            engine.close()


def run_body(make_engine: MakeEngine, body: Callable[[Flow], Any]) -> None:
    """Run a workflow body to its end, and raise what it raised."""
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
