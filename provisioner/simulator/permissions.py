"""Who may see and do what: users besides the administrator, and what each is granted where.

A grant on an inventory object also holds below it when it propagates, until a grant there replaces
it; a VM stands below its folder and below its resource pool. Who is granted anything on an object
may read it, and sees what is on the way to it. A grant of nothing takes all that away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vim
from pyVmomi.VmomiSupport import ManagedObject

from provisioner.simulator.codec import field_of, fields_of
from provisioner.simulator.datastores import get_datastore
from provisioner.simulator.devices import socket_of
from provisioner.simulator.world import SESSION, Call, Record, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SEEN = frozenset({"System.Anonymous", "System.View"})
BASIC = SEEN | {"System.Read"}
VM = vim.VirtualMachine
Device = vim.vm.device
Need = tuple[Any, str]
"""An object, and the privilege needed on it."""
CONFIG_PRIVILEGES = {
    "numCPUs": "VirtualMachine.Config.CPUCount",
    "memoryMB": "VirtualMachine.Config.Memory",
    "extraConfig": "VirtualMachine.Config.AdvancedConfig",
    "annotation": "VirtualMachine.Config.Annotation",
    "name": "VirtualMachine.Config.Rename",
}
DISK_PRIVILEGES = {"add": "AddNewDisk", "edit": "DiskExtend", "remove": "RemoveDisk"}


@dataclass
class User:
    """One user; ``grants`` are privileges, and whether they propagate, by object."""

    name: str
    password: str
    grants: dict[Record, tuple[frozenset[str], bool]]


def _parents(world: World, record: Record) -> list[Record]:
    names = ("parent", "resourcePool") if isinstance(record.ref, VM) else ("parent",)
    found = (world.find(record.props.get(name)) for name in names)
    return [one for one in found if one is not None]


def _inherited(world: World, user: User, record: Record, *, below: bool) -> frozenset[str] | None:
    """Return what is granted on an object, None when nothing is said on it or above."""
    privileges, propagates = user.grants.get(record, (None, False))
    if privileges is not None and (propagates or not below):
        return privileges
    above = [_inherited(world, user, one, below=True) for one in _parents(world, record)]
    said = [one for one in above if one is not None]
    return frozenset().union(*said) if said else None


def list_above(world: World, record: Record) -> Iterator[Record]:
    """Yield what an object is below, as often as ways lead there."""
    for parent in _parents(world, record):
        yield parent
        yield from list_above(world, parent)


def list_below(world: World, record: Record) -> list[Record]:
    """Return everything in a folder, however deep; nothing is in a VM."""
    entities = world.of_type(vim.ManagedEntity)
    return [one for one in entities if record in list_above(world, one)]


def list_privileges(world: World, name: str, record: Any) -> frozenset[str]:
    """Return what a user other than the administrator may do with an object."""
    if isinstance(record.ref, vim.vm.Snapshot):
        record = record.vm
    elif isinstance(record.ref, vim.Task):
        record = world.find(record.info.entity) or record
    if not isinstance(record.ref, vim.ManagedEntity):
        return BASIC
    if (user := world.users.get(name.lower())) is None:
        return frozenset()
    granted = _inherited(world, user, record, below=False) or frozenset()
    is_on_way = any(
        record in list_above(world, one) for one, (what, _) in user.grants.items() if what
    )
    return granted | (BASIC if granted else SEEN if is_on_way else frozenset())


def has_privilege(world: World, name: str, record: Any, privilege: str) -> bool:
    """Tell whether a user has a privilege on an object; the administrator has every one."""
    return world.is_administrator(name) or privilege in list_privileges(world, name, record)


def require(world: World, record: Any, privilege: str) -> None:
    """Raise NoPermission when the caller lacks a privilege on an object."""
    if not has_privilege(world, world.caller, record, privilege):
        lack = vim.fault.NoPermission.EntityPrivileges(entity=record.ref, privilegeIds=[privilege])
        raise vim.fault.NoPermission(
            object=record.ref,
            privilegeId=privilege,
            missingPrivileges=[lack],
            msg="Permission to perform this operation was denied.",
        )


def require_property(world: World, record: Any, name: str) -> None:
    """Raise NoPermission when the caller may not read a property of an object."""
    info = field_of(type(record.ref), name)
    require(world, record, (info and info.privId) or "System.Read")


def only_visible(world: World, value: Any) -> Any:
    """Return a value without the references, in a list, to objects that the caller cannot see."""
    if not isinstance(value, list) or not issubclass(getattr(value, "Item", object), ManagedObject):
        return value
    found = [(ref, world.find(ref)) for ref in value]
    return type(value)(ref for ref, one in found if one is None or is_visible(world, one))


def is_visible(world: World, record: Any) -> bool:
    """Tell whether the caller sees an object."""
    return SESSION.get() is None or has_privilege(world, world.caller, record, "System.View")


def _config_needs(spec: Any) -> Iterator[str]:
    """Yield what a ConfigSpec needs on the VM, or on the folder of a new one."""
    for info in fields_of(type(spec)) if spec is not None else ():
        if getattr(spec, info.name) and info.name not in ("changeVersion", "deviceChange"):
            yield CONFIG_PRIVILEGES.get(info.name, "VirtualMachine.Config.Settings")
    for change in spec.deviceChange if spec is not None else ():
        is_disk, is_edit = isinstance(change.device, Device.VirtualDisk), change.operation == "edit"
        other = "EditDevice" if is_edit else "AddRemoveDevice"
        what = DISK_PRIVILEGES.get(change.operation, other) if is_disk else other
        yield f"VirtualMachine.Config.{what}"


def _network_needs(world: World, spec: Any) -> Iterator[Need]:
    backings = [change.device.backing for change in (spec.deviceChange if spec else ())]
    sockets = {socket_of(backing) for backing in backings}
    for network in world.of_type(vim.Network):
        if sockets & {network.props["name"], network.moid}:
            yield network, "Network.Assign"


def _clone_needs(call: Call) -> Iterator[Need]:
    world, args = call.world, call.args
    config, folder = args.spec.config, world.get(args.spec.location.folder or args.folder)
    what = "DeployTemplate" if call.record.config.template else "Clone"
    yield call.record, f"VirtualMachine.Provisioning.{what}"
    yield folder, "VirtualMachine.Inventory.CreateFromExisting"
    yield from ((folder, privilege) for privilege in _config_needs(config))
    for ref, privilege in (
        (args.spec.location.pool, "Resource.AssignVMToPool"),
        (args.spec.location.datastore, "Datastore.AllocateSpace"),
    ):
        if ref is not None:
            yield world.get(ref), privilege
    yield from _network_needs(world, config)


def _reconfigure_needs(call: Call) -> Iterator[Need]:
    yield from ((call.record, privilege) for privilege in _config_needs(call.args.spec))
    yield from _network_needs(call.world, call.args.spec)


def _move_needs(call: Call) -> Iterator[Need]:
    for ref in (call.record.ref, *call.args.list):
        yield call.world.get(ref), "VirtualMachine.Inventory.Move"


def _rename_needs(call: Call) -> Iterator[Need]:
    is_vm = isinstance(call.record.ref, VM)
    yield call.record, CONFIG_PRIVILEGES["name"] if is_vm else "Folder.Rename"


def _destroy_needs(call: Call) -> Iterator[Need]:
    for one in (call.record, *list_below(call.world, call.record)):
        is_vm = isinstance(one.ref, VM)
        yield one, "VirtualMachine.Inventory.Delete" if is_vm else "Folder.Delete"


def _browse_needs(call: Call) -> Iterator[Need]:
    yield get_datastore(call.world, call.args.datastorePath), "Datastore.Browse"


NEEDS: dict[str, Callable[[Call], Iterable[Need]]] = {
    "CloneVM_Task": _clone_needs,
    "ReconfigVM_Task": _reconfigure_needs,
    "MoveIntoFolder_Task": _move_needs,
    "Rename_Task": _rename_needs,
    "Destroy_Task": _destroy_needs,
    "UnregisterAndDestroy_Task": _destroy_needs,
    "SearchDatastore_Task": _browse_needs,
    "SearchDatastoreSubFolders_Task": _browse_needs,
}
"""What methods need whose privileges depend on their arguments; pyVmomi names those of others."""


def check_call(call: Call) -> None:
    """Raise NoPermission when the caller lacks a privilege that a call needs."""
    if SESSION.get() is None or call.world.is_administrator(call.world.caller):
        return
    require(call.world, call.record, call.method.privId or "System.View")
    for record, privilege in NEEDS.get(call.method.wsdlName, lambda _: ())(call):
        require(call.world, record, privilege)
    for param in (one for one in call.method.params if one.privId):
        value = getattr(call.args, param.name)
        for ref in value if isinstance(value, list) else [value]:
            if ref is not None:
                require(call.world, call.world.get(ref), param.privId)
