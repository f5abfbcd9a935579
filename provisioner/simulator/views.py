"""Views and the search index: how clients find objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject

from provisioner.simulator.calls import Call, answers
from provisioner.simulator.world import Record, World, derives

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILDREN: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (vim.Folder, ("childEntity",)),
    (vim.Datacenter, ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")),
    (vim.ComputeResource, ("resourcePool", "host")),
    (vim.ResourcePool, ("resourcePool",)),
)
"""Which properties lead down the inventory tree."""
VIEWED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    *CHILDREN,
    (vim.ResourcePool, ("vm",)),
    (vim.HostSystem, ("vm",)),
)
"""A container view also looks from pools and hosts at their VMs."""


def children(
    world: World, record: Record, table: tuple[tuple[Any, tuple[str, ...]], ...] = CHILDREN
) -> Iterator[Record]:
    """Yield what is directly below an inventory object."""
    for kind, names in table:
        for name in names if isinstance(record.ref, kind) else ():
            value = world.read(record, name)
            for ref in value if isinstance(value, list) else [value]:
                if (child := world.find(ref)) is not None:
                    yield child


def _below(world: World, record: Record, *, recursive: bool) -> Iterator[Record]:
    for child in children(world, record, VIEWED):
        yield child
        if recursive:
            yield from _below(world, child, recursive=True)


@derives(vim.view.ContainerView, "view")
def _container_view(world: World, record: Record) -> list[Any]:
    props = record.props
    kinds = tuple(props["type"]) or (vim.ManagedEntity,)
    found = _below(world, world.get(props["container"]), recursive=props["recursive"])
    return list(dict.fromkeys(one.ref for one in found if isinstance(one.ref, kinds)))


@derives(vim.view.ViewManager, "viewList")
def _views(world: World, _record: Record) -> list[Any]:
    return [record.ref for record in world.of_type(vim.view.View)]


def _add_view(call: Call, kind: Any, **props: Any) -> Any:
    record = Record(kind(call.world.new_id("view")), **props)
    record.session = call.session
    return call.world.add(record).ref


@answers(vim.view.ViewManager, "CreateContainerView")
def _create_container_view(call: Call) -> Any:
    """Make a view of what is below a container, of some types or all."""
    args = call.args
    if not isinstance(call.world.get(args.container).ref, tuple(kind for kind, _ in VIEWED)):
        raise vmodl.fault.InvalidArgument(invalidProperty="container")
    return _add_view(
        call,
        vim.view.ContainerView,
        container=args.container,
        type=list(args.type or []),
        recursive=args.recursive,
    )


@answers(vim.view.ViewManager, "CreateListView")
def _create_list_view(call: Call) -> Any:
    """Make a view of listed objects."""
    return _add_view(call, vim.view.ListView, view=_known(call.world, call.args.obj)[0])


def _known(world: World, refs: Any) -> tuple[list[Any], list[Any]]:
    """Split references in those of objects that are there, and the others."""
    known = [ref for ref in refs or () if world.find(ref) is not None]
    return known, [ref for ref in refs or () if ref not in known]


@answers(vim.view.ListView, "ModifyListView")
def _modify_list_view(call: Call) -> Any:
    """Add and remove objects; returns those that are unknown."""
    add, unresolved = _known(call.world, call.args.add)
    removed = list(call.args.remove or ())
    view = [ref for ref in call.record.props["view"] if ref not in removed]
    call.record.props["view"] = list(dict.fromkeys([*view, *add]))
    call.world.touch(call.record)
    return ManagedObject.Array(unresolved)


@answers(vim.view.ListView, "ResetListView")
def _reset_list_view(call: Call) -> Any:
    """Replace the list; returns the objects that are unknown."""
    call.record.props["view"], unresolved = _known(call.world, call.args.obj)
    call.world.touch(call.record)
    return ManagedObject.Array(unresolved)


@answers(vim.view.View, "DestroyView")
def _destroy_view(call: Call) -> None:
    call.world.remove(call.record)


def _named(world: World, parent: Record, name: str) -> Record | None:
    """Return the child of a name; %2f, %5c and %25 stand for what cannot be in a path."""
    plain = unquote(name)
    named = (one for one in children(world, parent) if unquote(world.entity_name(one.ref)) == plain)
    return next(named, None)


@answers(vim.SearchIndex, "FindByInventoryPath")
def _find_by_inventory_path(call: Call) -> Any:
    """Return the object at a path such as ``DC0/vm/labs/name``."""
    record: Record | None = call.world.records["group-d1"]
    for name in filter(None, call.args.inventoryPath.split("/")):
        record = _named(call.world, record, name) if record is not None else None
    return record.ref if record is not None else None


@answers(vim.SearchIndex, "FindChild")
def _find_child(call: Call) -> Any:
    found = _named(call.world, call.world.get(call.args.entity), call.args.name)
    return found.ref if found is not None else None


@answers(vim.SearchIndex, "FindByUuid")
def _find_by_uuid(call: Call) -> Any:
    """Return the VM of a BIOS or instance UUID."""
    args = call.args
    if not args.vmSearch:
        return None
    name = "instanceUuid" if args.instanceUuid else "uuid"
    for vm in call.world.of_type(vim.VirtualMachine):
        if getattr(vm.config, name) == args.uuid.lower():
            return vm.ref
    return None
