"""Our advantages against those that TRL's own trainers hand to their losses."""

from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from tests.peers.groups import grouped

pytest.importorskip("trl", minversion="1.16")
grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")
rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer")


def their_advantages(module, name, case, monkeypatch, **settings):
    """What the trainer's own method makes of these rewards, (R,); it generates what it is told."""
    for helper in ("gather_object", "gather"):
        monkeypatch.setattr(module, helper, lambda value: value, raising=False)
    lengths = case.batch.lengths.tolist()
    prompts, completions = [[1]] * len(lengths), [[5] * length for length in lengths]
    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, process_index=0, num_processes=1
    )
    trainer = MagicMock()
    trainer.configure_mock(
        accelerator=alone,
        args=SimpleNamespace(
            per_device_train_batch_size=len(lengths),
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
            gradient_checkpointing=False,
        ),
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        num_iterations=1,
        num_generations=len(lengths) // case.batch.group_count,
        beta=0.0,
        use_vllm=False,
        environment_factories=None,
        environments=None,
        tools=None,
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        reward_weights=torch.ones(1),
        reward_funcs=[None],
        reward_func_names=["reward"],
        reward_clip_range=None,
        multi_objective_aggregation="sum_then_normalize",
        log_multimodal=False,
        _pending_extra_logs={},
        _pending_metrics={},
        _metrics={"train": defaultdict(list)},
        _logs=defaultdict(list, rewards=defaultdict(list)),
        **settings,
    )
    trainer._tokenizer.pad_token_id = 0
    trainer._calculate_rewards.return_value = case.rewards[:, None]
    texts = [""] * len(lengths)
    if name == "GRPOTrainer":
        trainer._generate.return_value = (
            prompts, completions, None, texts, None, {}, None, None
        )  # fmt: skip
    else:
        trainer._generate.return_value = (prompts, completions, texts)
    table = torch.zeros(case.mask.shape, dtype=torch.float64)
    trainer._get_per_token_logps_and_entropies.return_value = (table, None, None)
    method = getattr(module, name)._generate_and_score_completions
    return method(trainer, [{"prompt": ""}] * len(lengths))["advantages"]


equal_groups = grouped(smallest=2, equal=True)


@given(equal_groups, st.sampled_from(["group", "none"]))
def test_grpo_and_dr_grpo(case, scale):
    """TRL's groups are of one size, and it adds 1e-4 to the deviation."""
    with pytest.MonkeyPatch.context() as patch:
        theirs = their_advantages(grpo_trainer, "GRPOTrainer", case, patch, scale_rewards=scale)
    advantage = CentredAdvantage(scale="std" if scale == "group" else "none", epsilon=1e-4)
    mine = advantage.of_rollouts(case.batch, case.rewards)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@given(equal_groups)
def test_rloo(case):
    """Leave one out."""
    with pytest.MonkeyPatch.context() as patch:
        theirs = their_advantages(
            rloo_trainer, "RLOOTrainer", case, patch, normalize_advantages=False
        )
    advantage = CentredAdvantage(centre="leave-one-out", scale="none")
    mine = advantage.of_rollouts(case.batch, case.rewards)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@given(equal_groups)
def test_rloo_normalised_over_the_batch(case):
    """Leave one out, then over the deviation of the batch's rollouts plus 1e-4."""
    with pytest.MonkeyPatch.context() as patch:
        theirs = their_advantages(
            rloo_trainer, "RLOOTrainer", case, patch, normalize_advantages=True
        )
    advantage = CentredAdvantage(centre="leave-one-out", scale="batch", epsilon=1e-4)
    mine = advantage.of_rollouts(case.batch, case.rewards)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
