"""labctl's own secrets on this machine: SSH keys of labs and trials, and who we are."""

from provisioner.credentials.installation import ensure_installation, get_installation
from provisioner.credentials.keys import FileCredentials

__all__ = ["FileCredentials", "ensure_installation", "get_installation"]
