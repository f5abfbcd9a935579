"""The table of faults: complete, the most specific row decides, and every text can be told."""

from __future__ import annotations

import pickle
import re
import socket
import ssl
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any
from xml.parsers.expat import ExpatError

import pytest
from pyVmomi import VmomiSupport, vim, vmodl

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
from provisioner.vsphere.faults import SAID_LIMIT, TABLE, Translated, clean, get_row, translate

FAULTS = sorted(
    (
        kind
        for kind in VmomiSupport.GetWsdlTypes()
        if isinstance(kind, type) and issubclass(kind, vmodl.MethodFault)
    ),
    key=lambda kind: kind.__name__,
)
DOING = "vCenter vc01: cannot clone ana-mlops-workbench"


def test_the_registry_is_walked() -> None:
    assert len(FAULTS) > 700
    assert vim.fault.DuplicateName in FAULTS


@pytest.mark.parametrize("in_task", [True, False])
def test_every_fault_class_resolves_through_the_table(in_task: bool) -> None:  # noqa: FBT001 - a case
    for kind in FAULTS:
        error = translate(kind(), DOING, in_task=in_task)
        assert isinstance(error, VsphereError | CapacityError | NameTakenError), kind
        assert error.what.startswith(f"{DOING}: "), kind
        assert "{" not in error.what, kind
        assert pickle.loads(pickle.dumps(error)).what == error.what  # noqa: S301 - our own


def test_the_most_specific_row_decides() -> None:
    for kind in FAULTS:
        rows = [row for row in TABLE if issubclass(kind, row)]
        nearest = max(rows, key=lambda row: len(row.__mro__))
        assert get_row(kind) is TABLE[nearest], kind


def test_every_row_belongs_to_something_that_can_happen() -> None:
    assert not [row for row in TABLE if not issubclass(row, (*FAULTS, OSError, Exception))]
    for row in TABLE.values():
        assert row.text
        assert not row.text.endswith(".")


def test_what_is_no_fault_has_no_row() -> None:
    with pytest.raises(KeyError):
        get_row(ValueError)
    with pytest.raises(ZeroDivisionError), Translated(DOING):
        raise ZeroDivisionError


VM = vim.VirtualMachine("vm-7")
CASES: list[tuple[BaseException, type[LabctlError], str]] = [
    (vim.fault.InvalidLogin(), LoginRefusedError, "user name or the password is wrong"),
    (vim.fault.PasswordExpired(), LoginRefusedError, "password has expired"),
    (vim.fault.NotAuthenticated(), VsphereUnavailableError, "session has ended"),
    (
        vim.fault.NoPermission(object=vim.Folder("group-v3"), privilegeId="VirtualMachine.Delete"),
        PrivilegeError,
        "lacks VirtualMachine.Delete on Folder group-v3",
    ),
    (vim.fault.DuplicateName(name="ana"), NameTakenError, "the name ana is taken"),
    (vim.fault.NoDiskSpace(datastore="ds1"), CapacityError, "datastore ds1 is full"),
    (vim.fault.InsufficientMemoryResourcesFault(msg="no RAM"), CapacityError, "no RAM"),
    (vmodl.fault.ManagedObjectNotFound(obj=VM), VmGoneError, "VirtualMachine vm-7 is no longer"),
    (
        vmodl.fault.ManagedObjectNotFound(obj=vim.Folder("group-v3")),
        NotFoundError,
        "Folder group-v3 is no longer there",
    ),
    (vim.fault.FileNotFound(file="[ds] a/a.vmdk"), NotFoundError, r"\[ds\] a/a.vmdk does not"),
    (vim.fault.TaskInProgress(), VsphereUnavailableError, "another vSphere task"),
    (vim.fault.MethodDisabled(source="backup"), VsphereUnavailableError, "backup forbids it now"),
    (vmodl.fault.HostNotReachable(msg="esx1"), VsphereUnavailableError, "a host is away: esx1"),
    (vim.fault.InvalidPowerState(existingState="poweredOn"), TaskFailedError, "it is poweredOn"),
    (vmodl.fault.RequestCanceled(), TaskFailedError, "cancelled"),
    (vmodl.fault.InvalidArgument(invalidProperty="spec"), VsphereError, "the value of spec"),
    (vmodl.fault.SystemError(reason="disk on fire"), VsphereError, "SystemError: disk on fire"),
    (socket.gaierror(-2, "Name or service not known"), VsphereUnavailableError, "not known"),
    (ConnectionRefusedError(111, "refused"), VsphereUnavailableError, "nothing listens"),
    (TimeoutError("timed out"), VsphereUnavailableError, "no answer in time"),
    (OSError(113, "No route to host"), VsphereUnavailableError, "No route to host"),
    (ssl.SSLError(1, "wrong version number"), VsphereUnavailableError, "no TLS connection"),
    (ssl.SSLCertVerificationError("bad"), CertificateError, "not trusted"),
    (RemoteDisconnected("closed"), VsphereUnavailableError, "the connection failed"),
    (BadStatusLine("x"), VsphereUnavailableError, "cut off"),
    (ExpatError("no element found"), VsphereUnavailableError, "not vCenter's"),
]


@pytest.mark.parametrize(("fault", "kind", "said"), CASES, ids=lambda case: type(case).__name__)
def test_a_fault_is_told(fault: BaseException, kind: type[LabctlError], said: str) -> None:
    with pytest.raises(kind, match=said) as caught, Translated(DOING):
        raise fault
    assert type(caught.value) is kind
    assert caught.value.__cause__ is fault


def test_a_task_that_fails_for_no_special_reason_is_a_failed_task() -> None:
    fault = vmodl.fault.SystemError(reason="odd")
    assert type(translate(fault, DOING)) is VsphereError
    assert type(translate(fault, DOING, in_task=True)) is TaskFailedError
    taken = translate(vim.fault.DuplicateName(name="x"), DOING, in_task=True)
    assert type(taken) is NameTakenError


@pytest.mark.parametrize(
    "said",
    ["\x1b[31mred\x1b[0m\nnext line\x00", "{object.__init__.__globals__}", "x" * 5000, "%s %(a)s"],
)
def test_what_vcenter_says_is_one_short_printable_line(said: str) -> None:
    error: Any = translate(vmodl.fault.SystemError(reason=said, msg=said), DOING)
    assert len(error.what) <= len(DOING) + SAID_LIMIT + 40
    assert not re.search(r"[\x00-\x1f\x7f]", error.what)
    assert clean(said)[:20] in error.what
