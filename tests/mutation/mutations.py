"""The small changes that can be made to a module: one comparison, number, condition, call or order of two at a time.

The operators are Cosmic Ray's; that a statement is left out, or two change places, is added. Only what functions do is
changed: not what is said (documentation, annotations, logs, the texts of errors and of assertions), and not what a
module does when it is imported, as a running process can be given other functions, but not another import.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.plugins import get_operator

OPERATORS = (
    *(f"ReplaceComparisonOperator_{name}" for name in (
        "Eq_NotEq", "Eq_GtE", "Eq_LtE", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE",
        "GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is",
    )),
    *(f"ReplaceBinaryOperator_{name}" for name in (
        "Add_Sub", "Sub_Add", "Mul_Add", "FloorDiv_Mul", "Div_Mul", "Mod_Add", "BitAnd_BitOr", "BitOr_BitAnd",
    )),
    "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_Delete_Not", "AddNot", "NumberReplacer", "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak", "ZeroIterationForLoop", "ExceptionReplacer",
)  # fmt: skip

SAYING = {"debug", "info", "warning", "error", "exception", "critical"}
"""Methods that write to a log."""

TELLING = {"__repr__", "__str__", "describe"}
"""Functions that only tell a reader something."""

Place = tuple[int, int]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change to one module."""

    path: str
    """Below the root, with slashes."""
    function: str
    """Qualified, the outermost one that the change lies in: a method, not what is defined inside it."""
    operator: str
    old: str
    new: str
    ordinal: int
    """Which one it is of those that are alike in all of the above."""
    lines: range
    """Those of the statement, or of its head: to reach one of them is to reach the change."""
    source: str
    """The whole module, changed."""

    @cached_property
    def key(self) -> str:
        """What it is called, wherever in its file its lines have moved to."""
        told = "\0".join((self.path, self.function, self.operator, self.old, self.new, str(self.ordinal)))
        return hashlib.sha256(told.encode()).hexdigest()[:10]

    def code(self) -> CodeType | None:
        """What the function is to run instead; None where the change is no Python."""
        try:
            module = compile(self.source, self.path, "exec", dont_inherit=True)
        except SyntaxError:
            return None
        return functions_in(module).get(self.function)


def functions_in(code: CodeType) -> dict[str, CodeType]:
    """The code of the functions of a module and of its classes, by qualified name; the last one of a name counts."""
    found: dict[str, CodeType] = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            is_function = inner.co_flags & 0x2  # CO_NEWLOCALS: what a class's body does not have
            found |= {inner.co_qualname: inner} if is_function else functions_in(inner)
    return found


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """All changes to one module, in the order of its lines."""
    source = (root / path).read_text()
    module = Module(source)
    found = []
    alike: Counter[tuple[str, ...]] = Counter()
    changes = [*of_operators(source), *left_out(source, module), *exchanged(source, module)]
    for place, operator, changed in sorted(changes):
        function = module.function_at(place)
        if function is None or module.is_told(place):
            continue
        old, new = difference(source, changed)
        if "not not" in new:
            continue  # the same as one "not" less, which is another of the changes
        told = (function, operator, old, new)
        mutant = Mutant(
            path=path, function=function, operator=operator, old=old, new=new, ordinal=alike[told],
            lines=module.statement_at(place), source=changed,
        )  # fmt: skip
        alike[told] += 1
        found.append(mutant)
    return found


def difference(old: str, new: str) -> tuple[str, str]:
    """The lines that differ, as one each, without what is alike before and after them."""
    ours, theirs = old.splitlines(), new.splitlines()
    first = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
    ends = zip(reversed(ours), reversed(theirs), strict=False)
    last = next((i for i, pair in enumerate(ends) if pair[0] != pair[1]), 0)
    return in_one(ours[first : len(ours) - last]), in_one(theirs[first : len(theirs) - last])


def in_one(lines: list[str]) -> str:
    """Lines as one."""
    return " ⏎ ".join(filter(None, map(str.strip, lines)))


class Module:
    """Where in a module the functions are, and what in it is only said."""

    def __init__(self, source: str) -> None:
        self._functions: list[tuple[Place, Place, str]] = []
        self._told: list[tuple[Place, Place]] = []
        self._statements: list[tuple[Place, Place, range]] = []
        self.functions: list[Function] = []
        tree = ast.parse(source)
        self._enter(tree.body, "")
        for node in ast.walk(tree):
            self._told += [span(part) for part in said_in(node)]
            if isinstance(node, ast.stmt):
                self._statements.append((*span(node), lines_of(node)))

    def _enter(self, body: list[ast.stmt], above: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                self._enter(node.body, f"{above}{node.name}.")
            elif isinstance(node, Function) and node.name not in TELLING:
                begin, end = span(node.body[0])[0], span(node)[1]
                self._functions.append((begin, end, above + node.name))
                self.functions.append(node)

    def function_at(self, place: Place) -> str | None:
        """The outermost function whose body `place` lies in."""
        return next((name for begin, end, name in self._functions if begin <= place < end), None)

    def is_told(self, place: Place) -> bool:
        """Whether what stands at `place` is for readers only."""
        return any(begin <= place < end for begin, end in self._told)

    def statement_at(self, place: Place) -> range:
        """The lines of the innermost statement, or of its head."""
        around = [(begin, lines) for begin, end, lines in self._statements if begin <= place < end]
        return max(around, key=lambda each: each[0])[1]


def span(node: Any) -> tuple[Place, Place]:
    """From its first character to past its last, as lines and characters."""
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def lines_of(node: ast.stmt) -> range:
    """Of a compound statement, only those of its head."""
    body = getattr(node, "body", None)
    return range(node.lineno, (max(node.lineno + 1, body[0].lineno) if body else (node.end_lineno or 0) + 1))


def said_in(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of `node` that nothing but a reader takes notice of."""
    match node:
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from [node.returns] if node.returns else []
            yield from (default for default in [*node.args.defaults, *node.args.kw_defaults] if default)
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Assert():
            yield node
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))) if name in SAYING:
            yield node
        case ast.Raise(exc=ast.Call(args=arguments)):
            yield from arguments
        case ast.Call(func=ast.Name(id="cast" | "isinstance" | "NewType"), args=[kind, *_]):
            yield kind
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield node


Change = tuple[Place, str, str]


def of_operators(source: str) -> Iterator[Change]:
    """Cosmic Ray's changes: each place, the operator's name and the whole text."""
    starts = starts_of(source)
    operators = [(name, get_operator(f"core/{name}")()) for name in OPERATORS]
    for node in ast_nodes(get_ast(source)):
        for name, operator in operators:
            for index, (place, _) in enumerate(operator.mutation_positions(node)):
                whole = (node.get_start_pos_of_prefix(), node.end_pos)
                begin, end = (starts[line - 1] + column for line, column in whole)
                alone = copy.deepcopy(node, {id(node.parent): node.parent})
                try:
                    changed = operator.mutate(alone, index)
                except AttributeError:
                    continue  # the operator knows only plain names among several exceptions
                text = source[:begin] + (changed.get_code() if changed else "") + source[end:]
                yield place, name, text


def left_out(source: str, module: Module) -> Iterator[Change]:
    """Every call whose result nobody wants, every assignment to a field or an element, every raise: not made."""
    for node in (node for function in module.functions for node in ast.walk(function)):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.stmt) and is_effect(node)):
            yield span(node)[0], "LeaveOut", replaced(source, node, "pass")


def exchanged(source: str, module: Module) -> Iterator[Change]:
    """Every two such statements in a row, the other way round: at least one call, and not in a constructor."""
    functions = (function for function in module.functions if function.name != "__init__")
    for node in (node for function in functions for node in ast.walk(function)):
        for body in (getattr(node, "body", []), getattr(node, "orelse", []), getattr(node, "finalbody", [])):
            if isinstance(body, list):
                for first, second in pairwise(body):
                    if is_effect(first) and is_effect(second) and ast.Expr in (type(first), type(second)):
                        texts = [ast.get_source_segment(source, each) or "" for each in (first, second)]
                        yield span(first)[0], "Exchange", replaced(replaced(source, second, texts[0]), first, texts[1])


def is_effect(node: ast.stmt) -> bool:
    """Whether the statement does something to others, and is not a line of a log."""
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()):
            return not list(said_in(node))
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign() | ast.Delete():
            return True
    return False


def replaced(source: str, node: ast.stmt, text: str) -> str:
    """The source with other text for a statement, and as many lines as before."""
    starts = starts_of(source)
    lines = source.splitlines()
    (top, left), (bottom, right) = span(node)
    left, right = (len(lines[line - 1].encode()[:column].decode()) for line, column in ((top, left), (bottom, right)))
    return source[: starts[top - 1] + left] + text + source[starts[bottom - 1] + right :]


def starts_of(source: str) -> list[int]:
    """Where each line begins."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts
