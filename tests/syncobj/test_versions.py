"""Code versions (`@replicated(ver=…)`, `setCodeVersion`): PySyncObj's promises, and what keeps nodes from differing."""

from __future__ import annotations

import pysyncobj
import pytest

import raftkv.syncobj
from raftkv.errors import ChangeRefused, ConfigError, InvalidArgument, NotActive, SchemaChanged, WrongVersion
from raftkv.syncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjConsumer, replicated
from raftkv.syncobj.batteries import ReplList
from tests.syncobj.clusters import DEADLINE_S, Outcomes, addresses, cluster, eventually, others
from tests.syncobj.test_state import forget_the_log


class Old(SyncObj):
    """The first version of an application; it notes which code version is enabled when a call is applied."""

    def __init__(self, own, others=(), conf=None, consumers=None):
        super().__init__(own, list(others), conf, consumers)
        self.lines = []

    @replicated
    def write(self, line):
        """As it is."""
        self.lines.append((self.getCodeVersion(), line))


class New(Old):
    """The second one."""

    @replicated(ver=1)
    def write(self, line):
        """In capitals."""
        self.lines.append((self.getCodeVersion(), line.upper()))

    @replicated(ver=1)
    def erase(self):
        """Not in the first one at all."""
        self.lines.clear()


class Newer(New):
    """The third one."""

    @replicated(ver=2)
    def write(self, line):
        """Twice."""
        self.lines.append((self.getCodeVersion(), line * 2))


class Careless(Old):
    """Has another method, and says nothing of a version: so it numbers its methods otherwise."""

    @replicated
    def alter(self):
        """Comes before `write`."""


class CarelessLater(Careless, New):
    """The same mistake, beside a later version."""


def at(made, places, number, directory=None):
    """The node `number`, of the class `made`."""
    conf = SyncObjConf(journalFile=str(directory / str(number))) if directory is not None else None
    return made(places[number], others(places[number], places), conf)


def write(node, line):
    """And wait."""
    node.write(line, sync=True, timeout=DEADLINE_S)


def lines(node):
    """What was written, when it is all there."""
    node.readBarrier(DEADLINE_S)
    return node.lines


def switched(node, version):
    """The fail reason of a switch, at its end."""
    outcomes = Outcomes()
    node.setCodeVersion(version, callback=outcomes)
    eventually(lambda: outcomes.seen, f"the switch to {version}")
    return outcomes.seen[0][1]


def destroy(nodes):
    """All of them."""
    for node in nodes:
        node.destroy()


def application(module, told):
    """The same application on PySyncObj and on raftkv."""

    class Shelf(module.SyncObjConsumer):
        def __init__(self):
            super().__init__()
            self.books = []

        @module.replicated
        def put(self, book):
            self.books.append(book)

        @module.replicated(ver=1)
        def put(self, book):  # noqa: F811 (that is how PySyncObj's versions are written)
            self.books.insert(0, book)

    class Library(module.SyncObj):
        def __init__(self, own, rest):
            conf = module.SyncObjConf(onCodeVersionChanged=lambda old, new: told.append((old, new)))
            self.shelf = Shelf()
            super().__init__(own, rest, conf, consumers=[self.shelf])
            self.lines = []

        @module.replicated
        def write(self, line):
            self.lines.append(line)

        @module.replicated(ver=2)
        def write(self, line):  # noqa: F811
            self.lines.append(line.upper())

        @module.replicated(ver=2)
        def erase(self):
            self.lines.clear()

    return Library


@pytest.mark.parametrize("module", [pysyncobj, raftkv.syncobj], ids=["pysyncobj", "raftkv"])
def test_code_versions_are_what_they_are_with_pysyncobj(module):
    """Enabled step by step or at once, on all nodes; each name means its newest method that is enabled; a method that
    only later versions have is a `KeyError`; switches back or too far are refused where they are asked for."""
    told = []
    with cluster(application(module, told)) as nodes:
        first = nodes[0]

        def call(method, *args):
            method(*args, sync=True, timeout=DEADLINE_S)

        call(first.write, "a")
        call(first.shelf.put, 1)
        with pytest.raises(KeyError):
            first.erase()
        for version, line in ((1, "b"), (2, "c")):
            outcomes = Outcomes()
            first.setCodeVersion(version, callback=outcomes)
            eventually(lambda outcomes=outcomes: outcomes.seen)
            assert outcomes.seen == [(None, FAIL_REASON.SUCCESS)]
            assert first.getCodeVersion() == version
            call(first.write, line)
            call(first.shelf.put, version + 1)
        for node in nodes:
            eventually(lambda node=node: (node.lines, node.shelf.books) == (["a", "b", "C"], [3, 2, 1]))
            status = node.getStatus()
            assert (status["self_code_version"], status["enabled_code_version"]) == (2, 2)
        eventually(lambda: sorted(told) == [(0, 1)] * 3 + [(1, 2)] * 3, told)
        for wrong in (1, 3):
            with pytest.raises(Exception, match="wrong version"):
                first.setCodeVersion(wrong)
        call(first.erase)
        assert first.lines == []


def test_a_version_is_enabled_once_every_node_has_it(tmp_path):
    """One of three still runs the old code: the switch is refused and says who, and calls go on. Once that one is
    replaced the switch succeeds; the old code does not start any more, and says what to install."""
    places = addresses(3)
    nodes = [at(made, places, number, tmp_path) for number, made in enumerate((New, New, Old))]
    try:
        write(nodes[0], "a")
        with pytest.raises(NotActive, match="erase is a method of code version 1, and version 0 is enabled") as raised:
            nodes[0].erase()
        assert isinstance(raised.value, KeyError)
        reason = switched(nodes[0], 1)
        assert reason == FAIL_REASON.REQUEST_DENIED
        assert isinstance(reason.exception, ChangeRefused)
        assert "node 3 runs version 1 (a version is the code version of" in str(reason.exception)
        for node in nodes:
            write(node, "b")
        with pytest.raises(InvalidArgument, match="wrong version, current version is 0, requested version is 1"):
            nodes[2].setCodeVersion(1)
        nodes.pop().destroy()
        assert "node 3 is not connected" in str(switched(nodes[1], 1).exception)
        nodes.append(at(New, places, 2, tmp_path))
        nodes[2].readBarrier(DEADLINE_S)
        assert switched(nodes[2], 1) == FAIL_REASON.SUCCESS
        write(nodes[2], "c")
        for node in nodes:
            assert lines(node) == [(0, "a"), (0, "b"), (0, "b"), (0, "b"), (1, "C")]
        nodes.pop().destroy()
        with pytest.raises(WrongVersion, match="version 2 of SyncObj-pickle is active, and this class runs version 1"):
            at(Old, places, 2, tmp_path)
        nodes.append(at(Newer, places, 2, tmp_path))
        assert nodes[2].getCodeVersion() == 1
        write(nodes[2], "d")
        assert lines(nodes[2])[-1] == (1, "D")
    finally:
        destroy(nodes)


@pytest.mark.parametrize("imaged", [False, True])
def test_the_enabled_version_survives_a_restart_and_each_call_meets_its_own(tmp_path, imaged):
    """Calls that are run again meet the version that was enabled when they were made, from an image or without."""
    (place,) = addresses(1)
    node = at(Newer, [place], 0, tmp_path)
    write(node, "a")
    if imaged:
        node.forceLogCompaction()
        eventually(lambda: node._objects.image_size > 0)
    write(node, "b")
    assert switched(node, 1) == FAIL_REASON.SUCCESS
    write(node, "c")
    assert switched(node, 2) == FAIL_REASON.SUCCESS
    write(node, "d")
    expected = [(0, "a"), (0, "b"), (1, "C"), (2, "dd")]
    assert node.lines == expected
    node.destroy()
    again = at(Newer, [place], 0, tmp_path)
    try:
        assert (again.lines, again.getCodeVersion()) == (expected, 2)
        write(again, "e")
        assert again.lines[-1] == (2, "ee")
    finally:
        again.destroy()


def test_a_node_that_comes_late_learns_the_version_from_a_snapshot(tmp_path):
    """Its log begins behind the switch, and its calls are those of the enabled version nevertheless."""
    places = addresses(3)
    nodes = [at(New, places, number, tmp_path) for number in range(3)]
    try:
        write(nodes[0], "a")
        nodes.pop().destroy()
        assert "node 3 is not connected" in str(switched(nodes[0], 1).exception)
        nodes.append(at(New, places, 2, tmp_path))
        assert switched(nodes[0], 1) == FAIL_REASON.SUCCESS
        leader = eventually(lambda: next((each for each in nodes if each._isLeader()), None))
        late = next(number for number, each in enumerate(nodes) if each is not leader)
        write(leader, "b")
        nodes.pop(late).destroy()
        write(leader, "c")
        for each in nodes:
            forget_the_log(each)
        nodes.append(at(New, places, late, tmp_path))
        assert lines(nodes[-1]) == [(0, "a"), (1, "B"), (1, "C")]
        assert nodes[-1]._host.node.snapshots.installed == 1
        write(nodes[-1], "d")
        assert lines(leader)[-1] == (1, "D")
    finally:
        destroy(nodes)


def test_a_switch_waits_for_the_calls_that_were_made_before():
    """Also for those that wait for a leader; calls behind it don't wait for its end."""
    places = addresses(2)
    first = at(New, places, 0)
    outcomes = Outcomes()
    for number in range(100):
        first.write(f"{number}x")
    first.setCodeVersion(1, callback=outcomes)
    first.setCodeVersion(1)
    first.write("after")
    second = at(New, places, 1)
    try:
        eventually(lambda: outcomes.seen == [(None, FAIL_REASON.SUCCESS)])
        write(second, "end")
        written = lines(second)
        assert written[:100] == [(0, f"{number}x") for number in range(100)]
        assert sorted(line for _, line in written[100:]) == ["END", "after"]
    finally:
        destroy([first, second])


def test_who_waits_for_a_switch_at_the_end_is_told():
    """Nothing was done, or nobody knows; and without waiting for a leader it fails at once."""
    places = addresses(2)
    node, outcomes = at(New, places, 0), Outcomes()
    node.setCodeVersion(1, callback=outcomes)
    eventually(lambda: node._host._switches._waiting)
    node.write("behind it")
    node.setCodeVersion(1, callback=outcomes)
    node.destroy()
    node.setCodeVersion(1, callback=outcomes)
    reasons = [reason for _, reason in outcomes.seen]
    assert reasons == [FAIL_REASON.MISSING_LEADER, FAIL_REASON.UNKNOWN_OUTCOME, FAIL_REASON.MISSING_LEADER]
    hasty = New(places[0], places[1:], SyncObjConf(commandsWaitLeader=False))
    try:
        assert switched(hasty, 1) == FAIL_REASON.MISSING_LEADER
    finally:
        hasty.destroy()


def test_nodes_with_other_methods_of_the_same_version_refuse_each_other(tmp_path):
    """With PySyncObj they run each other's calls by numbers that mean other methods. Here the one that differs gets
    nothing, and on old data it does not start: the error names the methods, and what to do."""
    places = addresses(3)
    nodes = [at(New, places, number, tmp_path) for number in range(2)]
    try:
        write(nodes[0], "a")
        nodes.append(at(CarelessLater, places, 2, tmp_path))
        leader = eventually(lambda: next((each for each in nodes if each._isLeader()), None))
        said = eventually(lambda: [each for each in problems(leader) if "different code under one version" in each])
        assert "value replicated_ver_0: was with the default" in said[0]
        assert "'alter'" in said[0]
        assert "can't be made active: node 3 is not connected" in str(switched(nodes[0], 1).exception)
    finally:
        destroy(nodes)
    (place,) = addresses(1)
    for before, after in ((Old, Careless), (Old, CarelessLater), (Careless, Old)):
        directory = tmp_path / f"{before.__name__}{after.__name__}"
        directory.mkdir()
        node = at(before, [place], 0, directory)
        write(node, "a")
        node.destroy()
        with pytest.raises(SchemaChanged, match=r"replicated_ver_0.*mark others with @replicated\(ver=…\) and a later"):
            at(after, [place], 0, directory)
        again = at(before, [place], 0, directory)
        assert lines(again) == [(0, "a")]
        again.destroy()


def problems(node):
    """What an operator should look at."""
    return node._host.run(problems_of(node._host.node), DEADLINE_S)


async def problems_of(node):
    """On the node's own thread."""
    return node.status().problems()


def test_a_later_version_whose_older_methods_differ_gets_nothing(tmp_path):
    """No node has its code version, and so the methods of the one that both have are compared."""
    places = addresses(3)
    nodes = [at(Old, places, number, tmp_path) for number in range(2)]
    try:
        write(nodes[0], "a")
        nodes.append(at(CarelessLater, places, 2, tmp_path))
        leader = eventually(lambda: next((each for each in nodes if each._isLeader()), None))
        said = eventually(lambda: [each for each in problems(leader) if "declares otherwise" in each])
        assert "value replicated_ver_0: was with the default ['write'], is with" in said[0]
        assert nodes[2].lines == []
        write(nodes[1], "b")
    finally:
        destroy(nodes)


def test_batteries_have_versions_too():
    """`ReplList.__setitem__` is of code version 1, as with PySyncObj, and nobody is told to upgrade because of it."""
    with cluster(lambda own, _: Old(own, consumers=[ReplList()]), count=1) as (node,):
        (items,) = node._objects.consumers
        items.reset([1, 2], sync=True, timeout=DEADLINE_S)
        with pytest.raises(KeyError, match="__setitem__ is a method of code version 1"):
            items[0] = 3
        assert problems(node) == []
        assert switched(node, 1) == FAIL_REASON.SUCCESS
        items.__setitem__(0, 3, sync=True, timeout=DEADLINE_S)
        assert items.rawData() == [3, 2]


def test_a_version_that_is_too_high_is_refused():
    """A million is enough, and an error says so."""

    class Dated(SyncObj):
        @replicated(ver=20_261_129)
        def act(self):
            """Something."""

    with pytest.raises(ConfigError, match=r"@replicated\(ver=20261129\): code versions are at most 999999"):
        Dated(addresses(1)[0], [])


def test_consumers_are_told_apart():
    """Methods of consumers are compared by the consumer's place."""

    class Consumer(SyncObjConsumer):
        @replicated
        def act(self):
            """Something."""

    with cluster(lambda own, _: Old(own, consumers=[ReplList(), Consumer()]), count=1) as (node,):
        methods = node._objects.methods
        assert methods[0][0] == "write"
        assert "consumers[0].append" in methods[0]
        assert methods[0][-1] == "consumers[1].act"
        assert methods[1] == ["consumers[0].__setitem__"]
