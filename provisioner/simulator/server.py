"""HTTPS: SOAP calls in, answers out, one thread for each connection."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import struct
import threading
from contextlib import suppress
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator import (
    clone,
    codec,
    collector,
    custom_fields,
    datastores,
    folders,
    history,
    permissions,
    power,
    service,
    snapshots,
)
from provisioner.simulator.control import PREFIX, control, is_allowed
from provisioner.simulator.faults import LostError, strike
from provisioner.simulator.machine import Machine, Snapshot, require_allowed
from provisioner.simulator.tasks import as_fault
from provisioner.simulator.world import METHODS, SESSION, Call, Session, World

if TYPE_CHECKING:
    from pathlib import Path

LOG = logging.getLogger("provisioner.simulator")
COOKIE = "vmware_soap_session"
MAX_BODY_BYTES = 16 * 1024**2
MAX_LINE_BYTES = 4096
IDLE_S = 900
ANSWERING = (
    *(clone, collector, custom_fields, datastores, folders),
    *(history, power, service, snapshots),
)
"""Modules that answer methods: importing them fills the table."""
OPEN_METHODS = frozenset(
    {"RetrieveServiceContent", "CurrentTime", "Login", "RetrieveProperties", "RetrievePropertiesEx"}
)
"""What a client may call before it logs in; the collector answers NotAuthenticated by object."""
OPEN_PROPERTIES = frozenset({"content", "capability", "serverClock", "currentSession"})
VERSIONS_XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<namespaces version="1.0"><namespace>'
    f"<name>urn:vim25</name><version>{codec.SERVED_VERSIONS[0]}</version><priorVersions>"
    + "".join(f"<version>{one}</version>" for one in codec.SERVED_VERSIONS[1:])
    + "</priorVersions></namespace></namespaces>"
)


def _target(world: World, ref: Any, session: Session | None) -> Any:
    """Return the object a call is for; every session has a default collector of its own."""
    if codec.moid_of(ref) != "propertyCollector":
        return world.get(ref)
    own = session.collector if session else None
    own = own or collector.Collector("propertyCollector", session)
    if session:
        session.collector = own
    return own


def answer(call: Call, version: str) -> bytes:
    """Do one call and encode its result. Call it under the lock.

    Raises:
        vmodl.MethodFault: what the call ends with instead.
    """
    name, args, world = call.method.wsdlName, call.args, call.world
    is_open = name in OPEN_METHODS or (name == "Fetch" and args.prop in OPEN_PROPERTIES)
    ref = args._this  # noqa: SLF001 - the argument's name in SOAP
    if call.session is None and not is_open:
        text = "The session is not authenticated."
        raise vim.fault.NotAuthenticated(object=ref, privilegeId="System.View", msg=text)
    call.record = _target(world, ref, call.session)
    kind = type(call.record.ref)
    if name == "Fetch":
        permissions.require_property(world, call.record, args.prop)
        value = permissions.only_visible(world, world.read(call.record, args.prop))
        return codec.encode_result(name, value, codec.field_of(kind, args.prop).type, version)
    found = (METHODS.get((ancestor, name)) for ancestor in kind.__mro__)
    if (handler := next(filter(None, found), None)) is None:
        text = f"{name} is not simulated here"
        raise vmodl.fault.MethodNotFound(receiver=call.record.ref, method=name, msg=text)
    permissions.check_call(call)
    vm = call.record.vm if isinstance(call.record, Snapshot) else call.record
    if isinstance(vm, Machine):
        require_allowed(vm, name)
    return codec.encode_result(name, handler(call), call.method.result, version)


def perform(call: Call, version: str) -> bytes:
    """Do one call with the delay that is set for it and the fault rule that fires at it.

    Raises:
        LostError: it gets no answer.
        vmodl.MethodFault: what it ends with instead.
    """
    world, name = call.world, call.method.wsdlName
    with world.changed:
        world.requests[name] += 1
    rule = call.rule = world.faults.take(name)
    if rule is not None and rule.when == "before":
        strike(rule, call)
    if not name.endswith("_Task"):
        world.closing.wait(world.settings.method_delays_s.get(name, 0.0))
    try:
        with world.changed:
            return answer(call, version)
    finally:
        if rule is not None and rule.when == "after":
            strike(rule, call)


class SoapHandler(BaseHTTPRequestHandler):
    """One connection of one client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_S
    server: SoapServer

    def do_GET(self) -> None:
        """Serve the version file, and the count of requests by method, and control calls."""
        if self.path.startswith(PREFIX) and self.path != "/labctl/requests":
            self._control(b"")
            return
        with self.server.world.changed:
            counts = json.dumps(self.server.world.requests)
        pages = {
            "/sdk/vimServiceVersions.xml": ("text/xml; charset=utf-8", VERSIONS_XML),
            "/labctl/requests": ("application/json", counts),
        }
        kind, text = pages.get(self.path, ("text/plain", "not found\n"))
        status = HTTPStatus.OK if self.path in pages else HTTPStatus.NOT_FOUND
        self._send(status, text.encode(), kind)

    def do_POST(self) -> None:
        """Answer a SOAP call or a control call."""
        try:
            body = self._body() if self.path.startswith(("/sdk", PREFIX)) else None
        except ValueError:
            body = None
        if body is not None:
            (self._soap if self.path.startswith("/sdk") else self._control)(body)
        else:
            self.close_connection = True
            text = f"POST to /sdk, at most {MAX_BODY_BYTES} bytes\n"
            self._send(HTTPStatus.BAD_REQUEST, text.encode(), "text/plain")

    def do_DELETE(self) -> None:
        """Answer a control call."""
        self.close_connection = True  # a body would stay unread
        self._control(b"")

    def _control(self, body: bytes) -> None:
        SESSION.set(None)
        world, given = self.server.world, self.headers.get("Authorization", "")
        if is_allowed(world, self.client_address[0], given):
            status, found = control(world, self.command, self.path, body)
        else:
            status, found = HTTPStatus.UNAUTHORIZED, {"error": "use the simulator's own login"}
        self._send(status, json.dumps(found).encode(), "application/json")

    def _body(self) -> bytes:
        """Return the request's body, which is of a stated length or comes in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length", "")))
        body = b""
        while size := int(self.rfile.readline(80).split(b";")[0], 16):
            body += self._read(size, len(body))
            self.rfile.readline(80)
        while self.rfile.readline(MAX_LINE_BYTES).strip():
            """Trailers say nothing here."""
        return body

    def _read(self, size: int, before: int = 0) -> bytes:
        if not 0 <= size <= MAX_BODY_BYTES - before:
            raise ValueError(size)
        return self.rfile.read(size)

    def _session_key(self) -> str:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    def _soap(self, body: bytes) -> None:
        with service.using_session(self.server.world, self._session_key()) as session:
            SESSION.set(session)
            self._call(body, Call(self.server.world, None, None, None, session))

    def _call(self, body: bytes, call: Call) -> None:
        version = codec.version_from(self.headers.get("SOAPAction", ""))
        before, status = call.session, HTTPStatus.OK
        try:
            call.method, call.args = codec.decode(body)
            answered = perform(call, version)
        except LostError as lost:
            self._drop(lost)
            return
        except Exception as error:  # noqa: BLE001 - the edge: every error becomes the client's fault
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            answered = codec.encode_fault(as_fault(error), version)
        cookie = None
        if call.session is not before:
            key = call.session.info.key if call.session else ""
            cookie = f'{COOKIE}="{key}"; Path=/; HttpOnly; Secure'
        self._send(status, answered, "text/xml; charset=utf-8", cookie)

    def _drop(self, lost: LostError) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        if lost.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        if lost.everyone:
            self.server.cut_connections()

    def _send(self, status: int, body: bytes, kind: str, cookie: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing by request: a wait is one every few seconds."""


class SoapServer(ThreadingHTTPServer):
    """The HTTPS server of one world."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], world: World, certificate: Path, key: Path
    ) -> None:
        super().__init__(address, SoapHandler)
        self.world = world
        self._open: set[Any] = set()
        self._open_lock = threading.Lock()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        # The handshake is done by the connection's thread, so a silent client blocks nobody.
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def get_request(self) -> Any:
        """Accept a connection and remember it."""
        request, client = super().get_request()
        with self._open_lock:
            self._open.add(request)
        return request, client

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Take no connection during an outage."""
        return not self.world.faults.is_out

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        """End every connection, whatever it waits for."""
        with self._open_lock:
            for request in self._open:
                with suppress(OSError):  # it ended by itself
                    socket.socket.shutdown(request, socket.SHUT_RDWR)  # without TLS's good-bye

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no event; anything else is for the debug log."""
        LOG.debug("the connection of %s ended: %s", client_address, request, exc_info=True)  # noqa: LOG014 - called while handling
