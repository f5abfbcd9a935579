"""The service itself: content, sessions, privileges, and how clients find objects."""

from __future__ import annotations

import hmac
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import method_named
from provisioner.simulator.permissions import (
    BASIC,
    User,
    has_privilege,
    is_visible,
    list_privileges,
)
from provisioner.simulator.world import (
    DERIVED,
    METHODS,
    SESSION,
    Call,
    Record,
    Session,
    World,
    answers,
    derives,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Manager = vim.AuthorizationManager
CHILDREN: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (vim.Folder, ("childEntity",)),
    (vim.Datacenter, ("vmFolder", "hostFolder", "datastoreFolder", "networkFolder")),
    (vim.ComputeResource, ("resourcePool", "host")),
    (vim.ResourcePool, ("resourcePool",)),
)
"""Which properties lead down the inventory tree."""
VIEWED = (*CHILDREN, (vim.ResourcePool, ("vm",)), (vim.HostSystem, ("vm",)))
"""A container view also looks from pools and hosts at their VMs."""

METHODS[vim.ServiceInstance, "RetrieveServiceContent"] = lambda call: call.record.props["content"]
METHODS[vim.ServiceInstance, "CurrentTime"] = lambda call: call.world.now()


@answers(vim.SessionManager, "Login")
def _login(call: Call) -> Any:
    """Open a session; the server hands it out as a cookie."""
    settings, args = call.world.settings, call.args
    administrator = User(settings.username, settings.password, {})
    known = {settings.username.lower(): administrator, **call.world.users}
    found = known.get(args.userName.lower())
    if found is None or not hmac.compare_digest(args.password.encode(), found.password.encode()):
        text = "Cannot complete login due to an incorrect user name or password."
        raise vim.fault.InvalidLogin(msg=text)
    key, locale, user = str(uuid.uuid4()), args.locale or "en", found.name
    info = vim.UserSession(key=key, userName=user, fullName=user, loginTime=call.world.now())
    info.lastActiveTime, info.locale, info.messageLocale = info.loginTime, locale, locale
    call.session = call.world.sessions[key] = Session(info)
    call.world.log_event(vim.event.UserLoginSessionEvent, None, f"{user} logged in", sessionId=key)
    return info


def end_session(world: World, session: Session) -> None:
    """Close a session with everything that is its own."""
    world.sessions.pop(session.info.key, None)
    session.open = False
    world.remove(*[one for one in world.records.values() if one.session is session])


@contextmanager
def using_session(world: World, key: str) -> Iterator[Session | None]:
    """Give a call its session, if that is open; sessions that were idle too long end first."""
    with world.changed:
        oldest_s = time.monotonic() - world.settings.session_idle_s
        for idle in [one for one in world.sessions.values() if one.used_at_s < oldest_s]:
            if not idle.calls:
                end_session(world, idle)
        if (session := world.sessions.get(key)) is not None:
            session.calls += 1
            session.info.lastActiveTime = world.now()
    try:
        yield session
    finally:
        with world.changed:
            if session is not None:
                session.calls, session.used_at_s = session.calls - 1, time.monotonic()


@answers(vim.SessionManager, "Logout")
def _logout(call: Call) -> None:
    if call.session is not None:
        end_session(call.world, call.session)
    call.session = None


@answers(vim.SessionManager, "TerminateSession")
def _terminate(call: Call) -> None:
    """End other sessions: their next call finds them NotAuthenticated."""
    for session in [call.world.sessions.get(key) for key in call.args.sessionId]:
        if session is None or session is call.session:
            raise vim.fault.NotFound(msg="no such session, or the caller's own")
        end_session(call.world, session)


@answers(vim.SessionManager, "SessionIsActive")
def _is_active(call: Call) -> bool:
    session = call.world.sessions.get(call.args.sessionID)
    return session is not None and session.info.userName == call.args.userName


@derives(vim.SessionManager, "currentSession")
def _current_session(_world: World, _record: Record) -> Any:
    session = SESSION.get()
    return session.info if session else None


@answers(Manager, "HasPrivilegeOnEntities")
@answers(Manager, "HasUserPrivilegeOnEntities")
def _has_privileges(call: Call) -> Any:
    world, args = call.world, call.args
    session = world.sessions.get(getattr(args, "sessionId", ""))
    user = session.info.userName if session else getattr(args, "userName", "")

    def ask(record: Record) -> Any:
        available = [
            Manager.PrivilegeAvailability(
                privId=one, isGranted=has_privilege(world, user, record, one)
            )
            for one in args.privId
        ]
        return Manager.EntityPrivilege(entity=record.ref, privAvailability=available)

    return [ask(world.get(ref)) for ref in getattr(args, "entity", None) or args.entities]


@answers(Manager, "FetchUserPrivilegeOnEntities")
def _fetch_privileges(call: Call) -> Any:
    """The administrator has what the methods spoken here need, by pyVmomi's own record."""
    world, name = call.world, call.args.userName
    needed = {method_named(method).privId for _, method in METHODS} | BASIC

    def ask(record: Record) -> Any:
        found = needed if world.is_administrator(name) else list_privileges(world, name, record)
        privileges = sorted(filter(None, found))
        return Manager.UserPrivilegeResult(entity=record.ref, privileges=privileges)

    return [ask(world.get(ref)) for ref in call.args.entities]


def _children(world: World, record: Record, table: Any = CHILDREN) -> Iterator[Record]:
    """Yield what is directly below an inventory object."""
    for kind, names in table:
        for name in names if isinstance(record.ref, kind) else ():
            value = world.read(record, name)
            for ref in value if isinstance(value, list) else [value]:
                if (child := world.find(ref)) is not None and is_visible(world, child):
                    yield child


def _below(world: World, record: Record, *, recursive: bool) -> Iterator[Record]:
    for child in _children(world, record, VIEWED):
        yield child
        if recursive:
            yield from _below(world, child, recursive=True)


@derives(vim.view.ContainerView, "view")
def _container_view(world: World, record: Record) -> list[Any]:
    props = record.props
    kinds = tuple(props["type"]) or (vim.ManagedEntity,)
    found = _below(world, world.get(props["container"]), recursive=props["recursive"])
    return list(dict.fromkeys(one.ref for one in found if isinstance(one.ref, kinds)))


@answers(vim.view.ViewManager, "CreateContainerView")
def _create_container_view(call: Call) -> Any:
    args, ref = call.args, vim.view.ContainerView(call.world.new_id("view"))
    if not isinstance(call.world.get(args.container).ref, tuple(kind for kind, _ in VIEWED)):
        raise vmodl.fault.InvalidArgument(invalidProperty="container")
    props = {name: getattr(args, name) for name in ("container", "type", "recursive")}
    return call.world.add(Record(ref, call.session, **props)).ref


@answers(vim.view.ViewManager, "CreateListView")
def _create_list_view(call: Call) -> Any:
    view = Record(vim.view.ListView(call.world.new_id("view")), call.session, view=[])
    _show(call.world, view, call.args.obj)
    return call.world.add(view).ref


def _show(world: World, view: Record, refs: Any) -> list[Any]:
    """Add objects to a list view; returns those that are unknown."""
    known = [ref for ref in refs if world.find(ref) is not None]
    view.props["view"] = list(dict.fromkeys([*view.props["view"], *known]))
    world.touch(view)
    return [ref for ref in refs if ref not in known]


@answers(vim.view.ListView, "ModifyListView")
def _modify_list_view(call: Call) -> Any:
    props, removed = call.record.props, call.args.remove
    props["view"] = [ref for ref in props["view"] if ref not in removed]
    return _show(call.world, call.record, call.args.add)


@answers(vim.view.ListView, "ResetListView")
def _reset_list_view(call: Call) -> Any:
    call.record.props["view"] = []
    return _show(call.world, call.record, call.args.obj)


METHODS[vim.view.View, "DestroyView"] = lambda call: call.world.remove(call.record)


def _named(world: World, parent: Record, name: str) -> Record | None:
    """Return the child of a name; %2f, %5c and %25 stand for what cannot be in a path."""
    children = _children(world, parent)
    same = (one for one in children if unquote(world.name_of(one.ref)) == unquote(name))
    return next(same, None)


@answers(vim.SearchIndex, "FindByInventoryPath")
def _find_by_inventory_path(call: Call) -> Any:
    found = find_by_path(call.world, call.args.inventoryPath)
    return found.ref if found is not None else None


def find_by_path(world: World, path: str) -> Record | None:
    """Return the object at a path such as ``DC0/vm/labs/name``, if the caller sees it."""
    record: Record | None = world.records["group-d1"]
    for name in filter(None, path.split("/")):
        record = _named(world, record, name) if record is not None else None
    return record


@answers(vim.SearchIndex, "FindChild")
def _find_child(call: Call) -> Any:
    found = _named(call.world, call.world.get(call.args.entity), call.args.name)
    return found.ref if found is not None else None


@answers(vim.SearchIndex, "FindByUuid")
def _find_by_uuid(call: Call) -> Any:
    """Return the VM of a BIOS or instance UUID."""
    name, wanted = "instanceUuid" if call.args.instanceUuid else "uuid", call.args.uuid.lower()
    vms = call.world.of_type(vim.VirtualMachine) if call.args.vmSearch else ()
    found = (vm for vm in vms if getattr(vm.config, name) == wanted)
    return next((vm.ref for vm in found if is_visible(call.world, vm)), None)


def _finding(tell: Callable[[World, Record], set[str]]) -> Callable[[Call], Any]:
    """Find a VM or a host by what is told of it."""

    def find(call: Call) -> Any:
        args, kind = call.args, vim.VirtualMachine if call.args.vmSearch else vim.HostSystem
        wanted = (args.ip if call.method.wsdlName == "FindByIp" else args.dnsName).lower()
        found = (one for one in call.world.of_type(kind) if wanted in tell(call.world, one))
        return next((one.ref for one in found if is_visible(call.world, one)), None)

    return find


def _names(world: World, record: Record) -> set[str]:
    is_vm = isinstance(record.ref, vim.VirtualMachine)
    name = world.read(record, "guest").hostName if is_vm else record.props["name"]
    return {(name or "").lower()}


def _addresses(world: World, record: Record) -> set[str]:
    """Return the addresses of a VM; hosts have none here."""
    is_vm = isinstance(record.ref, vim.VirtualMachine)
    return (
        {ip for nic in world.read(record, "guest").net for ip in nic.ipAddress} if is_vm else set()
    )


answers(vim.SearchIndex, "FindByDnsName")(_finding(_names))
answers(vim.SearchIndex, "FindByIp")(_finding(_addresses))


def _mine(world: World, kind: Any) -> list[Any]:
    return [one.ref for one in world.of_type(kind) if one.session is SESSION.get()]


DERIVED |= {
    (vim.SessionManager, "sessionList"): lambda world, _: [s.info for s in world.sessions.values()],
    (vim.view.ViewManager, "viewList"): lambda world, _: _mine(world, vim.view.View),
}
