"""What the status says of cluster secrets."""

from __future__ import annotations

from raftkv.cli.clustersecret import secret_lines
from tests.cli.test_view import status_of


def test_secrets_in_words() -> None:
    """Nothing without one; one line when all nodes have the same; who has which while they change to another."""
    old, new = "00aa", "11bb"

    def lines(*files: list[str]) -> list[str]:
        return secret_lines([status_of(number, secret_marks=marks) for number, marks in enumerate(files, 1)])

    assert lines([], []) == []
    assert lines([old], [old], []) == ["cluster secret: nodes 1, 2 prove 00aa and accept no other"]
    assert lines([old, new], [old], [old, new]) == [
        "cluster secret: nodes 1, 3 prove 00aa and accept 11bb too; node 2 proves 00aa and accepts no other"
    ]
