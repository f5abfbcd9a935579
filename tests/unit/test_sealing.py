from __future__ import annotations

import pytest

from provisioner.credentials.sealing import seal, unseal
from provisioner.errors import InputError

SECRET = b"the key of an installation"
SEALED = seal(SECRET, "correct horse")


def test_it_comes_back_with_the_passphrase() -> None:
    assert unseal(SEALED, "correct horse", "b") == SECRET
    assert unseal(seal(b"", "x"), "x", "b") == b""


def test_nothing_of_it_is_readable_and_no_two_are_alike() -> None:
    assert SECRET not in SEALED
    assert seal(SECRET, "correct horse")[len(b"labctl sealed 1\n") :] not in SEALED
    assert seal(SECRET, "correct horse") != SEALED


@pytest.mark.parametrize("passphrase", ["", "correct horse ", "Correct horse"])
def test_another_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(InputError, match="not the passphrase of b"):
        unseal(SEALED, passphrase, "b")


@pytest.mark.parametrize("at", range(len(b"labctl sealed 1\n"), len(SEALED), 7))
def test_a_changed_byte_is_seen_before_the_passphrase_is_doubted(at: int) -> None:
    changed = bytes([*SEALED[:at], SEALED[at] ^ 1, *SEALED[at + 1 :]])
    with pytest.raises(InputError, match="damaged"):
        unseal(changed, "correct horse", "b")


@pytest.mark.parametrize("length", [16, 17, 40, 60, len(SEALED) - 32, len(SEALED) - 1])
def test_a_part_of_it_is_seen_to_be_a_part(length: int) -> None:
    with pytest.raises(InputError, match="not whole"):
        unseal(SEALED[:length], "correct horse", "b")


@pytest.mark.parametrize("text", [b"", b"labctl", b"SQLite format 3\0", b"labctl sealed x\n"])
def test_what_is_no_backup_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(InputError, match="no backup"):
        unseal(text, "correct horse", "b")


def test_a_newer_version_is_named() -> None:
    with pytest.raises(InputError, match="newer labctl"):
        unseal(b"labctl sealed 2\n" + SEALED[16:], "correct horse", "b")


def test_somebody_who_mends_the_sum_still_needs_the_passphrase() -> None:
    import hashlib

    changed = bytes([*SEALED[:60], SEALED[60] ^ 1, *SEALED[61:-32]])
    with pytest.raises(InputError, match="not the passphrase"):
        unseal(changed + hashlib.sha256(changed).digest(), "correct horse", "b")


def test_an_empty_passphrase_seals_nothing() -> None:
    with pytest.raises(InputError, match="empty"):
        seal(SECRET, "")
