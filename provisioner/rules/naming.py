"""Names: from what a person wrote to what guests, VMs and files are called.

Every name that reaches vCenter, Ansible, a shell or a path is built here, from parts that were
checked here. Nothing is repaired beyond the one rule of `build_login`; anything else is refused.
"""

from __future__ import annotations

import re

from provisioner.errors import InputError

MAX_EMAIL = 254  # RFC 5321, 4.5.3.1.3
MAX_SHOWN = 60

_LOGIN = re.compile(r"[a-z][a-z0-9-]{0,22}[a-z0-9]")
_SHORT = re.compile(r"[a-z][a-z0-9]{0,11}")
_SLOT = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")
_LOCAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
_DOMAIN = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?"
)

_LOGIN_RULE = "2 to 24 of a-z, 0-9 and -, starting with a letter, not ending with -"

# Accounts and groups of Debian, of what labctl's roles install, and of labctl itself: a hire who
# got one would be somebody else on the guest.
_RESERVED = """
    adm admin administrator ansible audio avahi backup bin cdrom daemon debian dialout dip disk
    docker fax floppy ftp games gnats grafana guest input irc kmem kvm labctl list lp mail man
    messagebus minio mlflow netdev news nobody nogroup ntp operator plugdev polkitd postfix
    postgres prometheus proxy redis render root rtkit sasl seaweedfs sgx shadow src ssh sshd
    ssl-cert staff sudo sync sys syslog system systemd tape test toor tss tty ubuntu user users
    utmp uucp uuidd vcsa video voice vpxuser wheel www www-data
"""
RESERVED = frozenset(_RESERVED.split())
RESERVED_PREFIX = "systemd-"


def check_email(text: str) -> str:
    """Return an e-mail address as it was written, once it is one that is safe to pass on.

    Allowed: letters, digits and `. _ + -` before the @, and a domain of at least two parts.

    Raises:
        InputError: it is anything else.
    """
    local, at, domain = text.rpartition("@")
    fits = at and len(text) <= MAX_EMAIL and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain)
    if not fits:
        raise InputError(
            f"{_show(text)} is no e-mail address that labctl takes",
            hint="allowed: letters, digits and . _ + - before the @, then a domain: "
            "ana.silva@example.com",
        )
    return text


def build_login(email: str) -> str:
    """Build a hire's login from the e-mail address.

    The one rule: take what stands before the @, without `+` and what follows it, in lower case;
    every run of `.`, `_` and `-` becomes one `-`. So Ana.Silva+lab@example.com is ana-silva.

    Raises:
        InputError: the result is no login, or the name of an account that guests have already.
    """
    local = email.rpartition("@")[0]
    login = re.sub(r"[._-]+", "-", local.partition("+")[0].lower()).strip("-")
    return _check_login(login, f"the login of {_show(email)}")


def check_login(text: str) -> str:
    """Return a login that a person chose. Raises InputError when it cannot be one."""
    return _check_login(text, "the login")


def _check_login(login: str, what: str) -> str:
    if not _LOGIN.fullmatch(login):
        raise InputError(
            f"{what} would be {_show(login)}, and that is no login",
            hint=f"choose one with --login: {_LOGIN_RULE}",
        )
    if login in RESERVED or login.startswith(RESERVED_PREFIX):
        raise InputError(
            f"{what} would be {login}, a name that guests use themselves",
            hint="choose another one with --login",
        )
    return login


def build_lab_id(login: str, short: str) -> str:
    """Build a lab's id: the login and the blueprint's short name, such as `ana-mlops`.

    A short name has no hyphen, so two different pairs never make the same id.

    Raises:
        InputError: one of the two is not what it should be.
    """
    check_login(login)
    if not _SHORT.fullmatch(short):
        raise InputError(
            f"{_show(short)} is no short name of a blueprint",
            hint="allowed: 1 to 12 of a-z and 0-9, starting with a letter",
        )
    return f"{login}-{short}"


def check_lab_id(text: str) -> str:
    """Return a lab's id as it was written. Raises InputError when no lab can have it."""
    login, _, short = text.rpartition("-")
    if not (_LOGIN.fullmatch(login) and _SHORT.fullmatch(short)):
        raise InputError(
            f"{_show(text)} is no lab id",
            hint="a lab id is a login and a short name, such as ana-mlops: labctl list shows all",
        )
    return text


def build_vm_name(lab_id: str, slot: str) -> str:
    """Build a guest's VM name, which is its host name too: at most 58 of the 63 allowed.

    Raises:
        InputError: lab id or slot is not what it should be.
    """
    check_lab_id(lab_id)
    if not _SLOT.fullmatch(slot):
        raise InputError(
            f"{_show(slot)} is no slot",
            hint="allowed: 1 to 20 of a-z, 0-9 and -, starting with a letter",
        )
    return f"{lab_id}-{slot}"


def _show(text: str) -> str:
    """Show a name that may be hostile: on one line, escaped, cut."""
    return ascii(text[:MAX_SHOWN])
