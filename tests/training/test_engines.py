"""A run whose rollouts come from somewhere else."""

import pytest

from optpo.errors import SettingsError
from optpo.training.settings import EngineSettings
from tests.training.runs import run


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0, 1])
def test_workers_of_a_cluster_change_nothing(tmp_path, overlap):
    """With rollouts from two processes of a Ray cluster, which are handed the weights after every
    update, a run is that of one process: the same votes, and the same weights to the bit."""
    alone = run(tmp_path / "alone", f"overlap={overlap}")
    pooled = run(tmp_path / "pooled", f"overlap={overlap}", "engine.workers=2")
    assert pooled.weights == alone.weights
    for row, expected in zip(pooled.rollouts, alone.rollouts, strict=True):
        assert (row["prompt_id"], row["index"]) == (expected["prompt_id"], expected["index"])
        assert (row["tokens"], row["version"]) == (expected["tokens"], expected["version"])
    assert {row["version"] for row in pooled.rollouts} == ({0, 1} if overlap else {0, 1, 2})


def test_settings_out_of_range_are_named_together():
    """Each with what would be right."""
    with pytest.raises(SettingsError) as error:
        EngineSettings(workers=-1, worker_gpus=-0.5)
    assert len(error.value.problems) == 2
    with pytest.raises(SettingsError, match="cluster is 'auto', but workers is 0"):
        EngineSettings(cluster="auto")
