"""Which types may stand in tables, arguments and results."""

from __future__ import annotations

import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest

from raftkv.errors import MachineError
from raftkv.machine import StateMachine, query
from raftkv.machine.types import check_type

encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Text(enum.StrEnum):
    """Members are texts."""

    A = "a"


class NotText(enum.Enum):
    """Values are texts, members are none."""

    A = "a"


@pytest.mark.parametrize("key", [int, bytes, float, uuid.UUID, Literal["a", 1], str | int, NotText])
def test_dicts_without_an_order_are_a_mistake_of_the_class(key):
    """Their bytes would be in the order in which they were filled; one hears of it when the class is made, and not
    when a command is called."""
    with pytest.raises(MachineError, match=r"here: .* make its keys str, or use a list of pairs"):
        check_type(list[dict[key, int]], "here")
    with pytest.raises(TypeError, match="str keys"):
        encode(dict.fromkeys((b"a", uuid.UUID(int=0), 1, NotText.A), 1))


@pytest.mark.parametrize("key", [str, Any, Literal["a"], Text, Annotated[str, msgspec.Meta(min_length=1)]])
def test_dicts_of_text_have_an_order(key):
    """Also where only some texts may be keys; keys of any type are looked at when they are there."""
    check_type(dict[key, int], "here")
    assert encode({"b": 1, Text.A: 2}) == encode({Text.A: 2, "b": 1})


def test_the_class_is_told_where_it_is():
    """With file and line, when it is made: not by the node that is to run it."""
    with pytest.raises(MachineError, match=r"test_types.py:\d+: .*counts.*, result: a dict with keys of int"):

        class Counting(StateMachine):
            @query
            def counts(self) -> dict[int, int]:
                return {}
