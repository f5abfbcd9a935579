"""Work in this process, by an adapter of vCenter in a hurry: its minutes are seconds here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from provisioner.app.wiring import WORKFLOWS
from provisioner.app.worker import Worker
from provisioner.credentials import get_installation
from provisioner.engine import InProcessEngine
from provisioner.model.spec import Site
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.chaos.ground import Ground
from tests.chaos.wiring import ChaosHouse

LIMITS = Limits(
    connect_s=1.0,
    request_s=1.5,
    clone_s=3.0,
    power_s=3.0,
    reconfigure_s=3.0,
    destroy_s=3.0,
    search_s=3.0,
    backup_s=3.0,
)
PAUSES_S = (0.05, 0.1, 0.2)
DEADLINE_S = 60.0
"""For a piece of work, whatever happens to it: so much are its 15 minutes of patience here."""
GRACE_S = 5.0
POLL_S = 0.02


class StuckError(Exception):
    """Work did not end by its deadline."""


@dataclass
class HastyHouse(ChaosHouse):
    """A house whose adapter of vCenter has short limits, and whose engine is in memory."""

    def get_hypervisor(self, site: Site) -> Any:
        """Return the one session with the site's vCenter."""
        with self._making:
            if not self._hypervisors:
                self._hypervisors["hasty"] = VsphereHypervisor(
                    site,
                    get_installation(self.state),
                    partial(self.get_password, site),
                    self.clock,
                    LIMITS,
                )
            return self._hypervisors["hasty"]

    def open_engine(self) -> InProcessEngine:
        """Open the engine in memory, with short pauses."""
        workflows: Any = {name: partial(self._run, act) for name, act in WORKFLOWS.items()}
        return InProcessEngine(workflows, pauses_s=PAUSES_S)


@contextmanager
def working(place: Ground) -> Iterator[None]:
    """Have a worker on a lab's place."""
    house = HastyHouse(ask_password=lambda who: who, state=place.state, project=place.project)
    engine = house.open_engine()
    worker = threading.Thread(target=Worker(house, engine, idle_s=None).run)
    worker.start()
    try:
        yield
    finally:
        house.stopping.set()
        worker.join()
        engine.close()
        house.close()


def wait_for_end(place: Ground) -> str | None:
    """Wait for the end of the newest work; return what it failed with, None when it is well.

    Raises StuckError when it does not end by its deadline.
    """
    end_s = time.monotonic() + DEADLINE_S + GRACE_S
    while True:
        status, error = place.query("SELECT status, error FROM work ORDER BY serial DESC")[0]
        if status in ("done", "failed"):
            return json.loads(error)["what"] if error else None
        if time.monotonic() > end_s:
            last = place.query("SELECT * FROM progress ORDER BY serial DESC LIMIT 3")
            raise StuckError(f"stuck after {last}")
        threading.Event().wait(POLL_S)
