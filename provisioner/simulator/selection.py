"""Which objects and properties a PropertyCollector filter means, and what they are now."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import fields_of
from provisioner.simulator.paths import check_path, resolve
from provisioner.simulator.permissions import is_visible, only_visible, require_property
from provisioner.simulator.world import SESSION

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
    for selection in selections:
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
        traversals = list(_traversals(object_spec.selectSet))
        named = {item.name for item in traversals}
        for selection in (one for item in (object_spec, *traversals) for one in item.selectSet):
            if not isinstance(selection, Query.TraversalSpec) and selection.name not in named:
                raise vmodl.fault.InvalidArgument(invalidProperty="selectSet.name")


def _targets(world: World, record: Record, traversal: Any) -> list[Record]:
    """Return the objects that one traversal leads to from one object."""
    if not isinstance(record.ref, traversal.type):
        return []
    value = resolve(traversal.path, type(record.ref), lambda name: world.read(record, name))
    refs = value if isinstance(value, list) else [value]
    found = [one for one in map(world.find, refs) if one is not None]
    return [one for one in found if is_visible(world, one)]


def select(world: World, spec: Any) -> list[Record]:
    """Return the objects a filter selects, each once, in the order they are met."""
    chosen: dict[str, Record] = {}
    for object_spec in spec.objectSet:
        named = {item.name: item for item in _traversals(object_spec.selectSet) if item.name}
        start = world.find(object_spec.obj)
        queue = deque([(start, object_spec)] if start else [])
        walked = set()
        while queue:
            record, reached_by = queue.popleft()
            if not reached_by.skip:
                chosen.setdefault(record.moid, record)
            for selection in reached_by.selectSet:
                is_traversal = isinstance(selection, Query.TraversalSpec)
                traversal = selection if is_traversal else named[selection.name]
                if (record.moid, id(traversal)) not in walked:
                    walked.add((record.moid, id(traversal)))
                    queue.extend((one, traversal) for one in _targets(world, record, traversal))
    return list(chosen.values())


def read_object(world: World, record: Record, prop_specs: Iterable[Any]) -> Reading | None:
    """Read what a filter wants of one object: what all matching PropertySpecs name together.

    Returns:
        None when the filter wants nothing of that type.
    """
    kind = type(record.ref)
    matching = [spec for spec in prop_specs if isinstance(record.ref, spec.type)]
    if not matching:
        return None
    everything = [info.name for info in fields_of(kind)]
    paths = [path for spec in matching for path in (everything if spec.all else spec.pathSet)]
    reading = Reading(record.ref)
    readable = SESSION.get() is not None or kind is vim.ServiceInstance
    for path in dict.fromkeys(paths):
        try:
            if not readable:
                raise vim.fault.NotAuthenticated(object=record.ref, privilegeId="System.View")
            require_property(world, record, path.partition(".")[0].partition("[")[0])
            value = only_visible(world, resolve(path, kind, lambda name: world.read(record, name)))
        except vmodl.MethodFault as fault:
            reading.missing.append(Query.MissingProperty(path=path, fault=fault))
        else:
            if value is not None:
                reading.values[path] = value
    return reading
