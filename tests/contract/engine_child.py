"""A process of the crash tests: it runs one workflow, and dies where it is told to."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from provisioner.engine import DurableEngine
from provisioner.errors import CapacityError, LabctlError, to_data
from provisioner.ports import Flow, Step

AT = ("provision", "ana-mlops", 1, 1)
GROUP = ("b1", "b2", "b3")
DEADLINE_S = 30.0
_PAUSE = threading.Event()


@dataclass(frozen=True)
class Plan:
    """How the process lives and dies.

    `victim` is the step at which it is killed, at the `moment` "before" its effect, "after" it, or
    when it is "recorded"; or it stays there, "held". When it is one of the group, one of the other
    two is recorded by then, and one under way. `fails` is a step that raises. `edition` 2 has one
    more step at the end, 3 one more at the beginning.
    """

    folder: str
    victim: str = ""
    moment: str = ""
    fails: str = ""
    edition: int = 1
    submits: bool = True

    @property
    def database(self) -> Path:
        return Path(self.folder) / "engine.db"

    @property
    def log(self) -> Path:
        return Path(self.folder) / f"{os.getpid()}.log"

    def to_text(self) -> str:
        return json.dumps(asdict(self))


class Doomed:
    """A workflow of `a`, then `b1`, `b2` and `b3` side by side, then `c`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values: list[Any] = []
        self.in_group = plan.victim in GROUP
        self.done_first, self.under_way = [name for name in GROUP if name != plan.victim][:2]

    def workflow(self, flow: Flow, _lab_id: str, _generation: int) -> None:
        self.values.clear()
        before = ("new",) if self.plan.edition == 3 else ()
        after = ("d",) if self.plan.edition == 2 else ()
        for names in (*((name,) for name in before), ("a",), GROUP, ("c",), after):
            self.values += flow.run(*(Step(name, partial(self.act, name)) for name in names))
            if self.plan.moment == "recorded" and self.plan.victim in names:
                die()

    def act(self, name: str) -> str:
        self.say(f"began {name}")
        if self.in_group and name in GROUP:
            self.meet(name)
        self.die_at(name, "before")
        if name == self.plan.fails:
            raise CapacityError(f"{name} has no room", hint="free a host")
        self.say(f"did {name}")
        self.die_at(name, "after")
        return f"value of {name}"

    def meet(self, name: str) -> None:
        """Bring the group to where the process dies."""
        if name == self.plan.victim:
            self.wait_until_recorded(self.done_first)
        elif name == self.under_way:
            self.wait_until_recorded(self.plan.victim)
            die()

    def wait_until_recorded(self, name: str) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while f"{name}:" not in list_recorded(self.plan.database):
            assert time.monotonic() < end_s, f"{name} was not recorded"
            _PAUSE.wait(0.01)

    def die_at(self, name: str, moment: str) -> None:
        if (name, moment) == (self.plan.victim, self.plan.moment):
            die()
        if (name, self.plan.moment) == (self.plan.victim, "held"):
            _PAUSE.wait(DEADLINE_S)

    def say(self, text: str) -> None:
        with self.plan.log.open("a") as log:
            log.write(f"{text}\n")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    _PAUSE.wait(DEADLINE_S)  # until it arrives


def list_recorded(database: Path) -> list[str]:
    """List the keys of the steps whose outcomes are in the database, whatever they are."""
    raw = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=DEADLINE_S)
    try:
        return [key for (key,) in raw.execute("SELECT function_name FROM operation_outputs")]
    finally:
        raw.close()


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    doomed = Doomed(plan)
    engine = DurableEngine({"provision": doomed.workflow}, plan.database)
    if plan.submits:
        engine.submit(*AT)
    try:
        assert engine.wait(*AT, timeout_s=DEADLINE_S)
        said: dict[str, Any] = {"values": doomed.values}
    except LabctlError as error:
        said = {"error": to_data(error)}
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
