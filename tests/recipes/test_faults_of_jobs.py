"""Queues, rate limits and keys under all the faults that the test kit knows, against models that know the time too."""

from __future__ import annotations

from hypothesis import strategies as st

from raftkv.recipes import IdempotencyKeys, Queues, RateLimits
from raftkv.testing import calls, earlier, fault_test
from tests.recipes.jobs import KeysModel, QueuesModel, RatesModel

KEYS = st.sampled_from("xy")
QUEUES = st.sampled_from("xy")
SPANS = st.sampled_from([0.0, 0.2, 2.0])
RECEIPTS = earlier(Queues.take, 1, part="receipt")
JOBS = earlier(Queues.put, st.integers(1, 6))

test_queues = fault_test(
    Queues,
    model=QueuesModel,
    commands=[
        calls(
            Queues.put, QUEUES, st.sampled_from(["", "a"]), st.integers(0, 2), SPANS, st.integers(1, 3), SPANS, SPANS
        ),
        calls(Queues.put, "x", "b", 0, 0.0, 2, 0.2, 600.0),
        calls(Queues.take, QUEUES, "w", st.sampled_from([0.3, 2.0, 600.0])),
        calls(Queues.take, "x", "w", 600.0),
        calls(Queues.take, "x", "v", 600.0),
        calls(Queues.extend, RECEIPTS, 1.0),
        calls(Queues.ack, RECEIPTS, "r"),
        calls(Queues.nack, RECEIPTS, "e", None),
        calls(Queues.nack, RECEIPTS, "e", SPANS),
        calls(Queues.hand_back, RECEIPTS),
        calls(Queues.remove, JOBS),
        calls(Queues.revive, JOBS),
        calls(Queues.look, JOBS),
        calls(Queues.sizes, QUEUES),
        calls(Queues.dead_letters, QUEUES, st.integers(0, 2)),
    ],
)


test_rate_limits = fault_test(
    RateLimits,
    model=RatesModel,
    key="name",
    commands=[
        calls(RateLimits.ask, st.sampled_from("xy"), 5, 2.0, 3, st.integers(1, 3)),
        calls(RateLimits.spend, st.sampled_from("xy"), 5, 2.0, 3, 1),
        calls(RateLimits.refill, st.sampled_from("xy")),
    ],
)


TOKENS = earlier(IdempotencyKeys.begin, st.integers(1, 3), part="token")
SPANS = st.sampled_from([0.5, 600.0])

test_keys = fault_test(
    IdempotencyKeys,
    model=KeysModel,
    commands=[
        calls(IdempotencyKeys.begin, KEYS, "a", SPANS),
        calls(IdempotencyKeys.begin, "x", st.sampled_from("ab"), 600.0),
        calls(IdempotencyKeys.hold, "x", TOKENS, SPANS),
        calls(IdempotencyKeys.finish, KEYS, TOKENS, "done", SPANS),
        calls(IdempotencyKeys.finish, "x", TOKENS, "well done", 600.0),
        calls(IdempotencyKeys.abandon, KEYS, TOKENS),
        calls(IdempotencyKeys.state_of, KEYS),
    ],
)
