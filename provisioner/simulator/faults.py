"""What happens when a fault rule fires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyVmomi import vim

from provisioner.simulator.fault_rules import SPECIAL, build_fault
from provisioner.simulator.restore import restart, roll_back
from provisioner.simulator.service import end_session

if TYPE_CHECKING:
    from provisioner.simulator.fault_rules import Rule
    from provisioner.simulator.world import Call, World


class LostError(Exception):
    """A call gets no answer, because of the rule that fired."""

    def __init__(self, *, reset: bool = False, everyone: bool = False) -> None:
        super().__init__("the answer is lost")
        self.reset = reset
        """The connection ends by TCP RST."""
        self.everyone = everyone
        """Every other connection ends too."""


def strike(rule: Rule, call: Call) -> None:
    """Let a rule happen to a call; what is about its task happens there.

    Raises:
        LostError: the call gets no answer.
        vmodl.MethodFault: the call is answered with that.
    """
    if rule.what not in SPECIAL:
        raise build_fault(rule.what)
    if rule.what in ("lost", "reset"):
        raise LostError(reset=rule.what == "reset")
    if rule.what == "delay":
        call.world.closing.wait(rule.seconds)
    if rule.what == "expire":
        _expire(call)
    if rule.what in ("outage", "restart", "rollback"):
        _go_down(rule, call.world)


def _expire(call: Call) -> None:
    if call.session is not None:
        end_session(call.world, call.session)
    text, ref = "The session is not authenticated.", call.args._this  # noqa: SLF001 - the argument's name in SOAP
    raise vim.fault.NotAuthenticated(object=ref, privilegeId="System.View", msg=text)


def _go_down(rule: Rule, world: World) -> None:
    """Be out of reach, and another vCenter when back."""
    if rule.what == "restart":
        restart(world)
    if rule.what == "rollback":
        roll_back(world, rule.to)
    world.faults.begin_outage(rule.seconds)
    raise LostError(everyone=True)
