"""Configurator without Ansible: a test says which events a run has, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from provisioner.errors import GuestUnreachableError, PlayFailedError, StoppedError
from provisioner.model.observed import PlayProgress, PlayRecap
from provisioner.ports import PlayOrder


@dataclass
class FakeConfigurator:
    """Plays `events` in their order; a failed or unreachable one ends the run with its error.

    `orders` records every run. Without events each guest of the inventory is `ok` with 0 changed.
    """

    events: list[PlayProgress] = field(default_factory=list)
    orders: list[PlayOrder] = field(default_factory=list)

    def run_play(
        self,
        order: PlayOrder,
        on_event: Callable[[PlayProgress], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[PlayRecap, ...]:
        self.orders.append(order)
        for event in self.events:
            if is_cancelled():
                raise StoppedError(f"{order.playbook} on lab {order.lab_id} was stopped")
            on_event(event)
            if event.status in ("failed", "unreachable"):
                kind = PlayFailedError if event.status == "failed" else GuestUnreachableError
                raise kind(
                    f"{event.play_task!r} {event.status} on guest {event.slot}: {event.text}"
                )
        return tuple(self._count(slot) for slot in order.inventory["all"]["hosts"])

    def _count(self, slot: str) -> PlayRecap:
        statuses = [event.status for event in self.events if event.slot == slot]
        changed, skipped = statuses.count("changed"), statuses.count("skipped")
        return PlayRecap(slot, statuses.count("ok") + changed, changed, 0, 0, skipped)
