"""Which modules are changed, and which tests should notice: those of their own layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """Modules, and the tests that stand for them."""

    name: str
    modules: tuple[str, ...]
    """Patterns of paths, below the root."""
    tests: tuple[str, ...]

    def paths(self, root: Path) -> list[str]:
        """Its modules, in order."""
        return sorted({str(path.relative_to(root)) for pattern in self.modules for path in root.glob(pattern)})


def node(*names: str) -> tuple[str, ...]:
    """Tests of nodes, by name."""
    return tuple(f"tests/node/test_{name}.py" for name in names)


LAYERS = (
    Layer("core", ("raftkv/core/*.py",), ("tests/core",)),
    Layer("log", ("raftkv/log/*.py",), ("tests/log",)),
    Layer(
        "recovery",
        tuple(f"raftkv/node/{name}.py" for name in ("recovery", "directory", "statefiles", "starts", "identity")),
        node(
            "directory",
            "recovery",
            "statefiles",
            "opening",
            "identity",
            "recovered",
            "crashes",
            "damage",
            "mixups",
            "starts",
            "founding",
            "snapshots",
            "disks",
        ),
    ),
    Layer(
        "snapshot",
        ("raftkv/snapshot/*.py", "raftkv/node/snapshots/*.py"),
        (
            "tests/snapshot",
            *node(
                "sending",
                "receiving",
                "taking",
                "lending",
                "installing",
                "snapshotter",
                "snapshots",
                "crashes",
                "damage",
            ),
        ),
    ),
    Layer(
        "sessions",
        tuple(f"raftkv/machine/{name}.py" for name in ("sessions", "runner", "outcome", "overlay", "rejection")),
        ("tests/machine", *node("waiting", "applier", "poison")),
    ),
    Layer(
        "node",
        tuple(f"raftkv/node/{name}.py" for name in ("writer", "engine", "waiting", "waiters", "applier", "ticks")),
        node(
            "writer",
            "engine",
            "intake",
            "waiting",
            "waiters",
            "applier",
            "answering",
            "workers",
            "elections",
            "changes",
            "transfers",
            "requests",
        ),
    ),
    Layer(
        "timers",
        tuple(f"raftkv/machine/{name}.py" for name in ("timers", "dues", "expiring", "scheduler")),
        (
            *(f"tests/machine/test_{name}.py" for name in ("timers", "expiring", "times", "parts")),
            *node("timers", "expiring"),
        ),
    ),
    Layer(
        "history",
        (
            *(f"raftkv/machine/{name}.py" for name in ("recorder", "changes", "events")),
            *(f"raftkv/node/{name}.py" for name in ("watches", "polls", "parking")),
        ),
        (
            *(f"tests/machine/test_{name}.py" for name in ("history", "history_versions")),
            *node("watches", "polls", "deadlines"),
            *(f"tests/client/test_{name}.py" for name in ("watching", "waiting")),
            "tests/listener/test_parked.py",
        ),
    ),
    Layer("client", ("raftkv/client/*.py",), ("tests/client", "tests/wire/test_client.py")),
)
