"""The Engine port: what runs workflows. The durable one is imported when it is first asked for."""

from typing import TYPE_CHECKING, Any

from provisioner.engine.in_process import InProcessEngine

if TYPE_CHECKING:
    from provisioner.engine.durable import DurableEngine

__all__ = ["DurableEngine", "InProcessEngine"]


def __getattr__(name: str) -> Any:
    if name != "DurableEngine":
        raise AttributeError(name)
    from provisioner.engine.durable import DurableEngine

    return DurableEngine
