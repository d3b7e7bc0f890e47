"""The hosted objects: their replicated methods, the calls that change them, and their state."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from pysyncobj.batteries import ReplSet
from pysyncobj.config import FAIL_REASON
from pysyncobj.syncobj import _COMMAND_TYPE

from raftkv.errors import MachineFailed, NotActive, UnknownCommand
from raftkv.logs import TextLog
from raftkv.state import Store
from raftkv.syncobj.codec import Codec
from raftkv.syncobj.machine import ImageWriter, SyncObjMachine
from raftkv.syncobj.reasons import Denied

logger = TextLog("raftkv.syncobj")

_NOT_ITS_OWN = (MemoryError, SystemError)
"""What a method may raise on one node and not on the next: going on would let them differ."""


class NotEnabled(NotActive, KeyError):
    """The method is of a code version that is not enabled yet, so it was not called. PySyncObj's is a `KeyError`."""

    def __str__(self) -> str:
        return self.message


class Objects:
    """A `SyncObj` and its consumers.

    Invariants: between two calls their state is that of the log's entries up to the applied index; every node
    gives a method the same number, as the numbers go by version, object and name.
    """

    def __init__(self, owner: Any, consumers: list[Any], codec: Codec, on_version: Callable[[int, int], None]) -> None:
        self.owner = owner
        self.consumers = consumers
        self.codec = codec
        self.origin = 0
        """Who this process is in `call`s; set when it starts, different each time."""
        self.on_results: Callable[[list[tuple[int, Any, int]]], None] = lambda results: None
        self.version = 0
        self.own_version = 0
        self._on_version = on_version
        self._not_state: set[str] = set()
        self._initial = b""
        self.calls_count = self.calls_bytes = self.image_size = self._generation = 0
        self._number_methods()
        self._choose(0)

    def _versioned(self) -> Iterator[tuple[int, int, str, Any]]:
        """(version, number of the object, `method_vN`, object) of every replicated method."""
        for number, each in enumerate([self.owner, *self.consumers]):
            for name in dir(type(each)):
                method = getattr(type(each), name)
                if getattr(method, "replicated", False) and name != method.origName:
                    yield method.ver, number, name, each

    def _number_methods(self) -> None:
        self.method_to_id: dict[Any, int] = {}
        self.id_to_method: dict[int, Callable[..., Any]] = {}
        self.methods: dict[int, list[str]] = {0: []}
        """By code version, in the order of their numbers."""
        self._versions: dict[Any, list[tuple[int, str]]] = {}
        ranked = sorted(self._versioned(), key=lambda found: found[:3])
        for method_id, (version, number, name, each) in enumerate(ranked):
            method = getattr(each, name)
            self.method_to_id[name if number == 0 else (id(each), name)] = method_id
            is_pop = isinstance(each, ReplSet) and method.origName == "pop"
            self.id_to_method[method_id] = partial(pop_the_least, each) if is_pop else method
            plain = method.origName if number == 0 else (id(each), method.origName)
            self._versions.setdefault(plain, []).append((version, name))
            shown = method.origName if number == 0 else f"consumers[{number - 1}].{method.origName}"
            self.methods.setdefault(max(0, version), []).append(shown)
            self.own_version = max(self.own_version, version)

    def called(self, plain: Any) -> str:
        """Which method a call of this name means now. Raises `NotEnabled`."""
        name = self.names.get(plain)
        if name is None:
            shown = plain[1] if isinstance(plain, tuple) else plain
            first = min(version for version, _ in self._versions[plain])
            raise NotEnabled(
                f"{shown} is a method of code version {first}, and version {self.version} is enabled: nothing was "
                f"done; call setCodeVersion({first}) once every node has it"
            )
        return name

    def switch_to(self, code_version: int) -> bytes:
        """A call that makes it the enabled one."""
        return bytes([_COMMAND_TYPE.VERSION]) + self.codec.dumps(code_version)

    def _choose(self, version: int) -> None:
        """Make each name call its newest method up to `version`."""
        self.version = version
        self.names: dict[Any, str] = {}
        for plain, versions in self._versions.items():
            for each, name in versions:
                if each <= version:
                    self.names[plain] = name

    def release(self) -> None:
        """Detach the consumers from the owner, because the host has ended."""
        for each in self.consumers:
            each._destroy()

    def apply(self, origin: int, first: int, calls: list[bytes]) -> None:
        """Run the calls of one entry."""
        outcomes = [self._run(call) for call in calls]
        self.calls_count += len(calls)
        self.calls_bytes += sum(map(len, calls))
        if origin == self.origin:
            self.on_results([(number, *outcome) for number, outcome in enumerate(outcomes, first)])

    def _run(self, call: bytes) -> tuple[Any, int]:
        """Run a call; returns its result and fail reason. An exception of the method goes to the caller only."""
        if call[0] == _COMMAND_TYPE.VERSION:
            self._switch(self._read(call))
            return None, FAIL_REASON.SUCCESS
        method_id, args, kwargs = _parts(self._read(call))
        method = self.id_to_method.get(method_id)
        if method is None:
            raise UnknownCommand(
                f"a call of method {method_id}, which this {type(self.owner).__name__} does not have. It was not "
                "applied. Start this node with the version of the application that the others run"
            )
        try:
            return method(*args, _doApply=True, **kwargs), FAIL_REASON.SUCCESS
        except (*_NOT_ITS_OWN, KeyboardInterrupt):
            raise
        except RecursionError as exc:
            # A table would be as it was before, but nobody can tell how far a method came with objects in memory.
            raise MachineFailed(f"a call of {method} did not fit the stack, and was perhaps done in part") from exc
        except BaseException as exc:  # noqa: BLE001 (whatever else a method raises is its caller's)
            return None, Denied(exc)

    def _read(self, call: bytes) -> Any:
        try:
            return self.codec.loads(call[1:])
        except Exception as exc:
            raise MachineFailed(
                f"a call can't be read ({type(exc).__name__}: {exc}). It was not applied. Start this node with the "
                "version of the application that the others run, with all its classes"
            ) from exc

    def _switch(self, version: int) -> None:
        if version > self.own_version:
            raise UnknownCommand(
                f"the cluster was switched to code version {version}, and this node has {self.own_version}. "
                "Start it with the version of the application that the others run"
            )
        old = self.version
        self._choose(version)
        self._on_version(old, version)

    def begin(self, own: set[str]) -> None:
        """Take the objects' present attributes as the initial state, without `own`, the host's attributes."""
        self._not_state = set(own)
        for name, value in vars(self.owner).items():
            if name not in own and not self._is_state(value):
                self._not_state.add(name)
        left_out = sorted(self._not_state - own)
        if left_out:
            logger.warning("attributes that can't be pickled are not replicated: %s", ", ".join(left_out))
        self._initial = b"".join(map(self.codec.dumps, self._states()))

    def _is_state(self, value: Any) -> bool:
        if any(value is each for each in [self.owner, *self.consumers]) or hasattr(value, "_consumer"):
            return False
        try:
            self.codec.dumps(value)
        except Exception:  # noqa: BLE001 (a lock, a thread, a socket: each refuses in its own way)
            return False
        return True

    def _states(self) -> Iterator[Any]:
        """The code version, the owner's attributes, each consumer's."""
        yield self.version
        yield {name: value for name, value in vars(self.owner).items() if name not in self._not_state}
        for each in self.consumers:
            yield each._serialize()

    def load(self, machine: SyncObjMachine) -> None:
        """Bring the objects to the machine's applied index: load the image, then run the calls after it."""
        image = machine.open_image()
        self._restore(image if image is not None else io.BytesIO(self._initial))
        head = machine.image
        self._generation, self.image_size = head.generation, head.size
        self.calls_count = self.calls_bytes = 0
        for _, calls in machine.calls_behind_image():
            self.apply(-1, 0, calls)

    def _restore(self, data: io.BufferedIOBase) -> None:
        self._choose(self.codec.load(data))
        state = self.codec.load(data)
        attributes = vars(self.owner)
        for name in [name for name in attributes if name not in self._not_state and name not in state]:
            del attributes[name]
        attributes.update(state)
        for each in self.consumers:
            each._deserialize(self.codec.load(data))

    @property
    def image_pays(self) -> bool:
        """Whether the calls since the last image are as large as an image, so that images at most double the cost."""
        return self.calls_bytes + 100 * self.calls_count >= self.image_size

    def write_image(self, store: Store) -> None:
        """Stream the state as it is now into `store`. On a worker's thread, while nothing is applied."""
        self._generation += 1
        writer = ImageWriter(store, self._generation)
        for state in self._states():
            self.codec.dump(state, writer.write)
        writer.finish()
        self.calls_count = self.calls_bytes = 0
        self.image_size = writer.size


def pop_the_least(battery: ReplSet, _doApply: bool) -> Any:
    """`ReplSet.pop`, with the same element on all nodes.

    It is the only method of the batteries that depends on the process: a set is ordered by hashes, which differ between
    processes.
    """
    data = battery.rawData()
    if not data:
        raise KeyError("pop from an empty set")
    least = min(data, key=_rank)
    data.remove(least)
    return least


def _rank(element: Any) -> tuple[str, str]:
    return type(element).__name__, repr(element)


def _parts(value: Any) -> tuple[int, Sequence[Any], dict[str, Any]]:
    """A call's method number, arguments and keywords; the decorator leaves out empty ones."""
    if not isinstance(value, tuple):
        return value, (), {}
    return (*value, {}) if len(value) == 2 else value
