"""Rollouts that take several steps."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.recipes import build_settings
from optpo.rewards.verified import VerifiedReward
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.sampling.engine import SampleSettings
from optpo.training.engines import open_voter
from optpo.training.judge import judge
from optpo.training.prompt_state import Partial, PromptStore
from optpo.training.settings import RunSettings
from optpo.training.visits import Visit
from optpo.training.windows import sample_window
from tests.training.runs import VERIFIED, QuietView, run

WINDOWED = [*VERIFIED, "allocate.votes=2", "window=12", "steps=4"]


def test_a_rollout_goes_on_where_it_was_cut(policy):
    """Window by window every rollout grows by what its engine samples, keeps its earlier tokens and
    log-probs, and is gone on with until it ends or is as long as allowed."""
    settings = RunSettings(sample=SampleSettings(max_new_tokens=4, rows=8))
    prompts = {"a": (8, 9), "b": (10, 11, 12)}
    left = [Partial(name, index) for name in prompts for index in range(3)]
    lengths = {(partial.prompt_id, partial.index): 0 for partial in left}
    with open_voter(policy, settings, prompts.values()) as voter:
        for step in range(4):
            before = {(partial.prompt_id, partial.index): partial for partial in left}
            ballots, left = sample_window(
                voter, prompts, left, longest=12, seed=1, purpose=f"train {step}"
            )
            rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
            assert [(r.prompt_id, r.index) for r in rollouts] == [*before]
            for rollout in rollouts:
                old = before[rollout.prompt_id, rollout.index]
                assert rollout.tokens[: len(old.tokens)] == old.tokens
                assert rollout.logps[: len(old.logps)] == old.logps
                assert len(old.tokens) < len(rollout.tokens) <= len(old.tokens) + 4
                assert rollout.prompt_tokens == prompts[rollout.prompt_id]
                lengths[rollout.prompt_id, rollout.index] = len(rollout.tokens)
            cut = {(r.prompt_id, r.index) for r in rollouts if r.finish == "length"}
            assert {(p.prompt_id, p.index) for p in left} == {
                name for name in cut if lengths[name] < 12
            }
            if not left:
                break
    assert left == []
    assert max(lengths.values()) == 12


def test_the_batch_stays_as_large(tmp_path):
    """Rollouts that end make room for new ones of other questions; no question has both; the policy
    learns from the newest window alone; and what was cut is saved between steps."""
    found = run(tmp_path / "run", recipe="t-ppo", small=WINDOWED)
    by_step = [row["rollouts"] for row in found.metrics]
    assert by_step[0] == 16
    assert max(by_step) <= 16
    assert min(by_step) >= 14
    finished = [row for row in found.rollouts if row["finish"] == "stop"]
    assert finished
    assert any(len(row["tokens"]) > 12 for row in finished)
    assert all(row["loss"] is not None for row in found.metrics)


def test_a_run_cut_between_windows_ends_like_one_never_stopped(tmp_path):
    """Rollouts under way survive the machine being switched off."""
    whole = run(tmp_path / "whole", recipe="t-ppo", small=WINDOWED)
    with pytest.raises(RuntimeError, match="switched off"):
        run(tmp_path / "cut", recipe="t-ppo", small=WINDOWED, view=QuietView(2))
    assert run(tmp_path / "cut", recipe="t-ppo", small=WINDOWED) == whole


@pytest.mark.parametrize("neighbour_goes_on", [True, False])
def test_a_rollout_cut_at_its_limit_has_ended(neighbour_goes_on):
    """Whether others go on or not: its score counts, and nothing stands for what would have come."""
    rollouts = [
        Rollout("q", index, 0, (8,), (9, 10), (-1.0, -1.0), "length", vote=-1) for index in range(2)
    ]
    ballot = Ballot("q", (8,), classes=None, rollouts=rollouts)
    visit = Visit(ballot, scores=(0.0, None if neighbour_goes_on else 0.5))
    goes_on = torch.tensor([False, neighbour_goes_on])
    batch, rewards = judge(VerifiedReward(), [visit], None, goes_on)
    assert batch.unfinished.tolist() == [False, neighbour_goes_on]
    assert rewards.isnan().tolist() == [False, neighbour_goes_on]
    assert judge(VerifiedReward(), [visit])[0].unfinished.all()


def test_partials_survive_json():
    """What a store holds comes back."""
    store = PromptStore()
    store.partials = [Partial("q", 3, (5, 6), (-0.5, -0.25))]
    store.notes = {"low quantile": 0.5}
    store.note("q", {"value": 0.25, "weight": 8.0})
    again = PromptStore.from_json(store.to_json())
    assert (again.partials, again.notes) == (store.partials, store.notes)
    assert again["q"].notes == {"value": 0.25, "weight": 8.0}


@pytest.mark.parametrize(
    "assignments",
    [["window=7"], ["window=-1"], ["overlap=1"], ["prompts.part=dynamic"], ["allocate.part=optpo"]],
)
def test_windows_go_with_little_else(assignments):
    with pytest.raises(SettingsError, match="window"):
        build_settings("t-ppo", assignments=assignments)
