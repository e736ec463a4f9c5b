"""Our objectives against the loss methods of TRL's own trainers: values and gradients."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.truncated import TruncatedObjective
from tests.peers.ragged import ragged

pytest.importorskip("trl", minversion="1.16")
GRPOTrainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
RLOOTrainer = pytest.importorskip("trl.trainer.rloo_trainer").RLOOTrainer

LONGEST = 11


def stub(logp, **settings):
    """As much of a trainer as its loss reads, with the padded log-probs of a model."""
    alone = SimpleNamespace(
        num_processes=1,
        gather=lambda value: value,
        gather_for_metrics=lambda value: value,
        reduce=lambda value, reduction: value,
        sync_gradients=True,
    )
    arguments = {
        "delta": settings.pop("delta", None),
        "use_bias_correction_kl": settings.pop("weighted", False),
        "steps_per_generation": 1,
    }
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        accelerator=alone,
        args=SimpleNamespace(**arguments),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        aux_loss_enabled=False,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        **{
            "beta": 0.0,
            "epsilon_low": 0.2,
            "epsilon_high": 0.28,
            "importance_sampling_level": "token",
            **settings,
        },
    )


def grpo(case, **settings):
    """GRPOTrainer's loss as a function of the padded log-probs."""
    first = case.lengths.cumsum(0) - case.lengths
    inputs = {
        "prompt_ids": torch.zeros(len(case.lengths), 2).long(),
        "prompt_mask": torch.ones(len(case.lengths), 2).long(),
        "completion_ids": torch.zeros_like(case.mask).long(),
        "completion_mask": case.mask,
        "advantages": case.batch.advantages[first],
        "old_per_token_logps": case.pad(case.batch.logp_old),
        "ref_per_token_logps": case.pad(case.batch.logp_ref),
        "num_items_in_batch": case.mask.sum(),
    }
    return lambda logp: GRPOTrainer._compute_loss(stub(logp, **settings), None, inputs)


AGGREGATES = {
    "grpo": "sequence-mean-token-mean",
    "bnpo": "token-mean",
    "dapo": "token-mean",
    "dr_grpo": "constant-length",
    "luspo": "sequence-mean-token-sum",
}
loss_types = st.sampled_from(sorted(AGGREGATES))
cases = ragged(per_rollout=True)


@given(cases, loss_types, st.sampled_from([0.0, 0.04]), st.booleans())
def test_clipped_losses(case, loss_type, beta, weighted):
    """Its loss types are one clipped loss under four aggregations; the penalty is k3, weighted by
    default."""
    objective = ClippedObjective(clip_high=0.28, aggregate=AGGREGATES[loss_type])
    theirs = grpo(case, loss_type=loss_type, beta=beta, weighted=weighted)
    case.assert_same(objective, theirs, LONGEST, terms=[KlPenalty(beta, weighted=weighted)])


@given(cases, loss_types)
def test_its_delta_is_a_dual_clip(case, loss_type):
    """A bound on the ratio from above, beyond the clip, acts on negative advantages only."""
    objective = ClippedObjective(clip_high=0.28, dual_clip=1.4, aggregate=AGGREGATES[loss_type])
    case.assert_same(objective, grpo(case, loss_type=loss_type, delta=1.4), LONGEST)


@given(cases, st.sampled_from(["grpo", "luspo"]), st.sampled_from([(3e-4, 4e-4), (0.2, 0.28)]))
def test_sequence_ratios(case, loss_type, clips):
    """GSPO (with grpo's aggregation) and LUSPO: TRL takes the gradient through the mean log-ratio, we
    through each token; with one advantage a rollout they are the same."""
    objective = ClippedObjective(
        ratio="sequence", clip_low=clips[0], clip_high=clips[1], aggregate=AGGREGATES[loss_type]
    )
    theirs = grpo(
        case,
        loss_type=loss_type,
        importance_sampling_level="sequence",
        epsilon_low=clips[0],
        epsilon_high=clips[1],
    )
    case.assert_same(objective, theirs, LONGEST)


@given(ragged(spread=1.0, per_rollout=True), st.sampled_from([0.0, 0.04]))
def test_cispo(case, beta):
    """TRL's epsilon_high is the bound itself, and there is no lower one."""
    theirs = grpo(case, loss_type="cispo", epsilon_high=1.5, beta=beta)
    case.assert_same(TruncatedObjective(clip_high=0.5), theirs, terms=[KlPenalty(beta)])


@given(cases)
def test_rloo(case):
    """One ratio for a whole rollout, not normalised by its length, and a mean over rollouts."""
    first = case.lengths.cumsum(0) - case.lengths
    inputs = {
        "prompt_ids": torch.zeros(len(case.lengths), 2).long(),
        "prompt_mask": torch.ones(len(case.lengths), 2).long(),
        "completion_ids": torch.zeros_like(case.mask).long(),
        "completion_mask": case.mask,
        "advantages": case.batch.advantages[first],
        "old_logps": (case.pad(case.batch.logp_old) * case.mask).sum(1),
    }
    objective = ClippedObjective(
        ratio="product", clip_high=0.28, aggregate="sequence-mean-token-mean"
    )
    case.assert_same(
        objective, lambda logp: RLOOTrainer._compute_loss(stub(logp), None, inputs), LONGEST
    )
