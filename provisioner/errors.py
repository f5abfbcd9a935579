"""Every error that labctl raises on purpose, and the exit code of each.

LabctlError                        what happened, where, and what to do next
|- InputError                  (2) what IT wrote cannot be used; nothing was changed
|  |- FileProblemsError            a blueprint, site or stack file: every problem at once
|  `- UnknownLabError              no lab of that id in this installation
|- RefusedError                (3) the request is understood and not allowed
|  |- NotConfirmedError            a destructive verb was not confirmed
|  |- NameTakenError               the name belongs to something that is not ours
|  |- CapacityError                the site has no room for the lab
|  |- TemplateChangedError         the VM template is not the one that was pinned
|  |- NotOwnedError                the VM carries no genuine mark of this installation
|  |- RestoredStoreError           a store put back from a backup may not destroy anything yet
|  `- BusyError                    other work on this lab, or another process, is under way
|- VsphereError                (4) vCenter answered with a fault
|  |- LoginRefusedError            wrong user name or password
|  |- CertificateError             vCenter's certificate is not the one that was pinned
|  |- PrivilegeError               the account lacks a privilege
|  |- NotFoundError                a named object of the site does not exist
|  |- VmGoneError                  the VM disappeared while it was worked on
|  |- TaskFailedError              a vim task ended in error
|  |- RolledBackError              vCenter shows an older state than it showed before
|  |- ClockError                   vCenter's clock and this machine's disagree
|  `- VsphereUnavailableError  (5) no answer, or to come again: the outcome is unknown
|- ConvergeError               (4) Ansible did not bring the guest to the blueprint
|  |- PlayFailedError              a play task failed on a guest
|  `- GuestUnreachableError    (5) a guest does not answer Ansible, SSH or vCenter in time
|- ShellError                  (4) a command over SSH could not be run
|  `- HostKeyError                 the guest's host key is not the pinned one
|- CheckFailedError            (4) a check or trial saw something else than it should
|- CredentialError             (4) a key could not be made, read or removed
|- StoreError                  (4) the store cannot be read or written
|- SimulatorError              (4) the simulator cannot start, or is not running
|- StoppedError                (5) the work was stopped on request and can be continued
`- TeardownIncompleteError     (6) residue: something of the lab is left
   `- NotProvedError           (7) labctl could not see enough to say that nothing is left

An error never logs, prints or exits by itself. The command line prints its text and leaves
with its `exit_code`. `retryable` says that the same call may succeed later unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar


def _rebuild(kind: type[LabctlError], args: tuple[Any, ...], state: dict[str, Any]) -> LabctlError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class LabctlError(Exception):
    """Something went wrong that IT can act on.

    Args:
        what: what happened and where, one sentence without a final stop.
        hint: what to do next, one sentence; empty when `what` says it all.
    """

    exit_code: ClassVar[int] = 4
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}" if self.hint else self.what

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling `__init__`, so that subclasses may have any signature."""
        return _rebuild, (type(self), self.args, self.__dict__)


class InputError(LabctlError):
    """What IT wrote cannot be used; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One fault in a file: where it is, which key, what is wrong and what is allowed."""

    file: str
    line: int
    column: int
    key: str
    text: str

    def __str__(self) -> str:
        key = f" {self.key}" if self.key else ""
        return f"{self.file}:{self.line}:{self.column}{key}: {self.text}"


class FileProblemsError(InputError):
    """A file has faults; all of them are listed, ordered by file, line and column."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column, p.key)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownLabError(InputError):
    """No lab of that id in this installation."""


class RefusedError(LabctlError):
    """The request is understood and not allowed; nothing was changed."""

    exit_code = 3


class NotConfirmedError(RefusedError):
    """A destructive verb was not confirmed."""


class NameTakenError(RefusedError):
    """The name belongs to something that is not ours."""


class CapacityError(RefusedError):
    """The site has no room for the lab."""


class NotOwnedError(RefusedError):
    """The VM carries no genuine mark of this installation, or not the instance UUID it names."""


class TemplateChangedError(RefusedError):
    """The VM template is not the one that was pinned when the clone was recorded."""


class RestoredStoreError(RefusedError):
    """The store was put back from a backup and not yet compared with vCenter."""


class BusyError(RefusedError):
    """Other work on this lab, or another process, is under way."""


class VsphereError(LabctlError):
    """VCenter answered with a fault."""


class LoginRefusedError(VsphereError):
    """Wrong user name or password."""


class CertificateError(VsphereError):
    """VCenter's certificate is not the one that was pinned, or no CA that we trust signed it."""


class PrivilegeError(VsphereError):
    """The account lacks a privilege on an object."""


class NotFoundError(VsphereError):
    """A named object of the site does not exist, or is of another type, or cannot be seen."""


class VmGoneError(VsphereError):
    """The VM disappeared while it was worked on."""


class TaskFailedError(VsphereError):
    """A vim task ended in error."""


class RolledBackError(VsphereError):
    """VCenter shows an older state than it showed before: what it does not show may still exist."""


class ClockError(VsphereError):
    """VCenter's clock and this machine's disagree, so nothing is destroyed by the hour."""


class VsphereUnavailableError(VsphereError):
    """VCenter does not answer, or asks to come again: the outcome is unknown, never failed."""

    exit_code = 5
    retryable = True


class ConvergeError(LabctlError):
    """Ansible did not bring the guest to the blueprint."""


class PlayFailedError(ConvergeError):
    """A play task failed on a guest."""


class GuestUnreachableError(ConvergeError):
    """A guest does not answer: over SSH, or through vCenter in time."""

    exit_code = 5
    retryable = True


class ShellError(LabctlError):
    """A command over SSH could not be run."""


class HostKeyError(ShellError):
    """The guest's host key is not the pinned one."""


class CheckFailedError(LabctlError):
    """A check or trial saw something else than it should."""


class CredentialError(LabctlError):
    """A key could not be made, read or removed."""


class StoreError(LabctlError):
    """The store cannot be read or written."""


class SimulatorError(LabctlError):
    """The simulator cannot start, or is not running."""


class StoppedError(LabctlError):
    """The work was stopped on request and can be continued."""

    exit_code = 5


class TeardownIncompleteError(LabctlError):
    """Something of the lab is left: the residue."""

    exit_code = 6


class NotProvedError(TeardownIncompleteError):
    """Labctl could not see enough of vCenter to say that nothing is left; there is no receipt."""

    exit_code = 7


def to_data(error: BaseException) -> dict[str, str]:
    """Say an error in plain data, for a database or another process.

    Of an error that is not ours only the type is told: its text may hold anything.
    """
    if isinstance(error, LabctlError):
        return {"kind": type(error).__name__, "what": error.what, "hint": error.hint}
    what = f"internal error: {type(error).__name__}"
    return {"kind": "LabctlError", "what": what, "hint": "report it with the worker's log"}


def from_data(data: dict[str, str]) -> LabctlError:
    """Build the error that `to_data` told, of its own class; an unknown class is LabctlError."""
    kind = _KINDS.get(data["kind"], LabctlError)
    return _rebuild(kind, (data["what"],), {"what": data["what"], "hint": data["hint"]})


def _list_kinds(kind: type[LabctlError]) -> Iterator[type[LabctlError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _list_kinds(below)


_KINDS = {kind.__name__: kind for kind in _list_kinds(LabctlError)}
