"""Which Ray a pool runs on: what is wrong is said before any is begun."""

import sys

import pytest

from optpo.errors import SettingsError
from optpo.sampling.ray_cluster import RaySettings, connect


def test_settings_out_of_range_are_all_named():
    """Each with the value and what it may be."""
    with pytest.raises(SettingsError) as caught:
        RaySettings(workers=0, restarts=-1, start_seconds=0, resources={"CPU": -1})
    assert len(caught.value.problems) == 4


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    """Ray is an extra; nothing else of optpo needs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'optpo\[ray\]'"):
        connect(RaySettings())
