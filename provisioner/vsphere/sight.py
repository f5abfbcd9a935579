"""The proof that what vCenter does not show is not there."""

from __future__ import annotations

import threading

from pyVmomi import vim

from provisioner.errors import RolledBackError
from provisioner.model.observed import Sight
from provisioner.vsphere.lookup import Place
from provisioner.vsphere.privileges import FOLDER, list_missing_privileges
from provisioner.vsphere.properties import build_spec
from provisioner.vsphere.session import Session


class Seeing:
    """Looks at what can be seen of a vCenter, and remembers how far its events were."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()

    def check(self, place: Place) -> Sight:
        """Ask which vCenter this is, how far its events are, what we may and what we see.

        Raises:
            RolledBackError: it showed newer events before.
        """
        uuid, event_key = self.read_event_key()
        return Sight(
            vcenter_uuid=uuid,
            event_key=event_key,
            missing_privileges=list_missing_privileges(self._session, place),
            missing_objects=place.problems,
        )

    def read_event_key(self) -> tuple[str, int]:
        """Read vCenter's instance UUID and its newest event's key, 0 when it shows no event.

        Raises:
            RolledBackError: it showed newer events before.
        """
        content = self._session.read_content()
        uuid = str(content.about.instanceUuid)
        spec = build_spec([content.eventManager], {vim.event.EventManager: ["latestEvent"]})
        events = self._session.retrieve("ask for the newest event", spec)
        event = events[0].values.get("latestEvent") if events else None
        if event is None:
            return uuid, 0
        with self._lock:
            newest = self._newest.get(uuid, 0)
            self._newest[uuid] = max(newest, int(event.key))
        if event.key < newest:
            raise RolledBackError(
                f"{self._session.title}: it was rolled back: its newest event is {event.key}, and"
                f" labctl saw {newest} before",
                hint="it may not show VMs that exist: compare its inventory with the ESXi hosts and"
                " datastores by hand, then start labctl's worker anew",
            )
        return uuid, int(event.key)


def find_blind_spot(session: Session, place: Place) -> str:
    """Say why VMs of labs may be there unseen; empty when they would be seen."""
    if "folder" not in place.placement:
        return f"{FOLDER} cannot be seen"
    missing = list_missing_privileges(session, place)
    unseen = [name for name in missing if name.startswith("System.") and name.endswith(FOLDER)]
    return f"the account lacks {unseen[0]}" if unseen else ""
