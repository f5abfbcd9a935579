"""The words of validation are complete, and nothing of pydantic's own reaches IT."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from provisioner.errors import FileProblemsError, Problem
from provisioner.files.checks import CheckFile
from provisioner.files.validation import FORMATS, PATTERNS, WRONG, describe, load_model
from provisioner.files.yaml_source import parse_yaml
from provisioner.model.spec import Blueprint, Site, Stack
from tests.unit.project import read_base

MODELS: dict[str, type[BaseModel]] = {
    "blueprint": Blueprint,
    "site": Site,
    "stack": Stack,
    "checks": CheckFile,
}

# What each kind of core schema, and each of its constraints, can raise in strict JSON mode
# (pydantic 2.14, "Validation errors"). None: it only holds others.
RAISED: dict[str, dict[str, str] | None] = {
    "any": None,
    "default": None,
    "definitions": None,
    "definition-ref": None,
    "dict": {"": "dict_type", "min_length": "too_short"},
    "enum": {"": "enum"},
    "function-after": {"": "value_error"},
    "function-plain": {"": "value_error"},
    "int": {
        "": "int_type",
        "ge": "greater_than_equal",
        "le": "less_than_equal",
        "multiple_of": "multiple_of",
    },
    "is-instance": None,  # the branch for Python values, never taken
    "json-or-python": None,
    "lax-or-strict": None,
    "model": {"": "model_type"},
    "model-field": None,
    "model-fields": {"": "missing", "extra": "extra_forbidden"},
    "no-info": None,
    "nullable": None,
    "str": {
        "": "string_type",
        "pattern": "string_pattern_mismatch",
        "max_length": "string_too_long",
    },
    "tuple": {"": "tuple_type", "min_length": "too_short", "max_length": "too_long"},
    "union": None,
}
NO_CONSTRAINT = {
    "choices", "cls", "computed_fields", "config", "custom_error_message", "custom_error_type",
    "custom_init", "default", "fields", "function", "items_schema", "json_schema", "keys_schema",
    "lax_schema", "members", "metadata", "model_name", "python_schema", "ref", "root_model",
    "schema", "serialization", "strict", "strict_schema", "sub_type", "type", "values_schema",
    "variadic_item_index",
}  # fmt: skip


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a pydantic core schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for key, value in schema.items():
            if key not in ("metadata", "serialization"):
                yield from walk(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from walk(value)


def test_every_error_that_the_models_can_raise_has_words_and_no_other() -> None:
    raised = {"extra_forbidden"}  # Spec forbids extra keys; its config says so, not its schema
    for model in MODELS.values():
        assert model.model_config["extra"] == "forbid"
        for part in walk(model.__pydantic_core_schema__):
            errors = RAISED[part["type"]]
            constraints = set(part) - NO_CONSTRAINT
            if errors is None:
                assert not constraints, part
                continue
            assert constraints <= set(errors), part
            raised |= {errors[key] for key in ("", *constraints)}
    assert raised == set(WRONG)


def walk_leaves(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a JSON schema that has a type."""
    if isinstance(schema, dict):
        if "type" in schema and schema["type"] != "null":
            yield schema
        for value in schema.values():
            yield from walk_leaves(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from walk_leaves(value)


def test_every_value_has_words_for_what_is_allowed_and_no_word_is_idle() -> None:
    patterns, formats = set(), set()
    for model in MODELS.values():
        for leaf in walk_leaves(model.model_json_schema()):
            words = describe(leaf)
            assert words not in ("", "anything")
            assert "^" not in words, "a pattern is no word"
            patterns |= {leaf["pattern"]} if "pattern" in leaf else set()
            patterns |= set(leaf.get("patternProperties", ()))
            formats |= {leaf["format"]} if "format" in leaf else set()
    assert patterns == set(PATTERNS)
    assert formats == set(FORMATS)


BASES = {kind: yaml.safe_load(read_base(kind)) for kind in MODELS}
JUNK = st.sampled_from(
    [
        *(None, True, 0, -1, 2**63, 1.5, "", "x", "X y", "{{ x }}", "a\nb", "/a/b", "::1"),
        *([], ["x"], ["x"] * 30, {}, {"x": 1}, "x" * 300, "http://u:p@h/"),
    ]
).map(copy.deepcopy)


def find_spots(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries: Any = ()
    if isinstance(data, dict):
        entries = data.items()
    elif isinstance(data, list):
        entries = enumerate(data)
    for key, value in entries:
        yield (*path, key)
        yield from find_spots(value, (*path, key))


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, Any]:
    """A valid file with a few values replaced by junk, removed, or added."""
    kind = draw(st.sampled_from(sorted(MODELS)))
    data = copy.deepcopy(BASES[kind])
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(list(find_spots(data)) or [("x",)]))
        holder = data
        for key in parents:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[last] = draw(JUNK)
            case "remove" if last in holder or isinstance(holder, list):
                del holder[last]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "role", "Big Key"]))] = draw(JUNK)
    return kind, data


JARGON = ("Input should", "pydantic", "Value error", "Field required", "String should", "Tuple")


@given(spoiled())
def test_a_spoiled_file_gives_words_of_ours_with_places_inside_it(case: tuple[str, Any]) -> None:
    kind, data = case
    text = yaml.safe_dump(data, sort_keys=False)
    problems = find_problems(text, MODELS[kind])
    if not problems:
        MODELS[kind].model_validate_json(json.dumps(data), strict=True)
    lines = text.split("\n")
    for problem in problems:
        assert len(lines[problem.line - 1]) + 1 >= problem.column >= 1
        assert not [word for word in JARGON if word in problem.text]
        assert "\n" not in str(problem)


def find_problems(text: str, model: type[BaseModel]) -> tuple[Problem, ...]:
    try:
        load_model(parse_yaml("f", text.encode()), model)
    except FileProblemsError as error:
        return error.problems
    return ()


def find_error_types(data: Any, model: type[BaseModel]) -> set[str]:
    try:
        model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        return {fault["type"] for fault in error.errors()}
    return set()


@given(spoiled())
def test_the_kinds_of_error_are_those_of_the_table(case: tuple[str, Any]) -> None:
    kind, data = case
    assert find_error_types(data, MODELS[kind]) <= set(WRONG)


def test_a_value_is_never_repeated() -> None:
    text = read_base("site").replace("http://proxy", "http://ana:hunter2@proxy")
    with pytest.raises(FileProblemsError) as caught:
        load_model(parse_yaml("f", text.encode()), Site)
    assert "hunter2" not in str(caught.value)
