"""What all tests share: quiet logs. Simulated clusters have much to say, and nobody reads it."""

from __future__ import annotations

import pytest
import structlog


@pytest.fixture(autouse=True)
def quiet_logs():
    """Log to nowhere, whatever a test before has set."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
