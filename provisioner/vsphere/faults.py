"""Every fault of vCenter, and of the way to it, as an error of ours: one table, used at every edge.

A row belongs to a class and to everything below it that has no row of its own, so the most specific
row always decides. vim faults never leave this package: they cannot be pickled.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import ManagedObject

from provisioner.errors import (
    CapacityError,
    CertificateError,
    LabctlError,
    LoginRefusedError,
    NameTakenError,
    NotFoundError,
    PrivilegeError,
    TaskFailedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)

SAID_LIMIT = 300
TROUBLE = (vmodl.MethodFault, OSError, HTTPException, ExpatError)
"""What a call to vCenter can raise. Anything else is a bug of ours."""


@dataclass(frozen=True)
class Row:
    """How one class of faults is told.

    `{name}` in `text` is the fault's own property of that name, `{said}` its own words, `{kind}`
    its type.
    """

    error: type[VsphereError | CapacityError | NameTakenError]
    text: str
    hint: str = ""


_AGAIN = "wait until it has ended, then run the same command again"
_ROLE = "docs/runbook.md lists the vSphere role that labctl needs"
_REACH = (
    "check vcenter.host and vcenter.port of the site file, the network, and that vCenter is up;"
    " a simulator is started by: labctl sim up"
)
_TASKS = "the recent tasks of that object in vCenter say more"
_HOST = "look at the state of the ESXi hosts in vCenter, then run the same command again"
_TRUST = (
    "set vcenter.ca_file to vCenter's CA certificate, or vcenter.thumbprint_sha256 to the"
    " thumbprint read on vCenter itself"
)

TABLE: dict[type[BaseException], Row] = {
    # who we are
    vim.fault.InvalidLogin: Row(
        LoginRefusedError,
        "the user name or the password is wrong",
        "check vcenter.username and the password source of the site file; more tries may lock"
        " the account",
    ),
    vim.fault.PasswordExpired: Row(
        LoginRefusedError,
        "the account's password has expired",
        "change it in vCenter and where the site file takes it from",
    ),
    vim.fault.NotAuthenticated: Row(
        VsphereUnavailableError,
        "the session has ended",
        "run the same command again: it logs in anew",
    ),
    vmodl.fault.SecurityError: Row(PrivilegeError, "it is forbidden: {said}", _ROLE),
    vim.fault.NoPermission: Row(
        PrivilegeError, "the account lacks {privilegeId} on {object}", _ROLE
    ),
    # what is there
    vmodl.fault.ManagedObjectNotFound: Row(
        VmGoneError, "{obj} is no longer there", "run the same command again: it looks anew"
    ),
    vim.fault.NotFound: Row(NotFoundError, "something it needs does not exist: {said}"),
    vim.fault.FileNotFound: Row(NotFoundError, "the file {file} does not exist"),
    vim.fault.DuplicateName: Row(
        NameTakenError,
        "the name {name} is taken",
        "look at what bears that name in the labs' folder; labctl touches only what is its own",
    ),
    # room
    vim.fault.InsufficientResourcesFault: Row(
        CapacityError, "there are not enough resources: {said}", "make room, or ask for less"
    ),
    vim.fault.NoDiskSpace: Row(
        CapacityError, "datastore {datastore} is full", "make room, or name another datastore"
    ),
    vim.fault.NoCompatibleHost: Row(CapacityError, "no ESXi host can take it: {said}", _HOST),
    vim.fault.LimitExceeded: Row(CapacityError, "a limit of vSphere is reached: {said}"),
    vmodl.fault.NotEnoughLicenses: Row(
        VsphereError, "a licence is missing: {said}", "see Licensing in vCenter"
    ),
    # not now
    vim.fault.TaskInProgress: Row(
        VsphereUnavailableError, "another vSphere task works on it ({task})", _AGAIN
    ),
    vim.fault.ConcurrentAccess: Row(
        VsphereUnavailableError, "it was changed by someone else at the same time", _AGAIN
    ),
    vim.fault.MethodDisabled: Row(
        VsphereUnavailableError, "{source} forbids it now, as a backup does", _AGAIN
    ),
    vim.fault.Timedout: Row(VsphereUnavailableError, "vSphere gave up waiting: {said}", _TASKS),
    vim.fault.HostConnectFault: Row(VsphereUnavailableError, "a host is away: {said}", _HOST),
    vmodl.fault.HostCommunication: Row(VsphereUnavailableError, "a host is away: {said}", _HOST),
    vmodl.fault.RequestCanceled: Row(
        TaskFailedError, "it was cancelled in vCenter", "run the same command again"
    ),
    # not so
    vim.fault.InvalidState: Row(TaskFailedError, "its state does not allow it: {said}", _TASKS),
    vim.fault.InvalidPowerState: Row(
        TaskFailedError, "it is {existingState}, which does not allow it", _TASKS
    ),
    vim.fault.QuestionPending: Row(
        TaskFailedError,
        "the VM waits for an answer: {text}",
        "answer it on the VM's page in vCenter",
    ),
    vim.fault.ToolsUnavailable: Row(
        TaskFailedError, "VMware Tools do not answer in the guest", "look at the guest's console"
    ),
    vim.fault.VmConfigFault: Row(
        TaskFailedError, "the VM's configuration does not allow it: {said}", _TASKS
    ),
    vim.fault.FileFault: Row(TaskFailedError, "the file {file}: {said}", _TASKS),
    vmodl.fault.InvalidArgument: Row(
        VsphereError, "the value of {invalidProperty} is not allowed: {said}", _TASKS
    ),
    vmodl.fault.NotSupported: Row(VsphereError, "it is not supported there: {said}", _TASKS),
    vmodl.fault.InvalidRequest: Row(
        VsphereError,
        "the request is not understood: {said}",
        "labctl needs vCenter 7.0 or newer; check vcenter.host and vcenter.port of the site file",
    ),
    vim.fault.VimFault: Row(VsphereError, "{kind}: {said}", _TASKS),
    vmodl.MethodFault: Row(VsphereError, "{kind}: {said}", _TASKS),
    # the way there
    ssl.SSLCertVerificationError: Row(
        CertificateError, "its certificate is not trusted: {verify_message}", _TRUST
    ),
    ssl.SSLError: Row(VsphereUnavailableError, "no TLS connection: {said}", _REACH),
    TimeoutError: Row(VsphereUnavailableError, "no answer in time", _REACH),
    socket.gaierror: Row(VsphereUnavailableError, "the host name is not known", _REACH),
    ConnectionRefusedError: Row(VsphereUnavailableError, "nothing listens there", _REACH),
    OSError: Row(VsphereUnavailableError, "the connection failed: {said}", _REACH),
    HTTPException: Row(VsphereUnavailableError, "the answer was cut off: {said}", _REACH),
    ExpatError: Row(VsphereUnavailableError, "the answer is not vCenter's: {said}", _REACH),
}


def get_row(kind: type[BaseException]) -> Row:
    """Return the most specific row of a fault's class. Raises KeyError for what is no fault."""
    for ancestor in kind.__mro__:
        if ancestor in TABLE:
            return TABLE[ancestor]
    raise KeyError(kind)


def translate(fault: BaseException, doing: str, *, in_task: bool = False) -> LabctlError:
    """Build the error that tells a fault.

    Args:
        fault: what was raised, or what a vim task ended with.
        doing: who was doing what, such as "vCenter vc01: cannot clone ana-mlops-workbench".
        in_task: the fault ended a vim task: where the table knows nothing more special, the
            error is a TaskFailedError.
    """
    row = get_row(type(fault))
    kind: type[LabctlError] = row.error
    if kind is VmGoneError and not isinstance(getattr(fault, "obj", None), vim.VirtualMachine):
        kind = NotFoundError
    if kind is VsphereError and in_task:
        kind = TaskFailedError
    return kind(f"{doing}: {row.text.format_map(_Words(fault))}", hint=row.hint)


class Translated:
    """A context in which faults become errors: `with Translated("vCenter vc01: cannot ..."):`.

    A class, because contextlib sets `__traceback__`, which pyVmomi's faults do not always allow.
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        fault: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if isinstance(fault, TROUBLE):
            raise translate(fault, self.doing) from fault


class _Words(dict[str, str]):
    """The words a row's text may use, read from the fault when asked for."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self._fault = fault

    def __missing__(self, name: str) -> str:
        if name == "kind":
            return type(self._fault).__name__.rpartition(".")[2]
        if name == "said":
            said = getattr(self._fault, "msg", None) or getattr(self._fault, "reason", None)
            own_text = "" if isinstance(self._fault, vmodl.MethodFault) else str(self._fault)
            return clean(said or own_text) or self["kind"]
        return clean(getattr(self._fault, name, None)) or "something"


def clean(value: Any) -> str:
    """Return what vCenter said as one short printable line."""
    if isinstance(value, ManagedObject):
        value = f"{type(value).__name__.rpartition('.')[2]} {value._GetMoId()}"  # noqa: SLF001 - pyVmomi's public accessor
    text = re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", str(value or "")).strip()
    return text if len(text) <= SAID_LIMIT else f"{text[:SAID_LIMIT]}..."
