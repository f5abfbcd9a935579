from __future__ import annotations

import pytest

from provisioner.errors import RestoredStoreError
from provisioner.rules.restored import RESTORED_NOTE, find_restored_at, refuse_when_restored
from tests.fakes.samples import NOW
from tests.fakes.store import MemoryStore


def test_a_store_that_was_put_back_ends_nothing_until_the_note_is_gone() -> None:
    store = MemoryStore()
    refuse_when_restored(store)
    store.set_note(RESTORED_NOTE, NOW.isoformat())
    assert find_restored_at(store) == NOW
    with pytest.raises(RestoredStoreError, match="2026-03-02 09:30 UTC") as caught:
        refuse_when_restored(store)
    assert "labctl adopt" in caught.value.hint
    store.set_note(RESTORED_NOTE, "")
    assert find_restored_at(store) is None
    refuse_when_restored(store)
