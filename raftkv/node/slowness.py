"""Commands and queries that take long: said in the log with their line, each method now and then."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.logs import EventLog
from raftkv.machine import Method
from raftkv.model import NodeId
from raftkv.node.nowandthen import NowAndThen

logger = EventLog(__name__)


class SlowMethods:
    """Says which method it was that held the node up; for any thread."""

    def __init__(self, node_id: NodeId, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._methods = NowAndThen(clock)

    def met(self, method: Method, seconds: float) -> None:
        """A run of `method` took `seconds`, which is too long."""
        times = self._methods.met(method.name)
        if times:
            logger.warning(
                "method_slow",
                node=self._node_id,
                method=method.name,
                kind=method.kind,
                line=method.line,
                ms=round(seconds * 1000),
                times=times,
            )
