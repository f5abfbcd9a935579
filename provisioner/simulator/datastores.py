"""Datastores: which files there are, how much room they leave, and the browser that lists them."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from provisioner.simulator.codec import project
from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import DERIVED, DatastoreFile, Record, World

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1024**3
DELTA_BYTES = 64 * 1024**2
"""What a new child disk takes before its guest writes to it."""
Browser = vim.host.DatastoreBrowser
_PATH = re.compile(r"\[([^\]]+)\] ?(.*)")


def split_path(path: str) -> tuple[str, str]:
    """Split ``[datastore] folder/file`` in its datastore's name and the rest.

    Raises:
        vim.fault.InvalidDatastorePath: not of that form.
    """
    found = _PATH.fullmatch(path)
    if found is None or ".." in found[2].split("/"):
        raise vim.fault.InvalidDatastorePath(datastorePath=path, msg=f"Invalid path {path!r}")
    return found[1], found[2]


def get_datastore(world: World, path: str) -> Any:
    """Return the datastore that a path names, or raise InvalidDatastorePath."""
    name, _ = split_path(path)
    for record in world.of_type(vim.Datastore):
        if record.props["name"] == name:
            return record
    message = f"Datastore '{name}' does not exist"
    raise vim.fault.InvalidDatastorePath(datastorePath=path, msg=message)


def add_file(world: World, path: str, file: DatastoreFile) -> str:
    """Make a file. Call it under the lock.

    Raises:
        vim.fault.FileAlreadyExists: there is one of that name.
        vim.fault.NoDiskSpace: it does not fit.
    """
    datastore = get_datastore(world, path)
    if path in world.files:
        raise vim.fault.FileAlreadyExists(file=path, msg=f"The file {path} already exists")
    if file.size_bytes > _summary(world, datastore).freeSpace:
        name = datastore.props["name"]
        message = f"Insufficient disk space on datastore '{name}'."
        raise vim.fault.NoDiskSpace(file=path, datastore=name, msg=message)
    world.files[path] = file
    world.touch(datastore)
    return path


def remove_files(world: World, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already do not matter. Call it under the lock."""
    for path in paths:
        if world.files.pop(path, None) is not None:
            world.touch(get_datastore(world, path))


def _summary(world: World, record: Record) -> Any:
    name, capacity = record.props["name"], int(world.settings.datastore_gib * GIB)
    sizes = (one.size_bytes for path, one in world.files.items() if split_path(path)[0] == name)
    return vim.Datastore.Summary(
        datastore=record.ref,
        name=name,
        url=f"ds:///vmfs/volumes/{name}/",
        capacity=capacity,
        freeSpace=max(0, capacity - sum(sizes)),
        accessible=True,
        multipleHostAccess=True,
        type="VMFS",
        maintenanceMode="normal",
    )


DERIVED[vim.Datastore, "summary"] = _summary
DERIVED[vim.Datastore, "info"] = lambda world, record: project(
    vim.host.VmfsDatastoreInfo, _summary(world, record)
)


def _search(run: TaskRun, *, deep: bool) -> list[Any]:
    """Return the results of a search, one for the folder asked for and each that has a match."""
    world, path = run.world, run.args.datastorePath.rstrip("/")
    asked = run.args.searchSpec or Browser.SearchSpec()
    patterns = asked.matchPattern or ["*"]
    with world.changed:
        datastore, (store, start) = get_datastore(world, path), split_path(path)
        split = [(*split_path(name), file) for name, file in world.files.items()]
    found = [(*rest.rpartition("/")[::2], file) for name, rest, file in split if name == store]
    if start and not any(f"{folder}/".startswith(f"{start}/") for folder, _, _ in found):
        raise vim.fault.FileNotFound(file=path, msg=f"File {path} was not found")
    folders: dict[str, list[Any]] = {start: []}
    for folder, base, file in found:
        inside = folder == start or (deep and (not start or folder.startswith(f"{start}/")))
        if inside and any(fnmatch.fnmatchcase(base, one) for one in patterns):
            kind = Browser.VmDiskInfo if base.endswith(".vmdk") else Browser.FileInfo
            details = {"fileSize": file.size_bytes, "modification": file.made_at}
            told = {n: one for n, one in details.items() if getattr(asked.details, n, False)}
            folders.setdefault(folder, []).append(kind(path=base, **told))
    return [
        Browser.SearchResults(
            datastore=datastore.ref, folderPath=f"[{store}] {folder}".strip(), file=files
        )
        for folder, files in folders.items()
    ]


@task(Browser, "SearchDatastore_Task", exclusive=False)
def _search_datastore(run: TaskRun) -> Any:
    return _search(run, deep=False)[0]


@task(Browser, "SearchDatastoreSubFolders_Task", exclusive=False)
def _search_datastore_sub_folders(run: TaskRun) -> Any:
    kind: Any = Browser.SearchResults
    return kind.Array(_search(run, deep=True))
