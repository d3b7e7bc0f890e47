"""What commands print with --json is what `raftkv schema` says of it, and no key more."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from raftkv.cli.schema import PRINTED, printed_schema
from raftkv.cli.view import status_value
from raftkv.doctor import ClusterView, Silent
from raftkv.durations import Durations
from raftkv.machine import MethodTime
from raftkv.node.live import Setting
from raftkv.node.status import ClockStatus, NodeStatus, PeerStatus, TimerStatus, UpgradeStatus
from raftkv.snapshot import TransferProgress
from raftkv.transport.tls import CertificateStatus
from tests.cli.commands import invoke, when_led
from tests.cli.test_view import status_of
from tests.forked import ForkedCluster


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command prints about a cluster of one with some data, while it runs and after that."""
    place = tmp_path_factory.mktemp("printed")
    found: dict[str, str] = {}

    def keep(*words: str, codes: tuple[int, ...] = (0,)) -> None:
        result = invoke(*words, "--json")
        assert result.exit_code in codes, result.output
        found[" ".join(words[:2]) if " ".join(words[:2]) in PRINTED else words[0]] = result.stdout

    with ForkedCluster(place, 1) as cluster:
        cluster.start_all()
        node, address = cluster.nodes[1], ("-a", cluster.addresses[0])
        when_led(node)
        assert invoke("put", "a", "1", *address).exit_code == 0
        keep("status", *address)
        keep("member", "list", *address)
        keep("snapshot", "take", *address)
        keep("config", "list", *address)
        keep("upgrade", "check", "raftkv.kv:KeyValue", *address)
        keep("doctor", *address, codes=(0, 1))
        assert invoke("backup", str(place / "a.backup"), *address).exit_code == 0
        assert node.terminate() == 0
        keep("backup", "show", str(place / "a.backup"))
        keep("snapshot", "list", node.data_dir)
        keep("snapshot", "verify", node.data_dir)
        keep("log", "inspect", node.data_dir)
        found["error"] = invoke("get", "a", *address, "--timeout", "0.3", "--json").stdout
    return found


def test_each_schema_has_an_output_here(outputs):
    """So that none is promised and never looked at."""
    assert outputs.keys() == PRINTED.keys()


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_is_of_the_class_of_its_schema(outputs, name):
    """Read as that class and written again, it is the same: no key is left out, and none is more."""
    assert_same(name, outputs[name])


def assert_same(name: str, text: str) -> None:
    """The text is what the class of its schema would print."""
    value = msgspec.json.decode(text, type=PRINTED[name])
    assert json.loads(msgspec.json.encode(value)) == json.loads(text)


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_fits_its_schema(outputs, name):
    """As a validator that knows nothing of raftkv sees it; a key that the schema lacks is refused, too."""
    assert_fits(name, outputs[name])


def assert_fits(name: str, text: str) -> None:
    """The text is what its schema, closed to other keys, describes."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: it is in the extra dev")
    checker = jsonschema.Draft202012Validator(closed(printed_schema(name)))
    checker.check_schema(checker.schema)
    checker.validate(json.loads(text))


def closed(schema: Any) -> Any:
    """The same schema without any key that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if isinstance(found.get("properties"), dict):
        found["additionalProperties"] = False
    return found


@pytest.mark.parametrize("check", [assert_same, assert_fits])
def test_a_status_with_everything_in_it_fits_as_well(check):
    """Peers, transfers, certificates, clocks: what a cluster of one has nothing of."""
    sent = TransferProgress(index=9, sent_bytes=1, total_bytes=2, files_done=0, files=1)
    node = status_of(
        1,
        certificates=[CertificateStatus(role="node", name="n", not_after=datetime.now(UTC), expires_s=1.0)],
        clock=ClockStatus(wall_ms=1, log_time_ms=1, bound_ms=1, doubts=0),
        versions=UpgradeStatus(1, 1, 2, ("fill",), 3, "failed", "waits"),
        timers=TimerStatus(1, 2, 3, 4, 5),
        methods={"put": MethodTime(kind="command", line="a.py:1")},
        took={"commit": Durations()},
        lasting_s={"stopped": 1.0},
        mistakes={"put": 1},
        settings=[
            Setting("auto_upgrade", True, "--set", True, False),
            Setting("keep_bytes", 1.5, "x", 1, True),
        ],
        formats={"log": 2},
        installing=sent,
        damaged=["a"],
    )
    node.peers = [
        PeerStatus(node_id=2, connected=False, rtt_ms=0.5, snapshot=sent, unreached="x", round_trips=Durations())
    ]
    text = msgspec.json.encode(status_value(ClusterView([node], [Silent("a:1", "refused", 2)]))).decode()
    lacking = {field.name for field in msgspec.structs.fields(NodeStatus)} - json.loads(text)["nodes"][0].keys()
    assert not lacking
    check("status", text)


@pytest.mark.parametrize("check", [assert_same, assert_fits])
def test_a_key_that_the_schema_lacks_would_be_seen(check):
    """Both ways of looking find one, deep inside."""
    value = json.loads(msgspec.json.encode(status_value(ClusterView([status_of(1)], []))))
    value["nodes"][0]["membership"]["members"][0]["more"] = 1
    with pytest.raises(Exception, match=r"more|assert"):
        check("status", json.dumps(value))


def test_schemas_are_listed_and_printed():
    """By the words of the command; an unknown one is refused with those that there are."""
    assert invoke("schema").stdout.splitlines() == list(PRINTED)
    schema = json.loads(invoke("schema", "snapshot", "list").stdout)
    assert schema["title"] == "raftkv snapshot list --json" and schema["type"] == "array"
    refused = invoke("schema", "weather")
    assert refused.exit_code == 2 and "snapshot list" in refused.stderr
