"""The pytest plugin: options for budget, seed and where failures are saved, how to see a failure again, and fixtures.

Every start of pytest loads it, so it imports nothing of the simulation.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from raftkv.testing.judging.failure import CounterExample
from raftkv.testing.trying.budget import BUDGETS, Chosen, chosen

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.reports import TestReport

    from raftkv.testing.real.cluster import RealClusters
    from raftkv.testing.real.servers import ServersFixture

_CLUSTERS: pytest.StashKey[RealClusters] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--raftkv-budget`, `--raftkv-seed`, `--raftkv-failures`, and the same in the configuration file."""
    group = parser.getgroup("raftkv", "tests of applications under faults")
    group.addoption(
        "--raftkv-budget",
        choices=list(BUDGETS),
        help="how much each fault_test tries (default: raftkv_budget, RAFTKV_BUDGET, or quick)",
    )
    group.addoption("--raftkv-seed", type=int, metavar="N", help="try other examples and worlds than those of seed 0")
    group.addoption(
        "--raftkv-failures", metavar="DIR", help="where failures are saved (default: raftkv_failures, or .raftkv)"
    )
    parser.addini("raftkv_budget", "as --raftkv-budget", default="")
    parser.addini("raftkv_failures", "as --raftkv-failures", default=Chosen().directory)


def pytest_configure(config: pytest.Config) -> None:
    """Hand what was chosen to the test kit. Raises `pytest.UsageError`."""
    budget = config.getoption("--raftkv-budget") or config.getini("raftkv_budget") or None
    if budget is not None and budget not in BUDGETS:
        raise pytest.UsageError(f"raftkv_budget = {budget}: must be one of {', '.join(BUDGETS)}")
    chosen.budget = budget
    chosen.seed = config.getoption("--raftkv-seed")
    chosen.directory = config.getoption("--raftkv-failures") or config.getini("raftkv_failures")
    chosen.reports = True


def pytest_unconfigure() -> None:
    """Forget the options, for another run of pytest in the same process."""
    for name, value in msgspec.structs.asdict(Chosen()).items():
        setattr(chosen, name, value)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show what went wrong and how to see it again, in place of a trace through the test kit."""
    report: TestReport = yield
    error = call.excinfo.value if call.excinfo is not None else None
    if isinstance(error, CounterExample):
        assert call.excinfo is not None
        report.longrepr = call.excinfo.getrepr(style="value")
        if error.diagram:
            report.sections.append(("raftkv: what happened last", error.diagram))
        report.sections.append(("raftkv: how to see it again", error.instructions))
    if report.failed and (clusters := item.stash.get(_CLUSTERS, None)) is not None and clusters.report:
        report.sections.append(("raftkv: the nodes' logs", clusters.report))
    if chosen.tried and call.when == "call":
        report.sections.append(("raftkv: what was tried", "\n\n".join(chosen.tried)))
        chosen.tried.clear()
    return report


@pytest.fixture
def raftkv_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[RealClusters, None, None]:
    """Real nodes: `cluster = raftkv_cluster(Inventory)` starts three processes, which the test may `kill`, `restart`,
    `pause`, and `cut` off from each other. Their logs are in the report of a test that fails."""
    from raftkv.testing.real.cluster import RealClusters

    clusters = request.node.stash[_CLUSTERS] = RealClusters(tmp_path / "raftkv")
    try:
        yield clusters
    finally:
        clusters.close()


@pytest.fixture
def raftkv_servers(tmp_path: Path) -> Generator[ServersFixture, None, None]:
    """Servers in this process: `servers = raftkv_servers(Inventory)` starts one, or `size` of them."""
    from raftkv.testing.real.servers import ServersFixture

    fixture = ServersFixture(tmp_path / "raftkv")
    try:
        yield fixture
    finally:
        fixture.close()
