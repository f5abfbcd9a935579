"""What govmomi's vCenter simulator lacks, and a real vCenter and our simulator have.

A contract case that needs one of these says `@pytest.mark.needs("...")`, and is not tried there.
Each row proves itself: its probe asks a vCenter as any client does, without the code under test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from provisioner.model.observed import Connection
from tests.contract.hands import StockHand, read

ADDRESS_S = 5.0
PAUSE = threading.Event()


@dataclass(frozen=True)
class Lack:
    """One thing that is lacking: what happens instead, and a probe that finds it where it is."""

    instead: str
    is_there: Callable[[StockHand], bool]


def clones_are_linked(hand: StockHand) -> bool:
    (disk,) = hand.list_disks(hand.plant("probe"))
    return disk.backing.parent is not None


def clones_inherit_options(hand: StockHand) -> bool:
    source = hand.plant("probe")
    hand.set_option(source, "probe.key", "value")
    return "probe.key" in hand.get_options(hand.copy(source, "copy"))


def snapshots_make_child_disks(hand: StockHand) -> bool:
    moref = hand.plant("probe")
    (before,) = hand.list_disks(moref)
    hand.snapshot(moref, "probe")
    (after,) = hand.list_disks(moref)
    return bool(after.backing.fileName != before.backing.fileName)


def destroying_spares_detached_disks(hand: StockHand) -> bool:
    moref = hand.plant("probe")
    path = hand.attach_disk(moref)
    hand.detach_disk(moref, path)
    hand.remove(moref)
    return path in hand.list_files()


def guests_get_addresses(hand: StockHand) -> bool:
    moref = hand.plant("probe")
    hand.client.do(hand.refer(moref).PowerOnVM_Task())
    end_s = time.monotonic() + ADDRESS_S
    while time.monotonic() < end_s:
        nics = read(hand.client.content, hand.refer(moref), "guest.net")
        if any(nic.ipAddress for nic in nics or ()):
            return True
        PAUSE.wait(0.1)
    return False


def events_are_numbered(hand: StockHand) -> bool:
    hand.plant("probe")
    content = hand.client.content
    return read(content, content.eventManager, "latestEvent") is not None


def inaccessible_vms_show_nothing(hand: StockHand) -> bool:
    moref = hand.plant("probe")
    hand.lose(moref, Connection.INACCESSIBLE)
    return read(hand.client.content, hand.refer(moref), "config.extraConfig") is None


LACKS = {
    "linked clones": Lack(
        "a clone gets a full disk of its own, whatever its spec says", clones_are_linked
    ),
    "inherited options": Lack(
        "a clone starts with an empty extraConfig, not with its source's", clones_inherit_options
    ),
    "child disks": Lack(
        "a snapshot leaves the VM on the disk it was on", snapshots_make_child_disks
    ),
    "spared disks": Lack(
        "destroying a VM deletes its folder, with disks that were detached from it before",
        destroying_spares_detached_disks,
    ),
    "addresses": Lack("a VM that is on has no guest and no address", guests_get_addresses),
    "newest event": Lack(
        "it posts events, and never shows which is the newest", events_are_numbered
    ),
    "unreadable VMs": Lack(
        "an inaccessible VM shows its configuration all the same", inaccessible_vms_show_nothing
    ),
}
