"""SSH into guests with pinned host keys, on paramiko."""

import logging

from provisioner.shell.shell import ParamikoShell

# paramiko logs each refused connection with a traceback; what matters of it is in our errors.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

__all__ = ["ParamikoShell"]
