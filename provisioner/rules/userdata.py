"""What a guest is told at its first boot, and what it tells in return.

cloud-init's VMware datasource reads `guestinfo.metadata` and `guestinfo.userdata`. Whoever may
read the VM in vCenter may read them: nothing in them is secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import shlex

from provisioner.errors import CredentialError
from provisioner.model.lab import GuestIdentity
from provisioner.rules.ssh import ADMIN_USER

HOST_KEY_INFO = "guestinfo.labctl.hostkey"

# Tools may start after cloud-init; two seconds between two tries, five minutes in all.
_PUBLISH = """\
key=$(cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub) || exit 1
word="info-set {name} {nonce} $key"
for _ in $(seq 150); do
    vmware-rpctool "$word" && exit 0
    vmtoolsd --cmd "$word" && exit 0
    sleep 2
done
echo 'VMware Tools did not take the host key' >&2
exit 1
"""


def build_guestinfo(
    identity: GuestIdentity,
    vm_name: str,
    *,
    admin_public_key: str,
    nonce: str,
) -> tuple[tuple[str, str], ...]:
    """Build the guestinfo keys of a clone; the same arguments always give the same bytes.

    The guest makes one ed25519 host key at its first boot and publishes its public half together
    with `nonce` as HOST_KEY_INFO. Its only account takes only `admin_public_key`.

    Source: cloud-init's documentation of DataSourceVMware (keys and their `.encoding`).
    """
    metadata = {
        "instance-id": (
            f"{identity.lab_id}-{identity.generation}-{identity.slot}-{identity.instance_uuid}"
        ),
        "local-hostname": vm_name,
    }
    publish = _PUBLISH.format(name=HOST_KEY_INFO, nonce=shlex.quote(nonce))
    userdata = {
        "disable_root": True,
        "locale": False,  # the role sets it; here it fails where the template lacks `locales`
        "manage_etc_hosts": "localhost",  # sudo looks its own host name up
        "runcmd": [
            # Locked as "!" the account would be refused where the template's sshd has UsePAM no.
            ["usermod", "--password", "*", ADMIN_USER],
            ["sh", "-c", publish],  # runcmd runs at the first boot of an instance-id only
        ],
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
        "ssh_pwauth": False,
        "users": [
            {
                "gecos": "labctl, which looks after this guest",
                "lock_passwd": True,
                "name": ADMIN_USER,
                "shell": "/bin/bash",
                "ssh_authorized_keys": [admin_public_key],
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
            }
        ],
    }
    # JSON is YAML: no quoting rules of our own.
    return (
        ("guestinfo.metadata", _encode(json.dumps(metadata))),
        ("guestinfo.metadata.encoding", "base64"),
        ("guestinfo.userdata", _encode("#cloud-config\n" + json.dumps(userdata, indent=1) + "\n")),
        ("guestinfo.userdata.encoding", "base64"),
    )


def parse_published_host_key(text: str, nonce: str) -> str:
    """Return the host key that a guest published, as `ssh-ed25519 AAAA...`.

    Raises CredentialError when the text is not `nonce`, the type and a well-formed ed25519 key.
    """
    found = re.fullmatch(r"(\S{1,200}) ssh-ed25519 ([A-Za-z0-9+/]{68})", text.strip(" \n"))
    if found is None:
        raise _refused("it is not one ed25519 key with its nonce")
    if not hmac.compare_digest(found[1].encode(), nonce.encode()):
        raise _refused("it carries another nonce than the one this guest was given")
    if not _is_ed25519(found[2]):
        raise _refused("its ed25519 key is malformed")
    return f"ssh-ed25519 {found[2]}"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _is_ed25519(encoded: str) -> bool:
    """Tell whether this is RFC 8709's form: the type's name and 32 bytes, each with its length."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    head = len(b"ssh-ed25519").to_bytes(4) + b"ssh-ed25519" + (32).to_bytes(4)
    return blob.startswith(head) and len(blob) == len(head) + 32


def _refused(why: str) -> CredentialError:
    return CredentialError(
        f"the host key that the guest published cannot be trusted: {why}",
        hint="tear the lab down and provision it again; if it stays so, look at the VM in vCenter",
    )
