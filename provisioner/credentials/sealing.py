"""Sealing with a passphrase: what leaves this machine can be read by who knows it, and nobody else.

A sealed text is the line `labctl sealed 1`, a salt, a nonce, what AES-256-GCM made of the text
with a key that scrypt made of the passphrase, and a SHA-256 over all before. The sum is no proof;
it tells a damaged file from a wrong passphrase.
"""

from __future__ import annotations

import hashlib
import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from provisioner.errors import InputError

VERSION = 1
_HEAD = f"labctl sealed {VERSION}\n".encode()
_ANY_HEAD = re.compile(rb"labctl sealed (\d{1,9})\n")
_SALT_BYTES = 16
_NONCE_BYTES = 12
_SUM_BYTES = 32
_KEY_BYTES = 32
# 128 MiB and about half a second for each guess. RFC 7914 names the three.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**17, 8, 1


def seal(data: bytes, passphrase: str) -> bytes:
    """Seal data. Raises InputError when the passphrase is empty."""
    if not passphrase:
        raise InputError("the passphrase is empty", hint="choose a long one, and keep it elsewhere")
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    body = AESGCM(_derive(passphrase, salt)).encrypt(nonce, data, _HEAD)
    sealed = _HEAD + salt + nonce + body
    return sealed + hashlib.sha256(sealed).digest()


def unseal(sealed: bytes, passphrase: str, what: str) -> bytes:
    """Return what was sealed.

    Args:
        sealed: what `seal` returned.
        passphrase: the same.
        what: what the error calls it, such as a file's name.

    Raises:
        InputError: it is nothing sealed, sealed by a newer labctl, damaged or not whole, or the
            passphrase is wrong.
    """
    head = _ANY_HEAD.match(sealed)
    if head is None:
        raise InputError(f"{what} is no backup of labctl")
    if int(head[1]) != VERSION:
        raise InputError(f"{what} was written by a newer labctl", hint="use that one to restore it")
    whole, found = sealed[:-_SUM_BYTES], sealed[-_SUM_BYTES:]
    if hashlib.sha256(whole).digest() != found:
        raise InputError(f"{what} is damaged, or not whole", hint="take another copy of it")
    at_nonce, at_body = len(_HEAD) + _SALT_BYTES, len(_HEAD) + _SALT_BYTES + _NONCE_BYTES
    key = _derive(passphrase, whole[len(_HEAD) : at_nonce])
    try:
        return AESGCM(key).decrypt(whole[at_nonce:at_body], whole[at_body:], _HEAD)
    except InvalidTag:
        raise InputError(
            f"this is not the passphrase of {what}", hint="nothing was changed; try again"
        ) from None


def _derive(passphrase: str, salt: bytes) -> bytes:
    kdf = Scrypt(salt=salt, length=_KEY_BYTES, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return kdf.derive(passphrase.encode())
