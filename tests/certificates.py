"""Certificates for tests, which are skipped where none can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import certificates
from tests.chaos.certificates import run

__all__ = ["Authority", "run"]


class Authority(certificates.Authority):
    """Issues certificates, or skips the test."""

    def __init__(self, folder: Path, name: str = "ca", *, days: int = 400) -> None:
        if (reason := certificates.missing()) is not None:
            pytest.skip(reason)
        super().__init__(folder, name, days=days)
