"""What the workflows need of the world: one Protocol per adapter.

Only frozen values of plain types cross a port. Every adapter translates its library's faults
into `provisioner.errors` at its own edge. Waits take a deadline as `timeout_s`; running out of it
means *unknown*: GuestUnreachableError when the guest does not answer, VsphereUnavailableError only
when vCenter does not, or asks to come again.
"""

from provisioner.ports.clock import Clock
from provisioner.ports.engine import Engine, Flow, Step, Workflow
from provisioner.ports.guests import (
    Configurator,
    Credentials,
    GuestShell,
    KeyPair,
    PlayOrder,
    ShellTarget,
)
from provisioner.ports.hypervisor import CloneOrder, Hypervisor
from provisioner.ports.store import Audit, LabStore

__all__ = [
    "Audit",
    "Clock",
    "CloneOrder",
    "Configurator",
    "Credentials",
    "Engine",
    "Flow",
    "GuestShell",
    "Hypervisor",
    "KeyPair",
    "LabStore",
    "PlayOrder",
    "ShellTarget",
    "Step",
    "Workflow",
]
