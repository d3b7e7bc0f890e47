"""What commands and queries raise that looks like a mistake in them: said in the log, and counted by method."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable

from raftkv.logs import EventLog
from raftkv.machine import Method
from raftkv.model import NodeId
from raftkv.node.nowandthen import NowAndThen

logger = EventLog(__name__)

FRAMES_MAX = 8
"""The innermost frames of a traceback that are said; a recursion without end has a thousand."""

TEXT_MAX = 4_096


class MethodMistakes:
    """Every node says what it meets, as each applies every command; for any thread."""

    def __init__(self, node_id: NodeId, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._methods = NowAndThen(clock)

    @property
    def counts(self) -> Counter[str]:
        """By method, since the start; replayed entries are counted again."""
        return self._methods.counts

    def met(self, method: Method, error: BaseException) -> None:
        """`method` has raised `error`."""
        times = self._methods.met(method.name)
        if not times:
            return
        lines = traceback.format_exception(error, limit=-FRAMES_MAX, chain=False)
        logger.error(
            "method_raised",
            node=self._node_id,
            method=method.name,
            line=method.line,
            error=type(error).__name__,
            times=times,
            traceback="".join(lines)[-TEXT_MAX:],
        )
