"""The store after a restore: older than the world, so it ends nothing until it was compared."""

from __future__ import annotations

from datetime import datetime

from provisioner.errors import RestoredStoreError
from provisioner.ports import LabStore

RESTORED_NOTE = "restored"
"""The store's note: when the backup was made that it was put back from. `adopt` removes it."""


def find_restored_at(store: LabStore) -> datetime | None:
    """Return when the backup was made that the store was put back from; None when it was not."""
    text = store.find_note(RESTORED_NOTE)
    return datetime.fromisoformat(text) if text else None


def refuse_when_restored(store: LabStore) -> None:
    """Refuse what would end a lab or destroy a VM by a store that may be older than the world.

    Raises RestoredStoreError.
    """
    restored_at = find_restored_at(store)
    if restored_at is not None:
        raise RestoredStoreError(
            f"the store was put back from a backup of {restored_at:%Y-%m-%d %H:%M} UTC: it may not"
            " know what came and went since, so nothing is ended by it",
            hint="run labctl adopt first: it compares the store with vCenter",
        )
