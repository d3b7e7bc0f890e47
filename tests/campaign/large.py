"""What is tried in a plain run of the tests, and what takes long and is left to CAMPAIGNS=1, as in CI."""

from __future__ import annotations

import os

import pytest

IS_LARGE = os.environ.get("CAMPAIGNS") == "1"

CAMPAIGN = pytest.mark.skipif(not IS_LARGE, reason="takes long: run with CAMPAIGNS=1, as CI does")
"""Marks tests of whose kind others run always, and whose faults `tools/chaos` or `tools/simulate` makes as well."""
