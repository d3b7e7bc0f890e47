"""Reads EDN, Clojure's notation for data, as far as histories of operations use it.

`nil` is None; vectors, lists and sets are tuples, and maps dicts. Numbers and strings are Python's. Words (keywords,
symbols, `true` and `false`) stay words, so that `true` is not `1`. Of what has a tag the tag is left away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftkv.errors import InvalidArgument

DEPTH_MAX = 100

_TOKEN = re.compile(
    r"""(?P<space>(?:[\s,]|;[^\n]*)+)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<open>\#\{|[\[({])
    |(?P<close>[\])}])
    |(?P<discard>\#_)
    |(?P<tag>\#[A-Za-z][\w.*+!?<>=$%&|/:'-]*)
    |(?P<character>\\(?:newline|return|space|tab|u[0-9A-Fa-f]{4}|.))
    |(?P<number>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?[MN]?(?![\w.]))
    |(?P<word>(?!\d)[:\w.*+!?<>=$%&|/'-][\w.*+!?<>=$%&|/:'\#-]*)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Word(str):
    """A keyword, a symbol, `true` or `false`; not equal to a string of the same letters."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Word) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Word, str(self)))

    def __repr__(self) -> str:
        return str(self)


class NotEDN(InvalidArgument):
    """A text is not EDN; tells the line."""


class Placed(NamedTuple):
    """A value, and the line on which it begins."""

    line: int
    value: Any


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def read_edn(text: str) -> Iterator[Placed]:
    """The values of a text one after the other; those of a single vector or list around all of them are given singly.

    Raises `NotEDN`.
    """
    tokens = _tokens(text)
    reader = _Reader(tokens)
    first = next(tokens, None)
    if first is not None and first.text in ("[", "("):
        yield from reader.items(first)
        first = next(tokens, None)
    while first is not None:
        found = reader.value(first)
        if found is not None:
            yield found
        first = next(tokens, None)


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a string without an end" if text[at] == '"' else f"{text[at]!r}"
            raise NotEDN(f"line {line}: {what} is no EDN")
        kind, token = str(match.lastgroup), match[0]
        if kind != "space":
            yield _Token(kind, token, line)
        line += token.count("\n")
        at = match.end()


class _Reader:
    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._depth = 0

    def value(self, token: _Token) -> Placed | None:
        """The value that begins with a token; None if it is to be ignored."""
        match token.kind:
            case "string":
                value: Any = re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", _unescaped, token.text[1:-1], flags=re.DOTALL)
            case "number":
                value = _number(token)
            case "word" | "character":
                value = None if token.text == "nil" else Word(token.text)
            case "open" if token.text == "{":
                value = self._map(token)
            case "open":
                value = tuple(each.value for each in self.items(token))
            case "tag":
                return Placed(token.line, self._following(token).value)
            case "discard":
                self._following(token)
                return None
            case _:
                raise NotEDN(f"line {token.line}: nothing is open that {token.text} could close")
        return Placed(token.line, value)

    def items(self, opening: _Token) -> Iterator[Placed]:
        """The values up to what closes `opening`."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise NotEDN(f"line {opening.line}: more than {DEPTH_MAX} brackets are open")
        closing = _CLOSING[opening.text]
        for token in self._tokens:
            if token.kind == "close":
                if token.text != closing:
                    raise NotEDN(f"line {token.line}: {token.text} where {closing} should close line {opening.line}")
                self._depth -= 1
                return
            found = self.value(token)
            if found is not None:
                yield found
        raise NotEDN(f"line {opening.line}: {opening.text} is never closed")

    def _map(self, opening: _Token) -> dict[Any, Any]:
        items = [each.value for each in self.items(opening)]
        if len(items) % 2:
            raise NotEDN(f"line {opening.line}: a map has a key without a value")
        try:
            return dict(zip(items[::2], items[1::2], strict=True))
        except TypeError as exc:
            raise NotEDN(f"line {opening.line}: a map as the key of a map can't be read") from exc

    def _following(self, before: _Token) -> Placed:
        self._depth += 1
        for token in self._tokens if self._depth <= DEPTH_MAX else ():
            found = self.value(token)
            if found is not None:
                self._depth -= 1
                return found
        raise NotEDN(f"line {before.line}: nothing follows {before.text}")


def _number(token: _Token) -> int | float:
    text = token.text.rstrip("MN")
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError as exc:
        raise NotEDN(f"line {token.line}: a number of {len(text)} digits is too long") from exc


def _unescaped(match: re.Match[str]) -> str:
    text = match[1]
    return chr(int(text[1:], 16)) if len(text) == 5 else _ESCAPES.get(text, text)
