"""The service itself: content, sessions, privileges and events."""

from __future__ import annotations

import hmac
import uuid
from typing import Any

from pyVmomi import vim

from provisioner.simulator.calls import METHODS, SESSION, Call, answers
from provisioner.simulator.codec import API_VERSION, method_named
from provisioner.simulator.world import Record, Session, World, derives, now

SINGLETONS: dict[str, Any] = {
    "sessionManager": vim.SessionManager,
    "authorizationManager": vim.AuthorizationManager,
    "viewManager": vim.view.ViewManager,
    "searchIndex": vim.SearchIndex,
    "taskManager": vim.TaskManager,
    "eventManager": vim.event.EventManager,
}
"""The managers there are, by their name in ServiceContent; all others stay unset."""
BASIC_PRIVILEGES = ("System.Anonymous", "System.Read", "System.View")


def add_service(world: World) -> None:
    """Add the service instance and its managers; a manager's moId is its type's last name."""
    refs = {name: kind(kind.__name__.rpartition(".")[2]) for name, kind in SINGLETONS.items()}
    about = vim.AboutInfo(
        name="VMware vCenter Server",
        fullName=f"VMware vCenter Server {API_VERSION} (labctl simulator)",
        vendor="VMware, Inc.",
        version=API_VERSION.rpartition(".")[0],
        build="0",
        osType="linux-x64",
        productLineId="vpx",
        apiType="VirtualCenter",
        apiVersion=API_VERSION,
        instanceUuid=world.settings.instance_uuid,
        licenseProductName="VMware VirtualCenter Server",
        licenseProductVersion="8.0",
    )
    content = vim.ServiceInstanceContent(
        rootFolder=vim.Folder("group-d1"),
        propertyCollector=vim.PropertyCollector("propertyCollector"),
        about=about,
        **refs,
    )
    world.add(Record(vim.ServiceInstance("ServiceInstance"), content=content))
    for ref in refs.values():
        world.add(Record(ref))


@answers(vim.ServiceInstance, "RetrieveServiceContent")
def _retrieve_content(call: Call) -> Any:
    return call.record.props["content"]


@answers(vim.ServiceInstance, "CurrentTime")
def _current_time(_call: Call) -> Any:
    return now()


@derives(vim.ServiceInstance, "serverClock")
def _server_clock(_world: World, _record: Record) -> Any:
    return now()


@answers(vim.SessionManager, "Login")
def _login(call: Call) -> Any:
    """Open a session; the server hands it out as a cookie."""
    given = (call.args.userName.lower(), call.args.password)
    known = (call.world.settings.username.lower(), call.world.settings.password)
    pairs = zip(given, known, strict=True)
    if not all([hmac.compare_digest(one.encode(), other.encode()) for one, other in pairs]):
        raise vim.fault.InvalidLogin(
            msg="Cannot complete login due to an incorrect user name or password."
        )
    key = str(uuid.uuid4())
    info = vim.UserSession(
        key=key,
        userName=call.world.settings.username,
        fullName=call.world.settings.username,
        loginTime=now(),
        lastActiveTime=now(),
        locale=call.args.locale or "en",
        messageLocale=call.args.locale or "en",
        extensionSession=False,
        ipAddress="127.0.0.1",
    )
    call.session = call.world.sessions[key] = Session(key, info)
    message = f"User {info.userName} logged in"
    call.world.log_event(
        vim.event.UserLoginSessionEvent, None, message, sessionId=key, ipAddress="127.0.0.1"
    )
    return info


def _end_session(world: World, session: Session) -> None:
    """Close a session with everything that is its own."""
    world.sessions.pop(session.key, None)
    session.open = False
    world.remove(*(one for one in list(world.records.values()) if one.session is session))


@answers(vim.SessionManager, "Logout")
def _logout(call: Call) -> None:
    if call.session is not None:
        _end_session(call.world, call.session)
    call.session = None


@answers(vim.SessionManager, "TerminateSession")
def _terminate(call: Call) -> None:
    """End other sessions: their next call finds them NotAuthenticated."""
    doomed = [call.world.sessions.get(key) for key in call.args.sessionId]
    if None in doomed or call.session in doomed:
        raise vim.fault.NotFound(msg="no such session, or the caller's own")
    for session in doomed:
        _end_session(call.world, session)


@answers(vim.SessionManager, "SessionIsActive")
def _is_active(call: Call) -> bool:
    session = call.world.sessions.get(call.args.sessionID)
    return session is not None and session.info.userName == call.args.userName


@derives(vim.SessionManager, "currentSession")
def _current_session(_world: World, _record: Record) -> Any:
    session = SESSION.get()
    return session.info if session else None


@derives(vim.SessionManager, "sessionList")
def _session_list(world: World, _record: Record) -> Any:
    return [session.info for session in world.sessions.values()]


def _privileges() -> list[str]:
    """Return the privileges that the methods spoken here need, by pyVmomi's own record."""
    needed = {method_named(name).privId for _, name in METHODS}
    return sorted({privilege for privilege in needed if privilege} | set(BASIC_PRIVILEGES))


@answers(vim.AuthorizationManager, "HasPrivilegeOnEntities")
@answers(vim.AuthorizationManager, "HasUserPrivilegeOnEntities")
def _has_privileges(call: Call) -> Any:
    """The one user may do everything; another user nothing. Entities must be visible."""
    args = call.args
    session = call.world.sessions.get(getattr(args, "sessionId", ""))
    user = session.info.userName if session else getattr(args, "userName", "")
    granted = user.lower() == call.world.settings.username.lower()
    availability = vim.AuthorizationManager.PrivilegeAvailability
    return vim.AuthorizationManager.EntityPrivilege.Array(
        vim.AuthorizationManager.EntityPrivilege(
            entity=call.world.get(ref).ref,
            privAvailability=[availability(privId=one, isGranted=granted) for one in args.privId],
        )
        for ref in getattr(args, "entity", None) or args.entities
    )


@answers(vim.AuthorizationManager, "FetchUserPrivilegeOnEntities")
def _fetch_privileges(call: Call) -> Any:
    known = call.args.userName.lower() == call.world.settings.username.lower()
    result = vim.AuthorizationManager.UserPrivilegeResult
    return result.Array(
        result(entity=call.world.get(ref).ref, privileges=_privileges() if known else [])
        for ref in call.args.entities
    )


@derives(vim.event.EventManager, "latestEvent")
def _latest_event(world: World, _record: Record) -> Any:
    return world.events[-1] if world.events else None


@answers(vim.event.EventManager, "QueryEvents")
def _query_events(call: Call) -> Any:
    """Return events, oldest first, by entity, type, time and chain."""
    wanted = call.args.filter
    kinds = tuple(wanted.type or ())
    entity = wanted.entity.entity if wanted.entity else None
    begin, end = (wanted.time.beginTime, wanted.time.endTime) if wanted.time else (None, None)

    def matches(event: Any) -> bool:
        return (
            (not kinds or isinstance(event, kinds))
            and (begin is None or event.createdTime >= begin)
            and (end is None or event.createdTime <= end)
            and (wanted.eventChainId is None or event.chainId == wanted.eventChainId)
            and (
                not isinstance(entity, vim.VirtualMachine)
                or bool(event.vm and event.vm.vm == entity)
            )
        )

    return vim.event.Event.Array(event for event in call.world.events if matches(event))
