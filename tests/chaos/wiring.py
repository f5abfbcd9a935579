"""The house as it is wired for chaos: all real but SSH and Ansible, its calls watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from provisioner.app.wiring import House
from provisioner.model.observed import PlayProgress
from provisioner.model.spec import Blueprint, Site
from provisioner.workflows.work import Toolbox
from tests.chaos.guests import LastingShell
from tests.fakes.configurator import FakeConfigurator

EVENT = PlayProgress("workbench", "docker_engine", "Install Docker", "started")
Watch = Callable[[Any, str], Any]


def unwatched(adapter: Any, port: str) -> Any:
    """Leave an adapter as it is."""
    del port
    return adapter


@dataclass
class ChaosHouse(House):
    """A house whose guests are no machines.

    Args:
        watch: gets each adapter and the name of its port, and returns what stands in its place.
    """

    watch: Watch = unwatched

    @property
    def guests_dir(self) -> Path:
        """What the guests keep on their disks."""
        return self.state.parent / "guests"

    @cached_property
    def store(self) -> Any:
        """The store, watched."""
        return self.watch(super().store, "store")

    @cached_property
    def credentials(self) -> Any:
        """Labctl's own keys, watched."""
        return self.watch(super().credentials, "credentials")

    def get_hypervisor(self, site: Site) -> Any:
        """Return the session with the site's vCenter, watched."""
        return self.watch(super().get_hypervisor(site), "hypervisor")

    def get_tools(self, site: Site, blueprint: Blueprint) -> Toolbox:
        """Gather what work needs, with guests that are no machines."""
        shell, configurator = LastingShell(self.guests_dir), FakeConfigurator(events=[EVENT])
        return replace(
            super().get_tools(site, blueprint),
            shell=self.watch(shell, "shell"),
            configurator=self.watch(configurator, "configurator"),
        )
