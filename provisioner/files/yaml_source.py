"""YAML text to plain data, with the place of every key, and every fault of writing at once.

Stricter than YAML on purpose. What people misread is a problem instead of a surprise: `yes` and
`on` (truth values to YAML), `010` (eight), `1:30` (ninety), `2026-01-31` (a date), a key that is
written twice. Nothing is ever constructed but text, whole and decimal numbers, true, false,
nothing, lists and mappings with text as keys.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from provisioner.errors import FileProblemsError, Problem

KeyPath = tuple[str | int, ...]
Place = tuple[int, int]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 10_000
MAX_SHOWN_KEY = 60

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,17}\.[0-9]{0,17}([eE][-+]?[0-9]{1,3})?")
_QUOTE_IT = {
    "bool": "a word that YAML takes for true or false; write true or false, or put it in quotes",
    "int": "a number in a form that YAML misreads; write it in plain digits, or put it in quotes",
    "float": "a number in a form that YAML misreads; write it like 1.5, or put it in quotes",
    "timestamp": "a bare date; put it in quotes",
}
_ONLY_PLAIN = "a !tag; only text, numbers, true, false, lists and mappings can be used"
_NO_MERGE = "<< to merge keys in; write the keys out instead"
_ONLY_TEXT_KEYS = "a key that is no plain text; put text in quotes"
_BAD_TEXT = "a character that is no text; remove the escape that makes it"

# What the scanner and parser of PyYAML 6.0 say, and what it means to a person.
_SYNTAX = {
    "found character '\\t'": "a tab; indent with spaces only",
    "that cannot start any token": "a text that starts with this character; put it in quotes",
    "mapping values are not allowed": (
        "a colon that fits nowhere; mend the indentation, or put the text in quotes"
    ),
    "could not find expected ':'": "a line without `key: value` or `- entry`; add the colon",
    "expected <block end>": "the indentation does not fit the lines above; align it with them",
    "found undefined alias": "a *name without a &name before it; define it, or quote the text",
    "second occurrence": "the same &name twice; use another name",
    "but found another document": "a second document after ---; a file holds one",
    "expected the node content": "a value is missing here; write one, or put the text in quotes",
    "expected '<document start>'": "a second value where the file should end; remove it",
    "found unknown escape character": "an unknown \\ escape; write \\\\ or use single quotes",
}
# The same, where the place to look at is where something was opened.
_UNCLOSED = {
    "found unexpected end of stream": "a quote is opened here and never closed; close it",
    "expected ',' or": "a [ or { is opened here and not closed; close it, and put commas between",
}


@dataclass(frozen=True)
class YamlSource:
    """One file as plain data, where its keys are, and what is wrong with its writing.

    `places` maps the path of every key and list entry to its line and column, from 1.
    `spoiled` are the paths whose value stands in for something that could not be read.
    """

    file: str
    data: Any
    places: Mapping[KeyPath, Place]
    problems: tuple[Problem, ...]
    spoiled: frozenset[KeyPath]

    def problem(self, path: KeyPath, text: str) -> Problem:
        """Build a problem at the place of `path`, or of the nearest thing that holds it."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        line, column = self.places.get(known, (1, 1))
        return Problem(self.file, line, column, show_path(path), text)

    def walk(self, *pattern: str) -> Iterator[tuple[KeyPath, str]]:
        """Yield path and value of every text at `pattern`; `*` stands for any key or entry."""
        yield from _walk(self.data, pattern, ())


def _walk(data: Any, pattern: tuple[str, ...], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if not pattern:
        if isinstance(data, str):
            yield path, data
        return
    entries: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(data, dict):
        entries = iter(data.items())
    elif isinstance(data, list):
        entries = iter(enumerate(data))
    for key, value in entries:
        if pattern[0] in ("*", key):
            yield from _walk(value, pattern[1:], (*path, key))


def show_path(path: KeyPath) -> str:
    """Write a key path like `guests[0].networks[1]`; hostile keys are escaped and cut."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
            continue
        plain = re.fullmatch(r"[A-Za-z0-9_.-]+", part)
        name = (part if plain else ascii(part))[:MAX_SHOWN_KEY]
        shown += f".{name}" if shown else name
    return shown


def show_file(path: Path) -> str:
    """Write a file's path as short as it is clear: from the current folder when it is below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file. Raises FileProblemsError when it cannot be read as YAML at all."""
    file = show_file(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror}; put the file there, readable for this user"
        raise FileProblemsError((Problem(file, 1, 1, "", text),)) from error
    return parse_yaml(file, raw)


def parse_yaml(file: str, raw: bytes) -> YamlSource:
    """Parse the bytes of a file.

    Faults that still let the rest be read are kept as `problems` of the result, so that they are
    reported together with everything else.

    Raises:
        FileProblemsError: it is no YAML mapping, too large, too deep, or not UTF-8.
    """
    text, lines = _decode(file, raw)
    builder = _Builder(lines)
    try:
        node = _compose(text, lines)
        data = builder.build(node, ())
    except yaml.MarkedYAMLError as error:
        raise lines.fault(*_explain(error)) from error
    except ReaderError as error:
        raise lines.fault(error.position, "an invisible control character; remove it") from error
    if not isinstance(data, dict):
        raise lines.fault(node.start_mark.index, "no `key: value` lines; the file must hold keys")
    return YamlSource(
        file, data, builder.places, tuple(builder.problems), frozenset(builder.spoiled)
    )


def _compose(text: str, lines: _Lines) -> yaml.Node:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except (ValueError, OverflowError) as error:  # chr() of an escape beyond Unicode
        raise lines.fault(loader.get_mark().index, _BAD_TEXT) from error
    if node is None:
        raise lines.fault(0, "the file is empty; at least one `key: value` is needed")
    return node


class _Lines:
    """Turns an index into the text into line and column as an editor counts them."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.length = len(text)
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, index: int) -> Place:
        index = min(max(index, 0), self.length)
        line = bisect_right(self.starts, index)
        return line, index - self.starts[line - 1] + 1

    def fault(self, index: int, text: str) -> FileProblemsError:
        return FileProblemsError((Problem(self.file, *self.place(index), "", text),))


def _decode(file: str, raw: bytes) -> tuple[str, _Lines]:
    if len(raw) > MAX_BYTES:
        raise _Lines(file, "").fault(0, f"too large; allowed: {MAX_BYTES // 1024} KiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        raise _Lines(file, before).fault(
            len(before), "a byte that is not UTF-8; save the file as UTF-8"
        ) from error
    return text, _Lines(file, text)


def _explain(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """Say where a syntax error is and what it means."""
    said, mark = str(error.problem), error.problem_mark or error.context_mark
    for part, meaning in _UNCLOSED.items():
        if part in said and error.context_mark:
            return error.context_mark.index, meaning
    index = mark.index if mark else 0
    if isinstance(error, _LimitError):
        return index, said
    meanings = (meaning for part, meaning in _SYNTAX.items() if part in said)
    return index, next(meanings, f"not YAML: {said}")


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with a limit on depth and size, before anything is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs
        self.depth += 1
        self.count += 1
        _limit(self.depth, self.count, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _LimitError(yaml.MarkedYAMLError):
    """A file goes over a limit."""


def _limit(depth: int, count: int, mark: Any) -> None:
    if depth > MAX_DEPTH:
        raise _LimitError(None, None, f"nested too deep; allowed: {MAX_DEPTH} levels", mark)
    if count > MAX_NODES:
        raise _LimitError(None, None, f"too many entries; allowed: {MAX_NODES} in all", mark)


@dataclass
class _Builder:
    """Builds plain data from nodes; goes on after a fault so that all are found."""

    lines: _Lines
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    spoiled: set[KeyPath] = field(default_factory=set)
    count: int = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        # Counted again here: an alias stands for all that its anchor holds.
        self.count += 1
        _limit(len(path), self.count, node.start_mark)
        self.places.setdefault(path, self.lines.place(node.start_mark.index))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, kind, path)
        return self._spoil(node, path, _ONLY_PLAIN)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            place = self.lines.place(key_node.start_mark.index)
            if key in data:
                first = self.places[*path, key][0]
                self._fault(place, (*path, key), f"written twice, first in line {first}; keep one")
                continue
            self.places[*path, key] = place
            data[key] = self.build(value_node, (*path, key))
        return data

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        place = self.lines.place(node.start_mark.index)
        kind = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode) or kind not in ("str", "value"):
            merge = kind == "merge"
            self._fault(place, path, _NO_MERGE if merge else _ONLY_TEXT_KEYS)
            return None
        if not _is_text(node.value):
            self._fault(place, path, _BAD_TEXT)
            return None
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, kind: str, path: KeyPath) -> Any:
        text = str(node.value)
        match kind:
            case "str" | "value":
                return text if _is_text(text) else self._spoil(node, path, _BAD_TEXT)
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INT.fullmatch(text):
                return int(text)
            case "float" if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
                return float(text)
        return self._spoil(node, path, _QUOTE_IT.get(kind, _ONLY_PLAIN))

    def _spoil(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.spoiled.add(path)
        self._fault(self.lines.place(node.start_mark.index), path, text)

    def _fault(self, place: Place, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(self.lines.file, *place, show_path(path), text))


def _is_text(text: str) -> bool:
    """Tell whether it is whole Unicode: YAML's escapes can make half a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
