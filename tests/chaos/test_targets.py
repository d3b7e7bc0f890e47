"""The targets of the fuzzer, with hypothesis in its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.machine import Runner, payloads
from tests.chaos import targets
from tests.chaos.malformed import BOMBS, NEST, ODD
from tests.chaos.targets import TARGETS, seeds

HOSTILE = [*BOMBS, *ODD, *(NEST * depth for depth in (100, 700, 800, 900, 950, 980, 1100))]


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A true input with something else in the place of some of it."""
    data = draw(st.sampled_from(list(seeds(name))))
    at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    return data[:at] + draw(st.sampled_from([b"", *HOSTILE]) | st.binary(max_size=20)) + data[to:]


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_find_a_mistake(name: str) -> None:
    """Whatever stands where a frame, a message, a command or a query should be (fuzz, F75)."""

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=200) | damaged(name))
    def fuzz(data: bytes) -> None:
        TARGETS[name](data)

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_true_inputs_get_through(name: str) -> None:
    """Where a fuzzer begins matters: with what is right, and not refused in the first line."""
    for data in seeds(name):
        TARGETS[name](data)


def test_a_command_that_is_too_deep_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that lets it into the log costs its caller an answer; every node rejects it alike, at any depth."""

    let_in: list[int] = []

    def careless(runner: Runner, payload: bytes) -> None:
        payloads.decode_command(payload)
        let_in.append(len(payload))

    monkeypatch.setattr(targets.Runner, "check", careless)
    command = b"\x95\0\0\0\xa5*open"
    for depth in range(600, 1000, 5):
        TARGETS["commands"](command + NEST * depth + b"\0")
    assert max(let_in) > 700, "else the check would have refused all of them"
