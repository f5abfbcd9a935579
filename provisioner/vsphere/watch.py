"""What a waiter keeps at vCenter: its own PropertyCollector, a ListView, and filters over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.vsphere.properties import Query, build_spec, get_moref


class Watch:
    """Follows some properties of some objects under one login. Used by one thread.

    Faults are not translated here.
    """

    def __init__(self, content: Any, serial: int) -> None:
        self.serial = serial
        self._collector = content.propertyCollector.CreatePropertyCollector()
        self._view = content.viewManager.CreateListView()
        self._followed: dict[str, Any] = {}
        self._filtered: set[tuple[type, str]] = set()
        self._version = ""

    def follow(self, wanted: Iterable[tuple[Any, str]]) -> set[str]:
        """Follow these objects and property paths, and no others.

        Returns:
            The morefs of objects that are no longer there.
        """
        pairs = tuple(wanted)
        members = {get_moref(ref): ref for ref, _ in pairs}
        for ref, path in pairs:
            self._filter(type(ref), path)
        add = [ref for moref, ref in members.items() if moref not in self._followed]
        remove = [ref for moref, ref in self._followed.items() if moref not in members]
        if not add and not remove:
            return set()
        unknown = self._view.ModifyListView(add=add, remove=remove)
        missing = {get_moref(ref) for ref in unknown} & set(members)
        self._followed = {key: ref for key, ref in members.items() if key not in missing}
        return missing

    def follows(self, ref: Any, path: str) -> bool:
        """Tell whether this is followed already, so that only a change of it will be reported."""
        return get_moref(ref) in self._followed and (type(ref), path) in self._filtered

    def _filter(self, kind: type, path: str) -> None:
        if (kind, path) not in self._filtered:
            spec = build_spec([self._view], {kind: [path]}, (vim.view.ListView, "view"))
            self._collector.CreateFilter(spec=spec, partialUpdates=False)
            self._filtered.add((kind, path))

    def wait(self, at_most_s: int) -> set[str] | None:
        """Wait until something changed, and return the morefs; None when nothing did in time."""
        options = Query.WaitOptions(maxWaitSeconds=at_most_s)
        try:
            update = self._collector.WaitForUpdatesEx(version=self._version, options=options)
        except vmodl.fault.RequestCanceled:
            return set()
        if update is None:
            return None
        self._version = update.version
        return {get_moref(changed.obj) for one in update.filterSet for changed in one.objectSet}

    def cancel(self) -> None:
        """End a wait that is going on. The one method that any thread may call."""
        self._collector.CancelWaitForUpdates()
