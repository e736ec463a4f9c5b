"""Which Ray a pool runs on: what is wrong is said before any is begun."""

import sys

import pytest

from optpo.errors import EngineError, SettingsError
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


@pytest.mark.slow
def test_workers_that_do_not_fit_on_this_machine_are_not_waited_for():
    """The Ray begun here is asked for what it has, and ended."""
    ray = pytest.importorskip("ray")
    said = r"workers is 2, more than fit on this machine.* 99 GPU \(there are \d+, \d+ free\)"
    with pytest.raises(EngineError, match=said):
        connect(RaySettings(resources={"CPU": 1, "GPU": 99}))
    assert not ray.is_initialized()
