"""The Engine port: what runs workflows."""

from provisioner.engine.in_process import InProcessEngine

__all__ = ["InProcessEngine"]
