"""Rebuilding a store that was lost, or is older than the world, from what vCenter shows."""

from __future__ import annotations

import getpass
from dataclasses import dataclass

from provisioner.app.comparison import Comparing, Comparison
from provisioner.app.wiring import House
from provisioner.app.worker_process import keeping_workers_out
from provisioner.errors import LabctlError
from provisioner.files.site import EXAMPLE, find_sites, load_site
from provisioner.model.lab import AuditEntry, Desired, Lab, LabState
from provisioner.rules.restored import RESTORED_NOTE, find_restored_at

ACTION = "adopt"
ENGINE_FILES = "engine.db*"


@dataclass(frozen=True)
class Proposal:
    """What `adopt` would record.

    `unseen` says by site why it could not be compared. `ends_restored` tells that a store that was
    put back knows everything again once this is recorded.
    """

    comparison: Comparison
    unseen: dict[str, str]
    ends_restored: bool

    @property
    def changes_nothing(self) -> bool:
        """Whether there is nothing to record."""
        found = self.comparison
        return not (found.adoptions or found.extensions or self.ends_restored)


class Adopting:
    """The store, and the vCenter of one site or of every site."""

    def __init__(self, house: House, site_name: str | None) -> None:
        self._house = house
        self._all = sorted(find_sites(house.site_dirs).keys() - {EXAMPLE})
        self._names: list[str | None] = [site_name] if site_name else [*self._all]

    def propose(self) -> Proposal:
        """Compare the store with vCenter, without a write.

        Of several sites, those that cannot be compared are told; of one, its error is raised.
        """
        found, unseen = Comparison(), dict[str, str]()
        for name in self._names or [None]:  # without any, the error says how to make one
            try:
                site = load_site(self._house.site_dirs, name)
                found = found.join(Comparing(self._house, site).compare(self._all))
            except LabctlError as error:
                if name is None or len(self._names) == 1:
                    raise
                unseen[name] = error.what
        is_restored = find_restored_at(self._house.store) is not None
        is_whole = not unseen and not found.refusals and self._names == self._all
        return Proposal(found, unseen, ends_restored=is_restored and is_whole)

    def adopt(self, proposal: Proposal) -> None:
        """Record what was proposed. Raises BusyError when a worker runs.

        What the engine recorded is forgotten: it may belong to another store.
        """
        house, store = self._house, self._house.store
        with keeping_workers_out(house.state):
            for path in house.state.glob(ENGINE_FILES):
                path.unlink()
            for one in proposal.comparison.adoptions:
                if one.closes is not None:
                    self._close(one.closes, one.lab.generation)
                audit = self._audit(one.lab, f"{one.lab.state}, {len(one.guests)} guests")
                store.adopt_lab(one.lab, one.guests, audit)
            for extension in proposal.comparison.extensions:
                lab, lease = extension.lab, extension.lease
                audit = self._audit(lab, f"lease until {lease.ends_at.isoformat()}, as its VMs say")
                store.set_lease(lab.lab_id, lab.generation, lease, audit)
            if proposal.ends_restored:
                store.set_note(RESTORED_NOTE, "")

    def _close(self, lab: Lab, generation: int) -> None:
        """Close a generation: a later one was made, so it had been closed before."""
        store, now = self._house.store, self._house.clock.now()
        note = f"closed without proof: generation {generation} was made after it"
        store.set_desired(lab.lab_id, lab.generation, Desired.ABSENT, self._audit(lab, note))
        store.set_state(lab.lab_id, lab.generation, LabState.FORGOTTEN, now, note=note)

    def _audit(self, lab: Lab, detail: str) -> AuditEntry:
        at, actor = self._house.clock.now(), getpass.getuser()
        return AuditEntry(at, actor, ACTION, lab.lab_id, "done", detail)
