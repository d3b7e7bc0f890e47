"""Load generators: processes of their own, so that what they cost is not what is measured."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

import msgspec
import uvloop

from benchmarks.load import etcd, following, keys, library, raftkv
from benchmarks.load.rhythm import NS, Connection, Recorder, rhythm_of
from benchmarks.load.spec import LoadResult, LoadSpec, Target, merge

OPENING_AT_ONCE = 50
"""Connections opened together: more would overflow a listener's queue."""
START_IN_S = 0.2
STOP = -1
PATIENCE_S = 60.0


class LoadFailed(RuntimeError):
    """A generator could not do its work; the message says why."""


def run_load(spec: LoadSpec, meanwhile: Callable[[], None] | None = None) -> LoadResult:
    """Run it in processes of its own and wait.

    `meanwhile` is called once when the measured time has begun; the load ends with it, or with its own time.

    Raises `LoadFailed`.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(spec.generators):
            ours, theirs = context.Pipe()
            process = context.Process(target=_generate, args=(spec, number, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, PATIENCE_S)
        start_ns = time.perf_counter_ns() + round(START_IN_S * NS)
        for pipe in pipes:
            pipe.send(start_ns)
        if meanwhile is not None:
            time.sleep(START_IN_S + spec.warmup_s)
            meanwhile()
            for pipe in pipes:
                pipe.send(STOP)
        results = [_receive(pipe, spec.warmup_s + spec.seconds + PATIENCE_S) for pipe in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return merge([msgspec.msgpack.decode(result, type=LoadResult) for result in results])


def _receive(pipe: Pipe, patience_s: float) -> bytes:
    try:
        if not pipe.poll(patience_s):
            raise LoadFailed(f"a load generator said nothing for {patience_s:.0f} s")
        kind, content = pipe.recv()
    except (EOFError, OSError):
        raise LoadFailed("a load generator ended early") from None
    if kind == "failed":
        raise LoadFailed(content)
    assert isinstance(content, bytes)
    return content


def _generate(spec: LoadSpec, number: int, pipe: Pipe) -> None:
    message: tuple[str, bytes | str]
    try:
        message = ("result", msgspec.msgpack.encode(uvloop.run(_run(spec, number, pipe))))
    except Exception as exc:  # noqa: BLE001 (whatever it is, the process that waits is to know)
        message = ("failed", f"{type(exc).__name__}: {exc}")
    os.set_blocking(pipe.fileno(), True)  # the event loop has read from it; a long result would not fit at once
    pipe.send(message)


def _connections(spec: LoadSpec, number: int, recorder: Recorder) -> list[Connection]:
    """This generator's share of the connections."""
    count = len(range(number, spec.connections, spec.generators))
    value = keys.value(spec.value_bytes, spec.seed)
    addresses = [spec.addresses[at % len(spec.addresses)] for at in range(count)]
    make: Callable[[LoadSpec, str, Recorder, bytes], Connection]
    match spec.target:
        case Target.RAFTKV:
            make = raftkv.RaftkvConnection
        case Target.LIBRARY:
            make = library.LibraryConnection
        case Target.ETCD:
            make = etcd.EtcdConnection
        case Target.ETCD_FOLLOWING:
            make = following.FollowingEtcdConnection
    return [make(spec, address, recorder, value) for address in addresses]


async def _run(spec: LoadSpec, number: int, pipe: Pipe) -> LoadResult:
    recorder = Recorder(by_due_time=spec.rate is not None)
    connections = _connections(spec, number, recorder)
    for at in range(0, len(connections), OPENING_AT_ONCE):
        await asyncio.gather(*[each.open() for each in connections[at : at + OPENING_AT_ONCE]])
    if spec.in_order:
        operations = keys.in_order(spec.keys, number, spec.generators)
    else:
        operations = keys.operations(keys=spec.keys, zipf=spec.zipf, reads=spec.reads, seed=spec.seed * 1000 + number)
    recorder.rhythm = rhythm = rhythm_of(spec, operations)
    # What is alive now stays; collecting the little that comes later must not look into it again and again.
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    started: asyncio.Future[int] = loop.create_future()
    stopped = asyncio.Event()

    def told() -> None:
        message: int = pipe.recv()
        if message == STOP:
            stopped.set()
            recorder.stop()
            rhythm.stop()
        else:
            started.set_result(message)

    loop.add_reader(pipe.fileno(), told)
    pipe.send(("ready", b""))
    start_ns = await started
    begin_ns = start_ns + round(spec.warmup_s * NS)
    end_ns = begin_ns + round(spec.seconds * NS)
    recorder.window(begin_ns, end_ns)
    await asyncio.sleep((start_ns - time.perf_counter_ns()) / NS)
    used = time.process_time()
    if stopped.is_set():  # on a machine so busy that the end was told before the beginning was noticed
        recorder.stop()
    else:
        await rhythm.run(connections, end_ns)
    used = time.process_time() - used
    loop.remove_reader(pipe.fileno())
    recorder.rhythm = None
    for each in connections:
        await each.close()
    return recorder.result(cpu_s=used, unanswered=rhythm.unanswered, timeline=spec.timeline)
