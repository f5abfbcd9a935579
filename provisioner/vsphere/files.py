"""What lies in folders of the site's datastores."""

from __future__ import annotations

from dataclasses import dataclass

from pyVmomi import vim

from provisioner.errors import NotFoundError
from provisioner.vsphere.lookup import Lookup
from provisioner.vsphere.properties import build_spec
from provisioner.vsphere.session import Session
from provisioner.vsphere.waiter import Waiter


@dataclass(frozen=True)
class Files:
    """Looks into folders of the site's datastores."""

    session: Session
    lookup: Lookup
    waiter: Waiter

    def find_names(self, store: str, folder: str, pattern: str) -> tuple[str, ...] | None:
        """List the files of a folder that match; None when there is no such folder.

        Raises:
            NotFoundError: the site has no such datastore, or it may not be looked into.
        """
        doing = f"look for [{store}] {folder}/{pattern}"
        ref = self.lookup.get_place().datastores.get(store)
        if ref is None:
            raise NotFoundError(f"datastore {store} is not one of the site's: it was not asked")
        readings = self.session.retrieve(doing, build_spec([ref], {vim.Datastore: ["browser"]}))
        if not readings or "browser" not in readings[0].values:
            raise NotFoundError(f"the files of datastore {store} cannot be seen")
        browser = readings[0].values["browser"]
        search = vim.host.DatastoreBrowser.SearchSpec(matchPattern=[pattern])
        with self.session.cannot(doing):
            task = browser.SearchDatastore_Task(
                datastorePath=f"[{store}] {folder}", searchSpec=search
            )
        try:
            result = self.waiter.wait_for_task(task, self.session.limits.search_s, doing)
        except NotFoundError as error:
            if not isinstance(error.__cause__, vim.fault.FileNotFound):
                raise
            return None
        return tuple(str(found.path) for found in result.file or ())
