"""Shared fixtures of the report's tests."""

import matplotlib
import pytest


@pytest.fixture(autouse=True)
def settings_untouched():
    """No drawing may change matplotlib's global settings, nor open a figure that pyplot holds."""
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
