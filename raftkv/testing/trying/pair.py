"""Two classes that are versions of one application: whether they are, and how each makes the same call."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument, SchemaChanged, WrongVersion
from raftkv.machine import Activation, Active, Founding, Kept, Method, StateMachine, encode_change, encode_schema
from raftkv.machine.grown import Difference, changed, not_grown
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.judging.models import UnfitModel
from raftkv.testing.trying.script import Call, Script, kinds_in, listed

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def check_versions(old: type[StateMachine], new: type[StateMachine]) -> None:
    """Raises `UnfitModel` unless `new` may be a later version of `old`."""
    for machine in (old, new):
        if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
            raise UnfitModel(f"{machine!r} can't be tested: it must be a class made from StateMachine")
    if old is new:
        raise UnfitModel(
            f"{old.__name__} is given twice: keep the released class in a module of its own, and name both"
        )
    if old.__name__ != new.__name__:
        raise UnfitModel(
            f"{old.__name__} and {new.__name__} are two applications: a node knows its own by the class's name. Give "
            "both one name, in modules of their own (`from shop_v1 import Shop as OldShop`)"
        )
    if new.version < old.version:
        raise UnfitModel(f"the first class is of version {old.version}, the second of {new.version}: exchange them")


def require_grown(old: type[StateMachine], new: type[StateMachine]) -> None:
    """Raises `CounterExample` with all that keeps a node of class `new` from running the version of `old`."""
    is_same = old.version == new.version
    try:
        if old.version >= new.oldest_version:
            found: list[Difference] = (changed if is_same else not_grown)(old.schema(), new.schema(old.version))
            if found:
                lines = [f"- {difference}" for difference in found]
                text = f"version {new.version} of {new.__name__} can't take the place of version {old.version}:"
                raise CounterExample(Cause.GREW_APART, "\n".join([text, *lines]))
        Active.of(new, Kept(old.version, encode_schema(old.schema())))
    except (WrongVersion, SchemaChanged, InvalidArgument) as exc:
        raise CounterExample(Cause.GREW_APART, str(exc)) from exc


def founding(machine: type[StateMachine]) -> bytes:
    """The payload with which a state begins in the machine's version."""
    return encode_change(Founding(machine.version, encode_schema(machine.schema())))


def activation(machine: type[StateMachine]) -> Activation:
    """What makes the machine's version active."""
    return Activation(machine.version, encode_schema(machine.schema()))


def spoken(old: type[StateMachine], new: type[StateMachine], call: Call) -> tuple[Any, ...] | None:
    """The arguments with which a client of the class `old` makes a call of `new`, without what `old` has no words for;
    None when it can't."""
    method = old.methods.get(call.name)
    if method is None or call.name not in new.methods:
        return None
    args = call.args[: len(method.types)]
    try:
        full = _encoder.encode(list(args))
        return method.decode_args(msgspec.Raw(full))
    except InvalidArgument:
        return None


def says_nothing_new(old: type[StateMachine], new: type[StateMachine], call: Call) -> bool:
    """Whether a client of the class `old` can make a call of `new` without leaving anything out."""
    args = spoken(old, new, call)
    if args is None:
        return False
    encoded = old.methods[call.name].encode_args(args, {})
    return new.methods[call.name].decode_args(msgspec.Raw(encoded)) == call.args


def speaker(old: type[StateMachine], new: type[StateMachine], call: Call) -> type[StateMachine]:
    """The class of the client that makes a call."""
    return old if call.client % 2 and call.name in old.methods else new


def method_of_call(old: type[StateMachine], new: type[StateMachine], call: Call) -> Method:
    """As the client knows it. Raises `InvalidArgument` when its class has no such command or query."""
    method = speaker(old, new, call).methods.get(call.name)
    if method is None:
        raise InvalidArgument(f"neither version of {new.__name__} has a command or query {call.name!r}")
    return method


def program(old: type[StateMachine], new: type[StateMachine], script: Script, *, shows_pieces: bool) -> str:
    """A program that runs `script` again. Classes that can't be imported are named as they are called in it."""
    used = ["Call"] if script.calls else []
    used += ["Fault"] if script.faults else []
    lines = [f"from raftkv.testing import {', '.join([*used, 'rerun_upgrade'])}"]
    lines += [_import(old, "Old"), _import(new, "New")]
    lines += sorted({_import(kind, kind.__name__) for kind in kinds_in([call.args for call in script.calls])})
    body = ["    Old,", "    New,", f"    seed={script.seed},"]
    if script.size != Script().size:
        body.append(f"    size={script.size},")
    body += listed("faults", script.faults) + listed("commands", script.calls)
    if shows_pieces:
        body.append("    shows_pieces=True,")
    return "\n".join([*lines, "", "rerun_upgrade(", *body, ")"]) + "\n"


def _import(kind: type, name: str) -> str:
    """The line that imports a class by a name of its module, if one is bound to it."""
    module = sys.modules.get(kind.__module__)
    for place in [kind.__qualname__, *(vars(module) if module is not None else ())]:
        found: Any = module
        for part in place.split("."):
            found = getattr(found, part, None)
        if found is kind:
            first, dot, rest = place.partition(".")
            if dot:
                return f"from {kind.__module__} import {first}; {name} = {first}.{rest}"
            return f"from {kind.__module__} import {first}" + (f" as {name}" if name != first else "")
    return f"# {name} is {kind.__qualname__} of {kind.__module__}, which can't be imported by its name"
