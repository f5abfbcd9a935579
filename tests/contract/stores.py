"""The stores of the contract suite: in memory and on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from provisioner.ports import Audit, LabStore
from provisioner.store import open_store
from tests.fakes.store import MemoryStore


class Store(LabStore, Audit, Protocol):
    """Both ports on one object."""


def open_memory(_folder: Path) -> Store:
    return MemoryStore()


def open_sqlite(folder: Path) -> Store:
    return open_store(folder / "labctl.db")


@pytest.fixture(name="store", params=[open_memory, open_sqlite])
def store_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make: Callable[[Path], Store] = request.param
    made = make(tmp_path)
    yield made
    made.close()
