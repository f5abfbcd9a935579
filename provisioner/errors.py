"""Every error that labctl raises on purpose, and the exit code of each.

LabctlError                        what happened, where, and what to do next
|- InputError                  (2) what IT wrote cannot be used; nothing was changed
|  |- FileProblemsError            a blueprint, site or stack file: every problem at once
|  `- UnknownLabError              no lab of that id in this installation
|- RefusedError                (3) the request is understood and not allowed
|  |- NotConfirmedError            a destructive verb was not confirmed
|  |- NameTakenError               the name belongs to something that is not ours
|  |- CapacityError                the site has no room for the lab
|  |- NotOwnedError                the VM carries no genuine mark of this installation
|  `- BusyError                    another process works on this lab
|- VsphereError                (4) vCenter answered with a fault
|  |- LoginRefusedError            wrong user name or password
|  |- CertificateError             vCenter's certificate is not the one that was pinned
|  |- PrivilegeError               the account lacks a privilege
|  |- NotFoundError                a named object of the site does not exist
|  |- VmGoneError                  the VM disappeared while it was worked on
|  |- TaskFailedError              a vim task ended in error
|  `- VsphereUnavailableError  (5) no answer: the outcome is unknown, asking again is right
|- ConvergeError               (4) Ansible did not bring the guest to the blueprint
|  |- PlayFailedError              a play task failed on a guest
|  `- GuestUnreachableError    (5) Ansible or SSH cannot reach a guest
|- ShellError                  (4) a command over SSH could not be run
|  `- HostKeyError                 the guest's host key is not the pinned one
|- CheckFailedError            (4) a check or trial saw something else than it should
|- CredentialError             (4) a key could not be made, read or removed
|- StoreError                  (4) the store cannot be read or written
|- SimulatorError              (4) the simulator cannot start, or is not running
|- StoppedError                (5) the work was stopped on request and can be continued
`- TeardownIncompleteError     (6) residue: something of the lab is left, or could not be seen

An error never logs, prints or exits by itself. The command line prints its text and leaves
with its `exit_code`. `retryable` says that the same call may succeed later unchanged.
"""

from __future__ import annotations

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


class BusyError(RefusedError):
    """Another process works on this lab."""


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


class VsphereUnavailableError(VsphereError):
    """No answer in time: the outcome is unknown, never failed."""

    exit_code = 5
    retryable = True


class ConvergeError(LabctlError):
    """Ansible did not bring the guest to the blueprint."""


class PlayFailedError(ConvergeError):
    """A play task failed on a guest."""


class GuestUnreachableError(ConvergeError):
    """A guest does not answer over SSH."""

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
    """Something of the lab is left, or could not be seen: the residue."""

    exit_code = 6
