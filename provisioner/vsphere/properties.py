"""Reading: leaf property paths of many objects in one call of the PropertyCollector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

Query = vmodl.query.PropertyCollector
PAGE_SIZE = 500


@dataclass(frozen=True)
class Reading:
    """One object and those of the asked properties that are set and may be read."""

    ref: Any
    values: Mapping[str, Any]

    @property
    def moref(self) -> str:
        """The object's reference as text, such as vm-42."""
        return get_moref(self.ref)


def get_moref(ref: Any) -> str:
    """Return a managed object's reference as text."""
    return str(ref._GetMoId())  # noqa: SLF001 - pyVmomi's public accessor


def build_spec(
    objects: Iterable[Any],
    paths: Mapping[Any, Iterable[str]],
    *steps: tuple[Any, str],
    may_be_gone: bool = True,
) -> Any:
    """Build the filter that reads `paths` of objects, or of what `steps` lead to from them.

    Each step is a type and the property of it that leads on, in the order of the way. Unless the
    objects may be gone, reading raises ManagedObjectNotFound when one is: what hangs on it would
    look gone too.
    """
    way: list[Any] = []
    for kind, path in reversed(steps):
        way = [
            Query.TraversalSpec(type=kind, path=path, skip=len(way) > 0, selectSet=way, name=path)
        ]
    return Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=ref, skip=bool(steps), selectSet=way) for ref in objects],
        propSet=[
            Query.PropertySpec(type=kind, pathSet=list(names), all=False)
            for kind, names in paths.items()
        ],
        reportMissingObjectsInResults=may_be_gone,
    )


PARENTS = (vim.Folder, vim.Datacenter)
"""What can be above a VM in the inventory of VMs."""


def build_upward_spec(objects: Iterable[Any], kind: Any, paths: Iterable[str]) -> Any:
    """Build the filter that reads `paths` of objects, and names and parents of all above them."""
    above = ("name", "parent")
    spec = build_spec(objects, {kind: paths, **dict.fromkeys(PARENTS, above)})
    for number, each in enumerate(spec.objectSet):
        name = f"up{number}"
        further = Query.SelectionSpec(name=name)
        each.selectSet = [
            Query.TraversalSpec(
                name=name, type=vim.ManagedEntity, path="parent", skip=False, selectSet=[further]
            )
        ]
    return spec


def tell_path(parent: Any, above: Mapping[str, Reading]) -> str:
    """Tell the inventory path of a folder that `above` leads up from; empty when not all is seen.

    The root folder, which alone has no parent, is not part of a path.
    """
    path = ""
    while parent is not None:
        reading = above.get(get_moref(parent))
        if reading is None or "name" not in reading.values:
            return ""
        parent = reading.values.get("parent")
        if parent is not None:
            path = f"/{reading.values['name']}{path}"
    return path


def retrieve(content: Any, spec: Any) -> tuple[Reading, ...]:
    """Read what a filter selects; an object that is gone is left out.

    Raises:
        vim.fault.NotAuthenticated: the session has ended (the collector reports that by property).
    """
    collector, options = content.propertyCollector, Query.RetrieveOptions(maxObjects=PAGE_SIZE)
    page = collector.RetrievePropertiesEx(specSet=[spec], options=options)
    readings: list[Reading] = []
    while page is not None:
        readings += [read_content(item) for item in page.objects]
        page = collector.ContinueRetrievePropertiesEx(token=page.token) if page.token else None
    return tuple(readings)


def read_content(item: Any) -> Reading:
    """Turn one ObjectContent into a Reading. Raises what `retrieve` does."""
    for missing in item.missingSet:
        if isinstance(missing.fault, vim.fault.NotAuthenticated):
            raise missing.fault
    return Reading(item.obj, {prop.name: prop.val for prop in item.propSet})
