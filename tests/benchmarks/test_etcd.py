"""The generator's HTTP/2 and protobuf, byte by byte, and against a real etcd where there is one."""

from __future__ import annotations

import pytest

from benchmarks.load import etcd as wire
from benchmarks.load.generator import run_load
from benchmarks.load.spec import LoadSpec, Target
from benchmarks.peers import etcd
from benchmarks.peers.etcd import EtcdCluster


def test_messages_are_those_of_the_protocol():
    """As protoc would encode them, in gRPC's envelope."""
    assert wire.put_request(b"k", b"v") == b"\0\0\0\0\x06\x0a\x01k\x12\x01v"
    assert wire.put_request(b"k", bytes(300))[5:11] == b"\x0a\x01k\x12\xac\x02"
    assert wire.range_request(b"k", serializable=False) == b"\0\0\0\0\x03\x0a\x01k"
    assert wire.range_request(b"k", serializable=True) == b"\0\0\0\0\x05\x0a\x01k\x38\x01"


def test_a_frame_has_its_length_kind_flags_and_stream():
    """Nine bytes before the payload (RFC 9113, 4.1)."""
    assert wire.frame(wire.DATA, wire.END_STREAM, 7, b"abc") == b"\0\0\x03\0\x01\0\0\0\x07abc"


def test_headers_are_sent_once_and_named_by_a_byte_from_then_on():
    """The newest field of the table has index 62, older ones more (RFC 7541, 2.3.3)."""
    table = wire.HeaderTable()
    first = table.block(wire.PUT, b"host")
    assert b"/etcdserverpb.KV/Put" in first
    assert table.block(wire.PUT, b"host") == b"\x83\x86" + bytes([0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62])
    assert b"/etcdserverpb.KV/Range" in table.block(wire.RANGE, b"host")
    assert table.block(wire.PUT, b"host")[2:] == bytes([0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63])


@pytest.mark.skipif(etcd.missing() is not None, reason=f"etcd is not installed: {etcd.INSTALL}")
def test_what_is_counted_as_written_is_in_etcd():
    """Every answered put is a revision, and no more than were asked for; reads of keys that are there succeed."""
    with EtcdCluster(1) as cluster:
        spec = LoadSpec(
            target=Target.ETCD,
            addresses=cluster.addresses(leader=True),
            connections=2,
            outstanding=5,
            keys=50,
            warmup_s=0.0,
            seconds=0.3,
        )
        written = run_load(spec)
        assert written.operations > 0
        assert written.errors == {}
        revision = int(cluster.control("get", "key-000000000000", "-w", "fields").split('"Revision" : ')[1].split()[0])
        assert written.operations <= revision - 1 <= written.operations + 10
