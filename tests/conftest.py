"""Which tests stay together when several processes share the suite.

Real guests are made once for a folder of tests, everything else that is shared belongs to a file.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

WITH_GUESTS = ("tests/e2e", "tests/guests")


def name_group(nodeid: str) -> str:
    """Name the tests that one of them stays with."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in WITH_GUESTS if file.startswith(f"{folder}/")), file)


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist is not typed for us
    """Gives each group to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return name_group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Choose how the tests are shared out."""
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, those with guests."""
    items.sort(key=lambda item: name_group(item.nodeid) not in WITH_GUESTS)
