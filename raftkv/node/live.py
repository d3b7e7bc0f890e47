"""The settings that an operator may change while a node runs, and the file that keeps them.

A value is kept in the file `settings` of the data directory, and counts at the next start as well, unless that start
says something else: what flags, environment or a settings file say wins. An older version of raftkv passes over the
file. A value that this version does not know, or no longer allows, is passed over and named in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from raftkv.config import LIVE, Config, with_live
from raftkv.disk import Disk
from raftkv.errors import Corruption, FormatError, InvalidArgument, WrongDataDir
from raftkv.log import Identity, load_own, save_owned
from raftkv.logs import EventLog

logger = EventLog(__name__)

_MAGIC = b"RKVconf\n"

Value: TypeAlias = bool | int | float


class Setting(msgspec.Struct, frozen=True):
    """A setting that may change while the node runs, and where its value comes from."""

    name: str
    value: Value
    source: str
    """`the default`, `set while it ran`, or where the start has it from."""
    at_start: Value
    """What the start said, or the default."""
    wins_at_start: bool
    """Whether the start says it, and so will say it again at the next one."""


class LiveSettings:
    """A node's settings: what its start says, and over it what was changed since. It does no input or output."""

    def __init__(
        self, base: Config, given: Mapping[str, str], kept: Mapping[str, Value], owner: Callable[[], Identity]
    ) -> None:
        """`given` has where the start has each value from; `kept` is what an earlier run has kept, `owner` whose the
        directory is now."""
        self.owner = owner
        self._base = base
        default = Config()
        self._given = {
            name: given.get(name, "the program")
            for name in LIVE
            if name in given or getattr(base, name) != getattr(default, name)
        }
        self.kept = dict(kept)
        """What the file is to have."""
        self._set: dict[str, Value] = {}
        self.config = base
        """All settings as they are now."""
        for name, value in sorted(kept.items()):
            if name in self._given:
                logger.info("setting_not_used", name=name, kept=value, used=getattr(base, name), hint="the start wins")
                continue
            try:
                self.config = with_live(self.config, {name: value})
                self._set[name] = value
            except InvalidArgument as exc:
                logger.warning("setting_not_used", name=name, kept=value, reason=str(exc))
        self.lock = asyncio.Lock()
        """Held while a change is written."""

    def changed(self, values: Mapping[str, Value | None]) -> tuple[Config, dict[str, Value]]:
        """The settings, and what is to be kept, with other values; None: as the start says. Raises
        `InvalidArgument`."""
        back = {name: getattr(self._base, name, None) for name, value in values.items() if value is None}
        config = with_live(self.config, {**values, **back})
        kept = {name: value for name, value in {**self.kept, **values}.items() if value is not None}
        return config, kept

    def take(self, config: Config, kept: dict[str, Value], values: Mapping[str, Value | None]) -> None:
        """From now on it is so, as it is durable."""
        self.config, self.kept = config, kept
        self._set = {name: value for name, value in {**self._set, **values}.items() if value is not None}

    def all(self) -> list[Setting]:
        """Each setting that may change, in the order of `LIVE`."""
        return [
            Setting(
                name=name,
                value=getattr(self.config, name),
                source="set while it ran" if name in self._set else self._given.get(name, "the default"),
                at_start=getattr(self._base, name),
                wins_at_start=name in self._given,
            )
            for name in LIVE
        ]


def load_settings(disk: Disk, path: str, owner: Identity) -> dict[str, Value]:
    """What was saved in this directory; nothing when there is no such file.

    Raises `Corruption`, `FormatError` or `WrongDataDir`: what an operator has ordered is not passed over in silence.
    """
    try:
        return load_own(disk, path, _MAGIC, owner, dict[str, Value]) or {}
    except (Corruption, FormatError, WrongDataDir) as exc:
        raise type(exc)(f"{exc}. Remove that file, and give the order again (raftkv config set).") from exc


def save_settings(disk: Disk, path: str, owner: Identity, kept: dict[str, Value]) -> None:
    """Durable on return."""
    save_owned(disk, path, _MAGIC, owner, kept)
