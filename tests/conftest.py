"""Which tests stay together when several processes share the suite.

Real guests are made once for a folder of tests, everything else that is shared belongs to a file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
WITH_GUESTS = ("e2e", "guests")


def _name_group(item: pytest.Item) -> str:
    file = item.path.relative_to(TESTS)
    return file.parts[0] if file.parts[0] in WITH_GUESTS else str(file)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the group of a test, for pytest-xdist."""
    item.add_marker(pytest.mark.xdist_group(_name_group(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, those with guests."""
    items.sort(key=lambda item: _name_group(item) not in WITH_GUESTS)
