"""One login at one vCenter, whose certificate was checked before anything secret was sent."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException, HTTPSConnection
from typing import Any, TypeVar

from pyVmomi import vim
from pyVmomi.SoapAdapter import SoapStubAdapter
from pyVmomi.VmomiSupport import versionMap

from provisioner.errors import (
    CertificateError,
    LabctlError,
    LoginRefusedError,
    StoppedError,
    VsphereError,
)
from provisioner.model.spec import VCenter
from provisioner.ports import Clock
from provisioner.vsphere.faults import Translated
from provisioner.vsphere.properties import Reading, retrieve

T = TypeVar("T")
API_VERSION = versionMap["vim25/7.0.0.0"]
"""The API that is spoken: every vCenter since 7.0 does, so nothing has to be negotiated."""
HTTPS_PORT = 443
REFUSED_S = 60.0
"""How long a refused login is remembered. A vCenter locks an account after 5 refusals in 180 s."""
STALE = (ConnectionError, HTTPException, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""How a connection ends that vCenter had closed while it was idle."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    `connect_s` is for connecting and the TLS handshake, `request_s` for the answer to one request;
    `backup_s` for a backup of a VM that is to be destroyed; the others are for vim tasks.
    """

    connect_s: float = 15
    request_s: float = 90
    clone_s: float = 900
    power_s: float = 180
    reconfigure_s: float = 180
    destroy_s: float = 600
    search_s: float = 60
    backup_s: float = 600


class _CheckedConnection(HTTPSConnection):
    """An HTTPS connection that is closed before its first request when the pin does not match."""

    def __init__(
        self, host: str, port: int, *, context: ssl.SSLContext, limits: Limits, sha256: str
    ) -> None:
        super().__init__(host, port, timeout=limits.connect_s, context=context)
        self._request_s = limits.request_s
        self._sha256 = sha256

    def connect(self) -> None:
        super().connect()
        if self._sha256:
            certificate = self.sock.getpeercert(binary_form=True) or b""
            shown = hashlib.sha256(certificate).hexdigest()
            if shown != self._sha256:
                self.close()
                raise CertificateError(
                    f"vCenter {self.host}: its certificate is not the pinned one: it shows SHA-256 "
                    f"{_with_colons(shown)}, pinned is {_with_colons(self._sha256)}",
                    hint="if the certificate was renewed, read the new thumbprint on vCenter itself"
                    " and put it in vcenter.thumbprint_sha256 of the site file",
                )
        self.sock.settimeout(self._request_s)


def _with_colons(digest: str) -> str:
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2)).upper()


def build_tls_context(vcenter: VCenter) -> ssl.SSLContext:
    """Build the context that checks vCenter's certificate: CA file, machine's CAs, or the pin.

    With a pin, the connection itself compares the whole certificate, whoever signed it.
    Raises CertificateError when the CA file cannot be used.
    """
    if vcenter.thumbprint_sha256:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=vcenter.ca_file)
    except OSError as error:
        raise CertificateError(
            f"vCenter {vcenter.host}: the CA file {vcenter.ca_file} cannot be used: {error}",
            hint="vcenter.ca_file of the site file must name a PEM file with a CA certificate",
        ) from error
    # Python 3.13 began to ask for the form that RFC 5280 prescribes, which CAs of older vCenters
    # do not have. Signature, dates and host name are checked on every Python alike.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Session:
    """The one session with a vCenter. It logs in when first used, and again when it expired.

    Reads are asked again after a new login or on a fresh connection; a mutating call is sent once.

    Args:
        vcenter: where vCenter is, and how its certificate is checked.
        password: gives the password; called only once the certificate was found good.
        limits: how long things may take.
        clock: for how long a refused login is not tried again.
    """

    def __init__(
        self, vcenter: VCenter, password: Callable[[], str], limits: Limits, clock: Clock
    ) -> None:
        self.vcenter = vcenter
        self.limits = limits
        port = "" if vcenter.port == HTTPS_PORT else f":{vcenter.port}"
        self.title = f"vCenter {vcenter.host}{port}"
        self.login: Any = None
        self._password = password
        self._stub: Any = None
        self._content: Any = None
        self._serial = 0
        self._clock = clock
        self._refused: LoginRefusedError | None = None
        self._refused_until_s = 0.0
        self._closed = False
        self._lock = threading.RLock()

    def cannot(self, doing: str) -> Translated:
        """Return the context in which faults become errors that say what could not be done."""
        return Translated(f"{self.title}: cannot {doing}")

    def open(self) -> tuple[Any, int]:
        """Return the service content and the login's number, logging in when there is no session.

        Raises:
            LoginRefusedError: at once, too, for a while after a refusal: tries may lock an account.
            CertificateError: the certificate is not the right one; no password was sent.
            VsphereUnavailableError: vCenter does not answer.
            StoppedError: the session was closed.
        """
        with self._lock:
            if self._closed:
                raise StoppedError(f"{self.title}: the session was closed")
            if self._refused and self._clock.monotonic_s() < self._refused_until_s:
                raise self._refused
            if self._content is None:
                try:
                    with self.cannot(f"log in as {self.vcenter.username}"):
                        self._content = self._log_in()
                except LoginRefusedError as error:
                    self._refused = error
                    self._refused_until_s = self._clock.monotonic_s() + REFUSED_S
                    raise
                self._serial += 1
            return self._content, self._serial

    def _log_in(self) -> Any:
        if self._stub is None:
            self._stub = SoapStubAdapter(
                host=self.vcenter.host, port=self.vcenter.port, version=API_VERSION
            )
            self._stub.scheme = partial(
                _CheckedConnection,
                context=build_tls_context(self.vcenter),
                limits=self.limits,
                sha256=(self.vcenter.thumbprint_sha256 or "").replace(":", "").lower(),
            )
        try:
            content: Any = self._service().RetrieveContent()
        except STALE:
            content = self._service().RetrieveContent()
        if content.about.apiType != "VirtualCenter":
            raise VsphereError(
                f"{self.title}: this is {content.about.fullName}, not a vCenter",
                hint="vcenter.host of the site file must name a vCenter",
            )
        self.login = content.sessionManager.Login(self.vcenter.username, self._password(), None)
        return content

    def forget(self, serial: int) -> None:
        """Take note that the login of that number has expired."""
        with self._lock:
            if self._serial == serial:
                self._content = None

    def read(self, doing: str, ask: Callable[[Any], T]) -> T:
        """Ask a question that changes nothing, again when session or connection had ended.

        `ask` gets the service content. Faults become errors saying "cannot {doing}".
        """
        with self.cannot(doing):
            try:
                return self._ask_logged_in(ask)
            except STALE:
                return self._ask_logged_in(ask)

    def _ask_logged_in(self, ask: Callable[[Any], T]) -> T:
        content, serial = self.open()
        try:
            return ask(content)
        except vim.fault.NotAuthenticated:
            self.forget(serial)
            content, _ = self.open()
            return ask(content)

    def retrieve(self, doing: str, spec: Any) -> tuple[Reading, ...]:
        """Read what a property filter selects; see `properties.retrieve`."""
        return self.read(doing, lambda content: retrieve(content, spec))

    def refer(self, kind: Any, moref: str) -> Any:
        """Return the managed object of a reference that was kept as text."""
        self.open()
        return kind(moref, self._stub)

    def read_clock(self) -> datetime:
        """Read vCenter's own time."""
        now: datetime = self.read("read its clock", lambda _: self._service().CurrentTime())
        return now.astimezone(UTC)

    def keep_alive(self) -> None:
        """Tell vCenter that the session is in use. Raises VsphereError when it is not reached."""
        if self._content is not None:
            self.read_clock()

    def _service(self) -> Any:
        return vim.ServiceInstance("ServiceInstance", self._stub)

    def read_content(self) -> Any:
        """Read the service content anew: which vCenter this is now."""
        return self.read("ask which vCenter it is", lambda _: self._service().RetrieveContent())

    def close(self) -> None:
        """Log out and drop the connections. Never raises."""
        with self._lock:
            content, self._content, self._closed = self._content, None, True
            if content is not None:
                with contextlib.suppress(LabctlError), self.cannot("log out"):
                    content.sessionManager.Logout()
            if self._stub is not None:
                self._stub.DropConnections()
