"""A headless Chromium for tests; where there is none, they are skipped and say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_OFF = ("quic", "background-networking", "component-update", "sync", "gpu", "dev-shm-usage")


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A selenium driver with an empty profile; pages are opened from the disk, and the network is left alone."""
    binary, driver = next(filter(None, map(shutil.which, _CHROMIUM)), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    flags = ["--headless", "--no-sandbox", "--no-first-run", "--window-size=1300,1000", f"--user-data-dir={profile}"]
    for flag in (*flags, *(f"--disable-{name}" for name in _OFF)):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield chromium
    finally:
        chromium.quit()
