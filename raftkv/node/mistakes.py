"""What commands and queries raise that looks like a mistake in them: said in the log, and counted by method."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable

from raftkv.logs import EventLog
from raftkv.machine import Method
from raftkv.model import NodeId

logger = EventLog("raftkv")

REST_S = 60.0
"""How long a method's further mistakes are only counted: every retry may raise, and so does every entry at a start."""

FRAMES_MAX = 8
"""The innermost frames of a traceback that are said; a recursion without end has a thousand."""

TEXT_MAX = 4_096


class MethodMistakes:
    """Every node says what it meets, as each applies every command; for any thread, as queries run on several."""

    def __init__(self, node_id: NodeId, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}
        self.counts: Counter[str] = Counter()
        """By method, since the start; replayed entries are counted again."""

    def met(self, method: Method, error: BaseException) -> None:
        """`method` has raised `error`."""
        now = self._clock()
        with self._lock:
            self.counts[method.name] += 1
            count = self.counts[method.name]
            said_at, said_count = self._said.get(method.name, (now - REST_S, 0))
            if now - said_at < REST_S:
                return
            self._said[method.name] = now, count
        lines = traceback.format_exception(error, limit=-FRAMES_MAX, chain=False)
        logger.error(
            "method_raised",
            node=self._node_id,
            method=method.name,
            line=method.line,
            error=type(error).__name__,
            times=count - said_count,
            traceback="".join(lines)[-TEXT_MAX:],
        )
