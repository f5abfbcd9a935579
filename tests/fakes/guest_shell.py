"""GuestShell without SSH: a test says which machines answer, and what their commands do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from provisioner.errors import GuestUnreachableError, HostKeyError, ShellError
from provisioner.model.observed import ShellResult
from provisioner.ports import ShellTarget

Answer = Callable[[ShellTarget, str, str], ShellResult | None]


@dataclass
class FakeMachine:
    """Something that answers at an address.

    `keys` are the private files that may log in, by user. `answer` gets target, command and
    standard input; None means that the command does not end in time.
    """

    host_key: str
    keys: dict[str, set[str]] = field(default_factory=dict)
    answer: Answer = lambda _target, _command, _stdin: ShellResult(0, "", "")
    up: bool = True


@dataclass
class FakeGuestShell:
    """Machines by address; `ran` records every command that was run."""

    machines: dict[str, FakeMachine] = field(default_factory=dict)
    ran: list[tuple[ShellTarget, str, str]] = field(default_factory=list)

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        try:
            self._log_in(target)
        except HostKeyError:
            raise
        except (GuestUnreachableError, ShellError) as error:
            raise GuestUnreachableError(
                f"no login within {timeout_s:.0f} s: {error.what}"
            ) from error

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        machine = self._log_in(target)
        self.ran.append((target, command, stdin))
        result = machine.answer(target, command, stdin)
        if result is None:
            raise GuestUnreachableError(
                f"guest {target.alias} did not end a command within {timeout_s:.0f} s"
            )
        return result

    def _log_in(self, target: ShellTarget) -> FakeMachine:
        machine = self.machines.get(target.address)
        if machine is None or not machine.up:
            raise GuestUnreachableError(f"guest {target.alias} cannot be reached")
        if machine.host_key != target.host_key:
            raise HostKeyError(f"guest {target.alias} answers with another host key")
        if target.key_file not in machine.keys.get(target.user, set()):
            raise ShellError(f"guest {target.alias} refuses the login of {target.user}")
        return machine
