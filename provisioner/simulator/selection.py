"""Which objects and properties a PropertyCollector filter means, and what they are now."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import IsChildVersion

from provisioner.simulator.calls import SESSION
from provisioner.simulator.codec import NEWEST
from provisioner.simulator.paths import check_path, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from provisioner.simulator.world import Record, World

Query = vmodl.query.PropertyCollector


@dataclass
class Reading:
    """What one object's wanted properties are: set ones by path, and the unreadable ones."""

    ref: Any
    values: dict[str, Any] = field(default_factory=dict)
    missing: list[Any] = field(default_factory=list)


def _traversals(selections: Iterable[Any]) -> Iterator[Any]:
    for selection in selections or ():
        if isinstance(selection, Query.TraversalSpec):
            yield selection
            yield from _traversals(selection.selectSet)


def check_spec(world: World, spec: Any) -> None:
    """Check a filter before it is used.

    Raises:
        vmodl.query.InvalidProperty: a path that no object of the type has.
        vmodl.fault.ManagedObjectNotFound: a starting object is gone.
        vmodl.fault.InvalidArgument: a selection names a traversal that is not there.
    """
    for prop_spec in spec.propSet:
        for path in prop_spec.pathSet:
            check_path(path, prop_spec.type)
    for object_spec in spec.objectSet:
        if SESSION.get() is not None and not spec.reportMissingObjectsInResults:
            world.get(object_spec.obj)
        named = {item.name for item in _traversals(object_spec.selectSet)}
        for traversal in (object_spec, *_traversals(object_spec.selectSet)):
            for selection in traversal.selectSet or ():
                if not isinstance(selection, Query.TraversalSpec) and selection.name not in named:
                    raise vmodl.fault.InvalidArgument(invalidProperty="selectSet.name")


def _targets(world: World, record: Record, traversal: Any) -> list[Record]:
    """Return the objects that one traversal leads to from one object."""
    if not isinstance(record.ref, traversal.type):
        return []
    value = resolve(traversal.path, type(record.ref), lambda name: world.read(record, name))
    refs = value if isinstance(value, list) else [value]
    return [found for found in (world.find(ref) for ref in refs) if found is not None]


def select(world: World, spec: Any) -> list[Record]:
    """Return the objects a filter selects, each once, in the order they are met."""
    chosen: dict[str, Record] = {}
    for object_spec in spec.objectSet:
        named = {item.name: item for item in _traversals(object_spec.selectSet) if item.name}
        start = world.find(object_spec.obj)
        queue = deque([(start, bool(object_spec.skip), object_spec.selectSet)] if start else [])
        walked = set()
        while queue:
            record, skip, selections = queue.popleft()
            moid = record.ref._GetMoId()  # noqa: SLF001 - pyVmomi's public accessor
            if not skip:
                chosen.setdefault(moid, record)
            for selection in selections or ():
                is_traversal = isinstance(selection, Query.TraversalSpec)
                traversal = selection if is_traversal else named[selection.name]
                if (moid, id(traversal)) not in walked:
                    walked.add((moid, id(traversal)))
                    queue.extend(
                        (target, bool(traversal.skip), traversal.selectSet)
                        for target in _targets(world, record, traversal)
                    )
    return list(chosen.values())


def _wanted(record: Record, prop_specs: Iterable[Any]) -> list[str] | None:
    """Return the paths wanted of an object: the most derived matching PropertySpec decides."""
    matching = [spec for spec in prop_specs if isinstance(record.ref, spec.type)]
    if not matching:
        return None
    spec = max(matching, key=lambda item: len(item.type.__mro__))
    if spec.all:
        known = type(record.ref)._GetPropertyList()  # noqa: SLF001 - pyVmomi's public metadata
        return [info.name for info in known if IsChildVersion(NEWEST, info.version)]
    return list(spec.pathSet)


def read_object(world: World, record: Record, prop_specs: Iterable[Any]) -> Reading | None:
    """Read what a filter wants of one object; None when it wants nothing of that type."""
    paths = _wanted(record, prop_specs)
    if paths is None:
        return None
    reading = Reading(record.ref)
    readable = SESSION.get() is not None or isinstance(record.ref, vim.ServiceInstance)
    for path in paths:
        try:
            if not readable:
                raise vim.fault.NotAuthenticated(object=record.ref, privilegeId="System.View")
            value = resolve(path, type(record.ref), lambda name: world.read(record, name))
        except vmodl.MethodFault as fault:
            reading.missing.append(Query.MissingProperty(path=path, fault=fault))
        else:
            if value is not None:
                reading.values[path] = value
    return reading
