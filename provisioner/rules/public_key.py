"""SSH public keys from people: what labctl accepts, in the one spelling it keeps."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from provisioner.errors import InputError

LIMIT_BYTES = 16 * 1024
# 3072 bits match ed25519's strength (NIST SP 800-57 part 1, table 2); OpenSSH stops at 16384.
RSA_BITS = range(3072, 16384 + 1)
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
PLAIN_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
ALLOWED = (
    "give the one line of a .pub file; allowed are ssh-ed25519, ecdsa-sha2-nistp256, -384 and "
    f"-521, ssh-rsa of {RSA_BITS[0]} bits or more, {SK_ED25519} and {SK_ECDSA}"
)
_ED25519_BYTES = 32
_UNCOMPRESSED = b"\x04"  # the only form of a curve point that SSH uses (RFC 5656, section 3.1)


def parse_public_key(text: str) -> str:
    """Parse one public key line and return it as `type base64`, without its comment.

    Accepted are the types of `ALLOWED`, spelled as in a `.pub` file; white space around the line
    does not matter. Raises InputError saying what is wrong; the text itself, which could be a
    private key pasted by mistake, is never repeated in it.
    """
    key_type, blob = _split(_check_shape(text))
    if key_type in (SK_ED25519, SK_ECDSA):
        return _spell(key_type, _parse_security_key(key_type, blob))
    # `cryptography` would take a security key for a plain one, so those never come here.
    try:
        key = load_ssh_public_key(f"{key_type} {base64.b64encode(blob).decode()}".encode())
    except (ValueError, UnsupportedAlgorithm, NotImplementedError) as error:
        # NotImplementedError: a compressed curve point, which OpenSSH refuses too
        raise _wrong(f"is no valid {key_type} key") from error
    if isinstance(key, RSAPublicKey) and key.key_size not in RSA_BITS:
        raise _wrong(
            f"is an RSA key of {key.key_size} bits, not of {RSA_BITS[0]} to {RSA_BITS[-1]}"
        )
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _wrong(what: str) -> InputError:
    return InputError(f"the public key {what}", hint=ALLOWED)


def _check_shape(text: str) -> str:
    """Return the key's line. Raises InputError when it is not exactly one harmless line."""
    if len(text) > LIMIT_BYTES or len(text.encode(errors="replace")) > LIMIT_BYTES:
        raise _wrong(f"is larger than {LIMIT_BYTES // 1024} kB")
    if "PRIVATE KEY" in text:
        raise InputError(
            "this is a private key, not a public one",
            hint="give the .pub file beside it, and make a new key if this one was sent around",
        )
    line = text.strip(" \t\r\n")
    if not line:
        raise _wrong("is empty")
    if "\n" in line:
        raise _wrong(f"has {line.count(chr(10)) + 1} lines, not one")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in line.replace("\t", " ")):
        raise _wrong("has control characters in it")
    return line


def _split(line: str) -> tuple[str, bytes]:
    words = re.split(r"[ \t]+", line, maxsplit=2)
    key_type = words[0]
    if key_type.endswith(("-cert-v01@openssh.com", "-cert-v00@openssh.com")):
        raise _wrong("is a certificate")
    if key_type == "ssh-dss":
        raise _wrong("is a DSA key, which OpenSSH no longer accepts")
    if key_type not in (*PLAIN_TYPES, SK_ED25519, SK_ECDSA):
        raise _wrong("does not begin with a key type that is allowed")
    if len(words) == 1:
        raise _wrong("ends after its type")
    try:
        return key_type, base64.b64decode(words[1].encode(), validate=True)
    except binascii.Error as error:
        raise _wrong("is not base64 after its type: a part was lost in copying") from error


def _parse_security_key(key_type: str, blob: bytes) -> bytes:
    """Check a security key's fields and return them (OpenSSH, PROTOCOL.u2f)."""
    broken = _wrong(f"is no valid {key_type} key")
    fields = _list_fields(blob)
    if not fields or fields[0] != key_type.encode():
        raise broken
    match fields[1:]:
        case [point, application] if key_type == SK_ED25519:
            if len(point) != _ED25519_BYTES:
                raise broken
            Ed25519PublicKey.from_public_bytes(point)
        case [b"nistp256", point, application] if key_type == SK_ECDSA:
            if not point.startswith(_UNCOMPRESSED):
                raise broken
            try:
                EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
            except ValueError as error:
                raise broken from error
        case _:
            raise broken
    if not re.fullmatch(rb"ssh:[!-~]*", application):
        raise broken
    return blob


def _list_fields(blob: bytes) -> list[bytes]:
    """Split a blob of length-prefixed strings; an empty list when it is not one."""
    fields, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4])
        if at + 4 > len(blob) or end > len(blob):
            return []
        fields.append(blob[at + 4 : end])
        at = end
    return fields


def _spell(key_type: str, blob: bytes) -> str:
    return f"{key_type} {base64.b64encode(blob).decode()}"
