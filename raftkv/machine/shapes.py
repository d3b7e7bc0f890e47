"""What nodes and clients do for classes that they do not have, of which they know the schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from raftkv.machine.grown import same_shape
from raftkv.machine.schema import Argument, Record, RecordField, Shape, describe
from raftkv.machine.shadows import checker, holds_record, pruner
from raftkv.machine.sparing import sparing

__all__ = ["fields_checker", "narrower", "sparing", "strict_decoder"]


def narrower(shape: Shape, records: dict[str, Record], own_type: Any) -> Callable[[bytes], bytes] | None:
    """What makes of an encoded value of `own_type` what a class with `shape` would have encoded.

    That raises `msgspec.ValidationError` for what such a class would refuse. None when there is nothing to do.
    Raises `InvalidArgument` when msgspec has no such type.
    """
    (own,), own_records = describe([own_type])
    if same_shape(shape, records, own, own_records):
        return None
    # Unless the class leaves out defaults, a field that is missing was missing in a dataclass when it was decoded:
    # msgspec does not set it to its default then, and so does not encode it, be the class the old one or the new.
    unfilled = [name for name, record in own_records.items() if not record.omits_defaults]
    return pruner(shape, records, unfilled=unfilled)


def strict_decoder(arguments: Sequence[Argument], records: dict[str, Record]) -> Callable[[Raw | bytes], None]:
    """Raises what msgspec raises unless an encoded list is what these arguments allow: the last ones may be missing
    when they have defaults, none is too many, and no record in them has a field that it lacks here, however deep.

    Raises `InvalidArgument` when msgspec has no such types.
    """
    fields = tuple(RecordField(each.name, each.shape, each.default is None, each.default) for each in arguments)
    # No class has this name, as it is not a word.
    listed = {**records, "(arguments)": Record("array", fields)}
    decode = checker(Shape("record", name="(arguments)"), listed, strict=True)

    def check(data: Raw | bytes) -> None:
        decode(data)

    return check


def fields_checker(arguments: Sequence[Argument], records: dict[str, Record]) -> Callable[[Raw | bytes], None] | None:
    """As `strict_decoder`, but None when no record is in the arguments: then decoding them is check enough."""
    return strict_decoder(arguments, records) if any(holds_record(each.shape) for each in arguments) else None
