"""Histories of other systems: Jepsen's events, as EDN and as lines of JSON."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.testing.judging.edn import NotEDN, Word, read_edn
from raftkv.testing.judging.jepsen import CellModel, NotAHistory, read_history
from raftkv.testing.judging.operation import Operation
from raftkv.testing.judging.search import Verdict
from raftkv.testing.judging.verdicts import judge

REGISTER = """
; a run of a register
[{:process 0, :type :invoke, :f :write, :value 3}
 {:process :nemesis, :type :info, :f :start, :value "[1 2]"}
 #jepsen.history.Op{:index 2 :process 1, :type :invoke, :f :read, :value nil, :time 1.5e3}
 {:process 2, :type :invoke, :f :cas, :value [3 4]}
 {:process 0, :type :ok, :f :write, :value 3}
 {:process 1, :type :ok, :f :read, :value 3}
 #_{:process 1, :type :ok, :f :read, :value 9}
 {:process 2, :type :info, :f :cas, :value [3 4], :error :timed-out}
 {:process 1, :type :invoke, :f :write, :value 5}
 {:process 1, :type :fail, :f :write, :value 5}
 {:process 5, :type :invoke, :f :read, :value nil}]
"""

JSON = """
{"process": 0, "type": "invoke", "f": "put", "value": ["x", 1]}
{"process": 0, "type": "ok", "f": "put", "value": ["x", 1]}
{"process": 1, "type": "invoke", "f": "cas", "value": ["x", [1, 2]]}

{"process": 1, "type": "ok", "f": "cas", "value": ["x", [1, 2]]}
{"process": 1, "type": "invoke", "f": "get", "value": ["y", null]}
{"process": 1, "type": "ok", "f": "get", "value": ["y", null]}
"""


def verdict(text, initial=None):
    """Of a history that begins with `initial`."""
    return judge(read_history(text), CellModel(initial), initial).verdict


def event(process, kind, f, value, more=""):
    """One event."""
    return f"{{:process {process} :type :{kind} :f :{f} :value {value} {more}}}"


def done(f, value, result=None, more=""):
    """A call and its end."""
    return event(0, "invoke", f, value, more) + "\n" + event(0, "ok", f, result or value, more)


def test_a_register_as_edn():
    """Failed calls are away, unknown ones and those without an end are open, and the nemesis is no client."""
    assert read_history(REGISTER) == [
        Operation(0, None, "write", 3, 0, 3, None),
        Operation(1, None, "read", None, 1, 4, 3, is_read=True),
        Operation(2, None, "cas", (3, 4), 2),
        Operation(5, None, "read", None, 8, is_read=True),
    ]
    assert verdict(REGISTER) is Verdict.LINEARIZABLE


def test_a_map_as_lines_of_json():
    """Each value is a pair of a key and a value, as Jepsen's independent keys are."""
    assert read_history(JSON) == [
        Operation(0, "x", "write", 1, 0, 1, None),
        Operation(1, "x", "cas", (1, 2), 2, 3, None),
        Operation(1, "y", "read", None, 4, 5, None, is_read=True),
    ]
    assert verdict(JSON.replace('"y", null', '"x", 2')) is Verdict.LINEARIZABLE
    assert verdict(JSON.replace('"y", null', '"x", 1')) is Verdict.REFUTED


def mutex(*events, key=None):
    """A history of a mutex: each event is a process, a type and an f."""
    value = "nil" if key is None else f"[{key} nil]"
    return "\n".join(event(process, kind, f, value) for process, kind, f in events)


HANDED_ON = ((0, "invoke", "acquire"), (0, "ok", "acquire"), (0, "invoke", "release"), (1, "invoke", "acquire"))


def test_a_mutex():
    """It is had by one at a time: a second one may have it while the first one is giving it back, and not before."""
    assert verdict(mutex(*HANDED_ON, (1, "ok", "acquire"), (0, "ok", "release"))) is Verdict.LINEARIZABLE
    assert verdict(mutex(*HANDED_ON[:2], HANDED_ON[3], (1, "ok", "acquire"))) is Verdict.REFUTED
    assert verdict(mutex((0, "invoke", "unlock"), (0, "ok", "unlock"))) is Verdict.REFUTED
    assert verdict(mutex(*HANDED_ON[:2], (1, "invoke", "lock"), (1, "fail", "lock"))) is Verdict.LINEARIZABLE


def test_an_unknown_end_of_a_mutex_s_call_may_have_been_either():
    """Someone else has it after a call to give it back of which nothing was heard; and two after two such calls, not
    after one."""
    lost = (*HANDED_ON[:3], (0, "info", "release"))
    had = ((1, "invoke", "acquire"), (1, "ok", "acquire"))
    assert verdict(mutex(*lost, *had)) is Verdict.LINEARIZABLE
    assert verdict(mutex(*lost, *had, (2, "invoke", "acquire"), (2, "ok", "acquire"))) is Verdict.REFUTED
    again = ((2, "invoke", "acquire"), (2, "info", "acquire"), (3, "invoke", "release"), (3, "info", "release"))
    assert verdict(mutex(*lost, *had, *again, (4, "invoke", "lock"), (4, "ok", "lock"))) is Verdict.LINEARIZABLE


def test_mutexes_by_keys():
    """What is had under one key is free under another."""
    two = mutex(*HANDED_ON[:2], key=1) + mutex((1, "invoke", "acquire"), (1, "ok", "acquire"), key=2)
    assert verdict(two) is Verdict.LINEARIZABLE
    assert verdict(two.replace("[2 nil]", "[1 nil]")) is Verdict.REFUTED


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([done("write", 1), done("cas", "[1 2]"), done("read", "nil", 2)], True),
        ([done("write", 1), done("cas", "[2 3]")], False),
        ([done("cas", "[nil 3]"), done("read", "nil", 3)], True),
        ([done("write", 1), done("delete", "nil"), done("read", "nil", "nil")], True),
        ([done("append", '"a"'), done("append", '"b"'), done("get", "nil", '"ab"')], True),
        ([done("append", '"a"'), done("append", '"b"'), done("get", "nil", '"ba"')], False),
        ([done("write", 1), done("append", '"b"')], False),
        ([done("put", 1, more=":key 1"), done("get", "nil", "nil", ":key 2")], True),
        ([done("put", 1, more=":key 1"), done("get", "nil", "nil", ":key 1")], False),
        ([done("write", "[1 2]"), done("read", "[1 nil]", "[1 2]"), done("cas", "[1 [2 3]]")], True),
        ([done("write", "[1 2]"), done("read", "nil", "[1 2]"), done("cas", "[[1 2] 3]")], True),
        ([done("write", "true"), done("read", "nil", 1)], False),
        ([done("write", ":a"), done("read", "nil", '":a"')], False),
    ],
)
def test_what_calls_mean(calls, found):
    """Registers, strings, and keys in a field or in the value."""
    assert (verdict("\n".join(calls)) is Verdict.LINEARIZABLE) == found


def test_a_register_may_begin_with_a_value():
    """A deleted one has it again."""
    again = "\n".join([done("write", 1), done("delete", "nil"), done("read", "nil", "0")])
    assert verdict(again, 0) is Verdict.LINEARIZABLE
    assert verdict(again) is Verdict.REFUTED


INVOKE = event(0, "invoke", "write", 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1 2]", "line 1: an event is a map"),
        ("\n{:process 1}", "line 2: this event has no type and no f"),
        (f"{INVOKE}\n{INVOKE}", "line 2: process 0 calls before its call of line 1"),
        (event(0, "ok", "write", 1), "line 1: process 0 ends a call that it has not begun"),
        (f"{INVOKE}\n{event(0, 'ok', 'read', 1)}", "line 2: read ends the call of write of line 1"),
        (f"{INVOKE}\n{event(0, 'done', 'write', 1)}", "line 2: the type is done"),
        (event(0, "invoke", "enqueue", "nil"), "line 1: f is enqueue, and none of read, get"),
        (event(0, "invoke", "cas", 1), r"line 1: the value of a cas is \[old new\]"),
        (event(0, "invoke", "append", 1), "line 1: what is appended is a string"),
        (event(0, "invoke", "write", "{1 2}"), "line 1: keys and values can't be maps"),
        (done("read", "[1 nil]", "nil"), r"line 2: the value is no \[key value\]"),
        (done("read", "[1 nil]", "[2 nil]"), "line 2: key 2 ends the read of 1"),
        ('{"process": 1,\n', "line 1: no JSON"),
        ("{:process 1\n", "line 1: { is never closed"),
    ],
)
def test_what_is_no_history_is_refused_with_the_line(text, told):
    """So that one finds it in a file of 100,000."""
    with pytest.raises(NotAHistory, match=told):
        read_history(text)


def test_edn_is_read():
    """All kinds of values."""
    text = r'nil true :a/b sym -3 +4N 2.5 1e3 "a\"\n\u00e9" \newline [1, [2]] (1) #{} {:a 1} #inst "2020" ,;end'
    assert [each.value for each in read_edn(text)] == [
        *(None, Word("true"), Word(":a/b"), Word("sym"), -3, 4, 2.5, 1000.0, 'a"\né'),
        *(Word("\\newline"), (1, (2,)), (1,), (), {Word(":a"): 1}, "2020"),
    ]
    assert Word("a") != "a"
    assert list(read_edn(" ; nothing")) == []
    assert [each.line for each in read_edn('[1\n"a\nb"\n 2]\n')] == [1, 2, 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n]", "line 2: nothing is open that ] could close"),
        ("[1\n}", "line 2: } where ] should close line 1"),
        ('\n"a', "line 2: a string without an end"),
        ("{1}", "line 1: a map has a key without a value"),
        ("{{} 1}", "line 1: a map as the key"),
        ("12a3", "line 1: '1' is no EDN"),
        ("#_", "line 1: nothing follows #_"),
        ("(" * 1000, "line 1: more than 100 brackets are open"),
        ("9" * 5000, "line 1: a number of 5000 digits is too long"),
    ],
)
def test_what_is_no_edn_is_refused_with_the_line(text, told):
    """And never with an error that is not ours."""
    with pytest.raises(NotEDN, match=told):
        list(read_edn(text))


@given(st.text(alphabet='[](){}#_:"\\;,\n 1.aN-', max_size=40))
def test_any_text_is_read_or_refused(text):
    """With no other error, and an end."""
    with contextlib.suppress(NotAHistory):
        read_history(text)
