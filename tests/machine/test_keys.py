"""Keys: any type's order is its bytes' order, and nothing is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import MachineError
from raftkv.machine.keys import KeyCodec

text = st.text(max_size=4) | st.sampled_from(["", "\0", "a", "a\0", "a\0b", "ab"])
data = st.binary(max_size=4) | st.sampled_from([b"", b"\0", b"\0\xff", b"\xff", b"a\0"])
number = st.integers() | st.sampled_from([0, -1, 255, 256, -255, -256, -257, 2**64, -(2**64)])
KINDS = [
    (str, text),
    (bytes, data),
    (int, number),
    (tuple[str, int], st.tuples(text, number)),
    (tuple[int, bytes, str], st.tuples(number, data, text)),
    (tuple[bytes, bytes], st.tuples(data, data)),
]


@pytest.mark.parametrize(("kind", "keys"), KINDS, ids=[str(kind) for kind, _ in KINDS])
@given(draw=st.data())
def test_bytes_sort_as_keys_do(kind, keys, draw):
    """Of any two keys, the smaller one has the smaller bytes; and each comes back."""
    codec = KeyCodec(kind, "here")
    one, other = draw.draw(keys), draw.draw(keys)
    first, second = codec.encode(one), codec.encode(other)
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)
    assert codec.decode(first) == one


@pytest.mark.parametrize("kind", [float, list[int], tuple[int, ...], tuple[()], dict, tuple[str, float], bool])
def test_types_without_an_order_are_no_keys(kind):
    """The class says so when it is made, with the place in it."""
    with pytest.raises(MachineError, match="here"):
        KeyCodec(kind, "here")


@pytest.mark.parametrize(
    ("kind", "key"),
    [(str, b"a"), (bytes, "a"), (int, True), (int, "1"), (tuple[str, int], ("a",)), (tuple[str, int], ["a", 1])],
)
def test_a_key_of_another_type_is_refused(kind, key):
    """No key is taken for one of another type that happens to have the same bytes."""
    with pytest.raises(TypeError):
        KeyCodec(kind, "here").encode(key)


def test_an_int_too_large_for_its_length_is_refused():
    """A key that could not be read again is not written."""
    with pytest.raises(ValueError, match="too large"):
        KeyCodec(int, "here").encode(1 << 8 * 127)
