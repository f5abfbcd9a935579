"""Ansible, through ansible-runner: one job, one child process, nothing left of it afterwards."""

from provisioner.converge.configurator import RunnerConfigurator

__all__ = ["RunnerConfigurator"]
