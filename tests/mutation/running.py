"""A session of pytest that collects tests once, and then runs them on one changed function after the other.

Each mutant gets a process of its own, forked when everything is imported and collected: there, the changed function's
code is put into the functions that live, and only the tests that reach the changed line are run, the cheapest first,
until one fails. What a test reaches, and what it costs, is measured before, without any change.

Tests that take long, as they try many seeds or examples, are cut: what they have not noticed by then, they don't.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any

import coverage
import pytest

from tests.mutation.mutations import Mutant

CUT_S = 0.6
"""Of the processor: after so long, a test is not waited for any longer."""

CUT_WALL_S = 15.0
"""Of the clock, for tests that wait for something."""

PATIENCE_S = 5.0
"""Of the processor: what the tests for one mutant may take, by what they took without it; the cheapest are taken."""

OPTIONS = ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:xdist", "--capture=sys", "--assert=plain"]

PASSED, FAILED, CUT = 0, 1, 2


@dataclass(frozen=True)
class Measured:
    """What a test costs, of the processor and by the clock, and which lines it reaches."""

    seconds: float
    wall_s: float
    outcome: int
    lines: dict[str, frozenset[int]]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the test that killed it, or None."""

    mutant: Mutant
    killed_by: str | None
    tests: int
    """How many reach it, of those that were run."""
    seconds: float
    hangs: bool = False


@dataclass
class Run:
    """One mutant's way through its tests, in one process or, when some are cut, in several."""

    mutant: Mutant
    nodeids: list[str]
    began: float = field(default_factory=time.monotonic)
    done: int = 0


class Runner:
    """The plugin: hand it to `pytest.main`, and it runs the mutants instead of the tests."""

    def __init__(
        self,
        root: Path,
        mutants: list[Mutant],
        scratch: Path,
        tell: Callable[[Verdict], None],
        *,
        jobs: int = 1,
        until: float = float("inf"),
        patience_s: float = PATIENCE_S,
        killers: dict[str, str] | None = None,
        only: frozenset[str] | None = None,
    ) -> None:
        """With `only`, none but these tests are run."""
        self._root = root
        self._mutants = mutants
        self._scratch = scratch
        self._tell = tell
        self._jobs = jobs
        self._until = until
        self._patience_s = patience_s
        self._killers = killers or {}
        self._only = only
        self.measured: dict[str, Measured] = {}
        self._items: dict[str, pytest.Item] = {}
        self._functions: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
        self._failed = False

    def pytest_collection(self) -> None:
        """Let properties try the same few examples each time."""
        from hypothesis import settings  # not before pytest has its own plugin for it

        settings.register_profile("mutants", derandomize=True, database=None, deadline=None, max_examples=20)
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure the tests, then try the mutants."""
        if session.testsfailed:
            raise pytest.UsageError("the tests can't be collected: mend that first")
        only = self._only
        self._items = {item.nodeid: item for item in session.items if only is None or item.nodeid in only}
        self._find_functions()
        gc.collect()
        gc.freeze()
        self._measure()
        self._reached = self._reaching()
        self._try_all()
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember that something failed."""
        self._failed = self._failed or report.failed

    def _find_functions(self) -> None:
        places = {str(self._root / mutant.path): mutant.path for mutant in self._mutants}
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename in places:
                self._functions[places[each.__code__.co_filename], each.__code__.co_qualname].append(each)

    def _measure(self) -> None:
        by_file: dict[str, list[str]] = defaultdict(list)
        for nodeid in self._items:
            if nodeid not in self.measured:
                by_file[nodeid.partition("::")[0]].append(nodeid)
        waiting = [nodeids for _, nodeids in sorted(by_file.items(), key=lambda each: -len(each[1]))]
        live: dict[int, list[str]] = {}
        while (waiting and time.monotonic() < self._until) or live:
            while waiting and len(live) < self._jobs and time.monotonic() < self._until:
                nodeids = waiting.pop()
                live[self._fork(partial(self._measure_some, nodeids))] = nodeids
            pid, _ = self._ended(live)
            nodeids = live.pop(pid)
            found = self._told_by(pid) or {nodeids[0]: Measured(0.0, 0.0, FAILED, {})}
            self.measured |= found
            left = [nodeid for nodeid in nodeids if nodeid not in found]
            if left:
                waiting.append(left)

    def _measure_some(self, nodeids: list[str], told: Path) -> int:
        """Measure tests until one has to be cut."""
        places = {str(self._root / mutant.path): mutant.path for mutant in self._mutants}
        tracer = coverage.Coverage(data_file=None, include=list(places), config_file=False, messages=False)
        tracer.start()
        costs: dict[str, tuple[float, float, int]] = {}
        began = (0.0, 0.0)

        def note(nodeid: str, outcome: int) -> None:
            costs[nodeid] = (time.process_time() - began[0], time.monotonic() - began[1], outcome)

        def save() -> None:
            tracer.stop()
            lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
            data = tracer.get_data()
            for place in data.measured_files():
                for line, contexts in data.contexts_by_lineno(place).items():
                    for context in contexts:
                        lines[context][places[place]].add(line)
            found = {
                nodeid: Measured(*cost, {path: frozenset(some) for path, some in lines[nodeid].items()})
                for nodeid, cost in costs.items()
            }
            told.write_bytes(pickle.dumps(found))

        for nodeid in nodeids:
            tracer.switch_context(nodeid)
            began = (time.process_time(), time.monotonic())

            def cut(nodeid: str = nodeid) -> None:
                note(nodeid, CUT)
                save()

            with limited(CUT_S, CUT_WALL_S, cut):
                passed = self._passes(nodeid)
            note(nodeid, PASSED if passed else FAILED)
        save()
        return PASSED

    def _reaching(self) -> dict[tuple[str, int], set[str]]:
        reached: dict[tuple[str, int], set[str]] = defaultdict(set)
        for nodeid, measured in self.measured.items():
            if measured.outcome != FAILED and nodeid in self._items:
                for path, lines in measured.lines.items():
                    for line in lines:
                        reached[path, line].add(nodeid)
        return reached

    def tests_for(self, mutant: Mutant) -> list[str]:
        """The one that killed it before, and those that reach it: whole ones first, the cheapest, while it pays."""
        found = {nodeid for line in mutant.lines for nodeid in self._reached.get((mutant.path, line), ())}
        if not found:  # it may run in a child that a test forks, where nobody measures
            found = {nodeid for (path, _), some in self._reached.items() if path == mutant.path for nodeid in some}
        spent = 0.0
        chosen: list[str] = []
        for nodeid in sorted(found, key=lambda each: (self.measured[each].outcome, self.measured[each].seconds, each)):
            spent += max(self.measured[nodeid].seconds, 0.005)
            if spent > self._patience_s and chosen:
                break
            chosen.append(nodeid)
        killer = self._killers.get(mutant.key)
        return [killer, *(each for each in chosen if each != killer)] if killer in found else chosen

    def _try_all(self) -> None:
        waiting = iter(self._mutants)
        live: dict[int, Run] = {}
        for run in self._runs(waiting):
            live[self._start(run)] = run
            while len(live) >= self._jobs:
                self._one_ends(live)
        while live:
            self._one_ends(live)

    def _runs(self, mutants: Iterable[Mutant]) -> Iterator[Run]:
        for mutant in mutants:
            if time.monotonic() > self._until:
                return
            code = mutant.code()
            functions = self._functions[mutant.path, mutant.function]
            if code is None or any(code.co_freevars != each.__code__.co_freevars for each in functions):
                continue
            nodeids = self.tests_for(mutant) if functions else []
            if nodeids:
                yield Run(mutant, nodeids)
            else:
                self._tell(Verdict(mutant, None, 0, 0.0))

    def _start(self, run: Run) -> int:
        return self._fork(lambda told: self._try(run.mutant, run.nodeids[run.done :], told))

    def _one_ends(self, live: dict[int, Run]) -> None:
        pid, status = self._ended(live)
        run = live.pop(pid)
        told = self._told_by(pid) or []
        run.done += len(told)
        if status == CUT and run.done < len(run.nodeids):
            live[self._start(run)] = run
            return
        survives = status in (PASSED, CUT)
        killer = None if survives else run.nodeids[min(run.done, len(run.nodeids) - 1)]
        seconds = time.monotonic() - run.began
        self._tell(Verdict(run.mutant, killer, len(run.nodeids), seconds, hangs=status not in (PASSED, CUT, FAILED)))

    def _try(self, mutant: Mutant, nodeids: list[str], told: Path) -> int:
        """Run tests on the mutant until one fails or is cut; tells of those that it has passed."""
        code = mutant.code()
        assert code is not None
        for function in self._functions[mutant.path, mutant.function]:
            function.__code__ = code
        passed: list[str] = []

        def save(nodeid: str, *, cut: bool) -> None:
            told.write_bytes(pickle.dumps([*passed, nodeid] if cut else passed))

        for nodeid in nodeids:
            cost = self.measured[nodeid]
            is_cut = cost.outcome == CUT
            seconds, wall_s = (CUT_S, CUT_WALL_S) if is_cut else (5 * cost.seconds + 2, 10 * cost.wall_s + 20)
            if nodeid == self._killers.get(mutant.key):
                seconds, wall_s = 4 * seconds, 4 * wall_s  # it has noticed in time before, maybe on a faster machine
            with limited(seconds, wall_s, partial(save, nodeid, cut=is_cut), CUT if is_cut else 3):
                fine = self._passes(nodeid)
            if not fine:
                save(nodeid, cut=False)
                return FAILED
            passed.append(nodeid)
        save("", cut=False)
        return PASSED

    def _passes(self, nodeid: str) -> bool:
        self._failed = False
        item = self._items[nodeid]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self._failed

    def _fork(self, work: Callable[[Path], int]) -> int:
        """Do `work` in a child, which ends with what it returns; it may tell more in a file."""
        pid = os.fork()
        if pid:
            return pid
        status = FAILED
        try:
            os.setsid()
            place = self._scratch / str(os.getpid())
            place.mkdir(exist_ok=True)
            with open(os.devnull, "r+b") as nowhere:
                for number in (0, 1, 2):
                    os.dup2(nowhere.fileno(), number)
            factory: Any = next(iter(self._items.values())).config._tmp_path_factory  # type: ignore[attr-defined]
            factory._basetemp = place
            status = work(self._scratch / f"{os.getpid()}.told")
        finally:
            os._exit(status)

    def _ended(self, live: Iterable[int]) -> tuple[int, int]:
        """The next child that ends, and how; what it has started ends with it."""
        pid, status = os.waitpid(-1, 0)
        while pid not in live:
            pid, status = os.waitpid(-1, 0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(self._scratch / str(pid), ignore_errors=True)
        return pid, os.waitstatus_to_exitcode(status)

    def _told_by(self, pid: int) -> Any:
        told = self._scratch / f"{pid}.told"
        if not told.exists():
            return None
        found = pickle.loads(told.read_bytes())  # noqa: S301 (our own child wrote it)
        told.unlink()
        return found


class limited:  # noqa: N801
    """Within, the process ends with `status` after so much time of the processor or of the clock, with last words."""

    def __init__(self, seconds: float, wall_s: float, last_words: Callable[[], None], status: int = CUT) -> None:
        self._limits = (seconds, wall_s)
        self._last_words = last_words
        self._status = status

    def __enter__(self) -> None:
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, self._end)
        signal.setitimer(signal.ITIMER_PROF, self._limits[0])
        signal.setitimer(signal.ITIMER_REAL, self._limits[1])

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _end(self, *_: object) -> None:
        self.__exit__()
        try:
            self._last_words()
        finally:
            os._exit(self._status)


def in_a_process(
    root: Path, tests: Iterable[str], mutants: list[Mutant], scratch: Path, **options: Any
) -> Iterator[Verdict]:
    """Try the mutants with these tests, in a process that imports them; verdicts come as they are known."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_session, args=(root, [str(root / test) for test in tests], mutants, scratch, there, options)
    )
    process.start()
    there.close()
    by_key = {mutant.key: mutant for mutant in mutants}
    with suppress(EOFError):
        while True:
            key, *rest = here.recv()
            yield Verdict(by_key[key], *rest)
    process.join()
    if process.exitcode:
        raise SystemExit("the tests can't be collected or run as they are: mend that first")


def _session(
    root: Path, places: list[str], mutants: list[Mutant], scratch: Path, there: Connection, options: dict[str, Any]
) -> None:
    sys.dont_write_bytecode = True
    os.chdir(root)
    sys.path.insert(0, str(root))

    def tell(verdict: Verdict) -> None:
        there.send((verdict.mutant.key, verdict.killed_by, verdict.tests, verdict.seconds, verdict.hangs))

    runner = Runner(root, mutants, scratch, tell, **options)
    sys.exit(int(pytest.main([f"--rootdir={root}", *OPTIONS, *places], plugins=[runner])))
