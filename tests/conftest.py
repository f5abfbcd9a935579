"""Which tests stay together when several processes share the suite.

Real guests are made once for a folder of tests, everything else that is shared belongs to a file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
WITH_GUESTS = ("e2e", "guests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of each test; the ones with guests come first, as they take longest."""
    for item in items:
        file = item.path.relative_to(TESTS)
        together = file.parts[0] if file.parts[0] in WITH_GUESTS else str(file)
        item.add_marker(pytest.mark.xdist_group(together))
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in WITH_GUESTS)
