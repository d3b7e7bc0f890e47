"""Makes this process differ from others: its clocks show another time, and its global dice have another seed.

A module that has run `from time import time` keeps the real function, so call `move` before the application is
imported. The classes of `datetime` are used in types, so they are replaced after that (`exchange_dates`).
"""

from __future__ import annotations

import datetime as dates
import itertools
import random
import time
from datetime import date as _real_date
from datetime import datetime as _real_datetime
from types import ModuleType
from typing import Any


def move(now_s: float) -> None:
    """Set the time of day to `now_s` (seconds since the epoch); each reading moves it on by a millisecond."""
    looks = itertools.count()

    def now(*_args: Any) -> float:
        return now_s + next(looks) / 1000

    def now_ns() -> int:
        return int(now() * 1e9)

    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
        setattr(time, name, now)
        setattr(time, name + "_ns", now_ns)
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time, name, _at_now(getattr(time, name), now))
    strftime = time.strftime
    time.strftime = lambda form, at=None: strftime(form, at if at is not None else time.localtime())


def _at_now(function: Any, now: Any) -> Any:
    return lambda seconds=None: function(now() if seconds is None else seconds)


class _Shifted(type):
    """Lets real dates be instances of the replaced classes."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.__mro__[1])


class _Datetime(_real_datetime, metaclass=_Shifted):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _real_datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _real_datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(dates.UTC).replace(tzinfo=None)


class _Date(_real_date, metaclass=_Shifted):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _real_date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        return _real_date.fromtimestamp(time.time())


def exchange_dates(module: ModuleType) -> None:
    """Make `datetime.now()` and `date.today()` tell the moved time, in `module` and for later users of `datetime`."""
    for name, value in list(vars(module).items()):
        if value is _real_datetime:
            setattr(module, name, _Datetime)
        elif value is _real_date:
            setattr(module, name, _Date)
    dates.datetime = _Datetime  # type: ignore[misc]
    dates.date = _Date  # type: ignore[misc]


def throw_dice(seed: int) -> None:
    """Seed the dice that a whole process shares."""
    random.seed(seed)
