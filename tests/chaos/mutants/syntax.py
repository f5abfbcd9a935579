"""Mutations by grammar: every place of a module where a known kind of fault can be put."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import cast

from tests.chaos.mutants.mutation import Mutation

FLIPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def list_mutations(file: str, text: str, tests: tuple[str, ...]) -> tuple[Mutation, ...]:
    """List every mutation of the functions of a module.

    Its name is function, kind and number within the function: a change of another function leaves
    it as it is.
    """
    lines = text.split("\n")
    starts = [0, *itertools.accumulate(len(line) + 1 for line in lines)]
    seen: Counter[str] = Counter()
    found = []
    for function, node in _walk_functions(ast.parse(text)):
        for kind, new in _mutate(node):
            old = ast.get_source_segment(text, node) or ""
            word = f"{file}::{function}::{kind}"
            seen[word] += 1
            before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
            at = starts[node.lineno - 1] + len(before)
            found.append(Mutation(f"{word}-{seen[word]}", file, old, new, tests, at))
    return tuple(found)


def choose(mutations: Iterable[Mutation], number: int, seed: int) -> tuple[Mutation, ...]:
    """Choose some, by seed and name: code that is added or changed elsewhere moves no choice."""

    def place(mutation: Mutation) -> bytes:
        return hashlib.sha256(f"{seed} {mutation.name}".encode()).digest()

    return tuple(sorted(mutations, key=place)[:number])


Place = tuple[str, ast.expr | ast.stmt]


def _walk_functions(tree: ast.Module) -> Iterator[Place]:
    """Yield the statements and expressions inside of functions, with the functions' names."""
    for top in tree.body:
        scopes = top.body if isinstance(top, ast.ClassDef) else [top]
        outer = f"{top.name}." if isinstance(top, ast.ClassDef) else ""
        for scope in scopes:
            if isinstance(scope, ast.FunctionDef):
                for statement in scope.body:
                    for node in _walk(statement):
                        yield f"{outer}{scope.name}", node


def _walk(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Walk in the order of the text; texts with values in them are messages and stay."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.arguments | ast.AnnAssign):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _mutate(node: ast.expr | ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the kinds of faults that fit a node, and its text with each."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in FLIPS:
        flipped = ast.Compare(
            node.left, [FLIPS[type(node.ops[0])](), *node.ops[1:]], node.comparators
        )
        yield "compare", f"({ast.unparse(flipped)})"
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and-or", f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "plus-one", str(node.value + 1)
        yield "minus-one", f"({node.value - 1})"
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield "return-none", "return None"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "no-call", "pass"


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and cast("object", value.value) is None
