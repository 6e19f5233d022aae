"""What every test of the package shares."""

import os
import sys

import pytest
from hypothesis import settings

from mslearn import index

os.environ.setdefault("MPLBACKEND", "agg")

# On a busy machine a deadline fails tests that are right. CI draws the same examples every time.
settings.register_profile("course", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("course")


@pytest.fixture(autouse=True)
def no_index(monkeypatch):
    """No test fetches what a second run, without a network, would lack."""
    monkeypatch.setattr(index, "pip_options", lambda: {"no-index": "true"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """In CI a test that skips itself for want of a browser or a sandbox has failed."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    needed = item.get_closest_marker("browser") or (
        item.get_closest_marker("sandbox") and sys.platform == "linux"
    )
    if skipped and os.environ.get("CI") == "true" and needed:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where it has to run: {report.longrepr[2]}"
    return report
