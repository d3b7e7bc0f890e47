"""A browser without a window, for tests of the page."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def missing() -> str | None:
    """Why there is no browser here; None when there is one."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed: pip install 'raftkv[dev]'"
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install chromium chromium-driver"
    return None


needs_browser = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A fresh Chromium, driven by selenium."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={directory}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(
            executable_path=shutil.which("chromedriver"), env={**os.environ, "HOME": directory}
        )
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_page_load_timeout(60)
            driver.set_script_timeout(30)
            yield driver
        finally:
            driver.quit()


def resize(driver: Any, width: int, height: int = 900) -> None:
    """Be a screen of so many pixels."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def prefer(driver: Any, scheme: str) -> None:
    """Be set to `light` or `dark`."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def text(driver: Any, selector: str) -> str:
    """What is to be read in the first such element; empty when there is none."""
    found = driver.execute_script(
        "const each = document.querySelector(arguments[0]); return each ? each.textContent : ''", selector
    )
    return str(found)
