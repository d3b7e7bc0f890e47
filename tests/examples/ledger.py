"""A ledger: accounts, transfers that a customer may send twice, and a statement page by page.

The nodes: `raftkv serve --machine ledger:Ledger …`
"""

from __future__ import annotations

from typing import Literal

import msgspec

from raftkv import Part, Rejection, StateMachine, Table, Value, command, query
from raftkv.recipes import IdempotencyKeys, RateLimits

BANK: Literal["bank"] = "bank"
"""Money comes from here: its balance is what all others have, below zero."""


class Overdrawn(Rejection):
    """There is too little in the account."""

    account: str
    missing: int


class Entry(msgspec.Struct, frozen=True):
    """A line of a statement."""

    transfer: int
    other: str
    cents: int
    balance: int


class Ledger(StateMachine):
    """Every cent that is somewhere has come from somewhere."""

    keys = Part(IdempotencyKeys)
    rates = Part(RateLimits)
    balances = Table(str, int)
    entries = Table(tuple[str, int], Entry)
    transfers = Value(int, 0)

    @command
    def transfer(self, key: str, source: str, target: str, cents: int) -> int:
        """Returns the transfer's number; the same one if it is sent again with its key. Raises `Overdrawn`."""
        request = (source, target, cents)
        return self.keys.once(key, lambda: self._transfer(*request), answer=int, request=request)

    def _transfer(self, source: str, target: str, cents: int) -> int:
        if cents <= 0 or source == target:
            raise ValueError("cents must be above 0, and go somewhere else")
        if source != BANK:
            self.rates.spend(source, limit=100, per_s=60.0)  # raises TooFast
            if (missing := cents - self.balances.get(source, 0)) > 0:
                raise Overdrawn(account=source, missing=missing)
        self.transfers += 1
        for account, other, change in ((source, target, -cents), (target, source, cents)):
            self.balances[account] = self.balances.get(account, 0) + change
            self.entries[account, self.transfers] = Entry(self.transfers, other, change, self.balances[account])
        return self.transfers

    @query
    def balance(self, account: str) -> int:
        """What is in an account."""
        return self.balances.get(account, 0)

    @query
    def statement(self, account: str, after: bytes | None = None) -> tuple[list[Entry], bytes | None]:
        """Up to fifty lines, and where the next ones begin."""
        page = self.entries.page(after, 50, prefix=(account,))
        return [entry for _, entry in page.items], page.cursor

    @query
    def total(self) -> int:
        """Of all accounts; always 0."""
        return sum(self.balances.values())
