"""Fail reasons that say more than PySyncObj's numbers."""

from __future__ import annotations

from pysyncobj.config import FAIL_REASON


class Denied(int):
    """`REQUEST_DENIED`, with why as `exception`: what a replicated method raised, or why a request was refused."""

    exception: BaseException

    def __new__(cls, exception: BaseException) -> Denied:
        reason = super().__new__(cls, FAIL_REASON.REQUEST_DENIED)
        reason.exception = exception
        return reason

    def __repr__(self) -> str:
        return f"<{int(self)}: {type(self.exception).__name__}: {self.exception}>"

    __str__ = __repr__
