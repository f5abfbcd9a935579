"""HTTPS: SOAP calls in, answers out, one thread for each connection."""

from __future__ import annotations

import json
import logging
import ssl
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator import (
    clone,
    codec,
    collector,
    datastores,
    power,
    service,
    snapshots,
    views,
)
from provisioner.simulator.calls import METHODS, SESSION, Call
from provisioner.simulator.tasks import as_fault

if TYPE_CHECKING:
    from pathlib import Path

    from provisioner.simulator.world import Session, World

LOG = logging.getLogger("provisioner.simulator")
COOKIE = "vmware_soap_session"
MAX_BODY_BYTES = 16 * 1024**2
IDLE_S = 900
ANSWERING = (clone, collector, datastores, power, service, snapshots, views)
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
    if ref._GetMoId() == "propertyCollector":  # noqa: SLF001 - pyVmomi's public accessor
        if session is None:
            return collector.Collector("propertyCollector", None)
        if session.collector is None:
            session.collector = collector.Collector("propertyCollector", session)
        return session.collector
    return world.get(ref)


def _handler(record: Any, method: Any) -> Any:
    for kind in type(record.ref).__mro__:
        if found := METHODS.get((kind, method.wsdlName)):
            return found
    raise vmodl.fault.MethodNotFound(
        receiver=record.ref, method=method.wsdlName, msg=f"{method.wsdlName} is not simulated here"
    )


def answer(world: World, request: codec.Request, call: Call, version: str) -> bytes:
    """Do one call and encode its result. Call it under the lock.

    Raises:
        vmodl.MethodFault: what the call ends with instead.
    """
    name, session = request.method.wsdlName, call.session
    is_open = name in OPEN_METHODS or (name == "Fetch" and request.args.prop in OPEN_PROPERTIES)
    if session is None and not is_open:
        raise vim.fault.NotAuthenticated(
            object=request.target,
            privilegeId="System.View",
            msg="The session is not authenticated.",
        )
    call.record = _target(world, request.target, session)
    if name == "Fetch":
        value = world.read(call.record, *_property(call.record, request.args.prop))
        kind = type(call.record.ref)._GetPropertyInfo(request.args.prop).type  # noqa: SLF001 - pyVmomi's public metadata
        return codec.encode_result(request.method, value, version, kind)
    return codec.encode_result(request.method, _handler(call.record, request.method)(call), version)


def _property(record: Any, name: str) -> tuple[str]:
    try:
        type(record.ref)._GetPropertyInfo(name)  # noqa: SLF001 - pyVmomi's public metadata
    except AttributeError:
        raise vmodl.query.InvalidProperty(name=name) from None
    return (name,)


class SoapHandler(BaseHTTPRequestHandler):
    """One connection of one client."""

    protocol_version = "HTTP/1.1"
    server_version = "labctl-simulator"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_S
    server: SoapServer

    def do_GET(self) -> None:
        """Serve the version file, and the count of requests by method."""
        if self.path == "/sdk/vimServiceVersions.xml":
            self._send(HTTPStatus.OK, VERSIONS_XML.encode(), "text/xml; charset=utf-8")
        elif self.path == "/labctl/requests":
            with self.server.world.changed:
                counts = dict(self.server.world.requests)
            self._send(HTTPStatus.OK, json.dumps(counts).encode(), "application/json")
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain")

    def do_POST(self) -> None:
        """Answer a SOAP call."""
        length = self.headers.get("Content-Length", "")
        if not self.path.startswith("/sdk") or not length.isdigit():
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, b"POST /sdk, with a length\n", "text/plain")
        elif int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"too large\n", "text/plain")
        else:
            self._soap(self.rfile.read(int(length)))

    def _session(self) -> Session | None:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return None
        return self.server.world.sessions.get(cookie.value) if cookie else None

    def _soap(self, body: bytes) -> None:
        world, version = self.server.world, codec.version_from(self.headers.get("SOAPAction", ""))
        call = Call(world, None, None, None, self._session())
        before, status = call.session, HTTPStatus.OK
        SESSION.set(before)
        try:
            request = codec.decode(body)
            call.method, call.args = request.method, request.args
            name = request.method.wsdlName
            if not name.endswith("_Task"):
                world.closing.wait(world.settings.method_delays_s.get(name, 0.0))
            with world.changed:
                world.requests[name] += 1
                answered = answer(world, request, call, version)
        except Exception as error:  # noqa: BLE001 - the edge: every error becomes the client's fault
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            answered = codec.encode_fault(as_fault(error), version)
        cookie = None
        if call.session is not before:
            cookie = (
                f'{COOKIE}="{call.session.key if call.session else ""}"; Path=/; HttpOnly; Secure'
            )
        self._send(status, answered, "text/xml; charset=utf-8", cookie)

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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake is done by the connection's thread, so a silent client blocks nobody.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - http.server's
        """A client that goes away is no event; anything else is logged."""
        LOG.debug("a connection ended with an error", exc_info=True)
