"""Recipes in whole runs: each trains, and what it remembers survives a run that is switched off."""

import json
import sys
from dataclasses import dataclass

import pytest
import torch

from optpo.advantages.centred import CentredAdvantage
from optpo.data import embedded_model_path, load_questions
from optpo.errors import ModelError, SettingsError
from optpo.recipes import build_settings, read_recipe, recipe_names
from optpo.shapes.none import NoShape
from optpo.training.learner import Learner
from optpo.training.settings import RunSettings
from tests.training.runs import VERIFIED, QuietView, run

REMEMBERING = (
    "spo-single-stream", "optpo-spo", "riskpo", "ppo-max", "hapo-history", "dapo-bytedance", "remax",
    "hapo-heterogeneous", "gtpo",
)  # fmt: skip
OF_A_RECIPE = {
    "rto": [f"model.guide={embedded_model_path()}"],
    "hbpo": ['prompts.sentence=""', *(f"{stage}.budgets=[14,20,26,32]" for stage in
             ("prompts", "shape", "advantage")), "shape.context=48", "advantage.context=48"],
    "t-ppo": ["allocate.votes=2"],
    # Of eight rollouts, one a question, a step's may all be worth what their greedy ones are.
    "remax": ["allocate.votes=4"],
    "dapo-bytedance": ["prompts.questions_per_step=2", "update.minibatches=1"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_trains(tmp_path, recipe):
    """Three steps on eight questions: finite losses, weights that moved, and rows that add up; and the
    same weights, to the bit, whatever the sampling batch is."""
    extra = OF_A_RECIPE.get(recipe, ())
    found = run(tmp_path / "run", *extra, recipe=recipe, small=VERIFIED)
    narrow = run(tmp_path / "narrow", *extra, "sample.rows=5", recipe=recipe, small=VERIFIED)
    assert narrow.weights == found.weights
    trained = [row for row in found.metrics if row["loss"] is not None]
    assert trained
    assert found.metrics[-1]["version"] > 0
    assert all(row["skipped_updates"] == 0 for row in trained)
    assert all(row["gradient_norm"] > 0 for row in trained)
    assert all(row["sampling_gap"] < 1e-4 for row in trained)
    assert sum(row["rollouts"] for row in found.metrics) == len(found.rollouts)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", REMEMBERING)
def test_a_run_that_remembers_ends_like_one_never_stopped(tmp_path, recipe):
    """Values, records, quantiles, moments, refills and greedy rollouts: the same to the bit."""
    extra = OF_A_RECIPE.get(recipe, ())
    whole = run(tmp_path / "whole", *extra, recipe=recipe, small=VERIFIED)
    with pytest.raises(RuntimeError, match="switched off"):
        run(tmp_path / "cut", *extra, recipe=recipe, small=VERIFIED, view=QuietView(2))
    assert run(tmp_path / "cut", *extra, recipe=recipe, small=VERIFIED) == whole


def test_values_are_tracked_and_saved(tmp_path):
    """Every question begins with the mean of its initial rollouts, is one rollout a step, and the
    checkpoint holds its value by its id. (The published code loses them when it resumes.)"""
    found = run(tmp_path / "run", "steps=2", recipe="spo-single-stream", small=VERIFIED)
    assert [row["rollouts"] for row in found.metrics] == [8, 8]
    assert [row["zero_variance_groups"] for row in found.metrics] == [0, 0]
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    state = json.loads((saved / "state.json").read_text())
    notes = {name: of["notes"] for name, of in state["prompts"]["questions"].items()}
    rewards = {}
    for row in found.rollouts:
        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    assert notes.keys() == rewards.keys()
    for of in notes.values():
        assert of["visits"] == 2
        # 8 initial rollouts weigh 8; each visit keeps .875 to .96 of the weight and adds 1.
        assert 8 * 0.875**2 + 1.875 <= of["weight"] <= 8 * 0.96**2 + 1.96
        assert 0 <= of["value"] <= 1
    assert state["ledger"]["tokens_baseline"] > 8 * 8 * 10


def test_a_divergence_over_the_likeliest_tokens_trains(tmp_path):
    """The old policy's distribution is there to measure it by once the policy has moved."""
    narrow = ["steps=1", "objective.bound_low=1e-4", "objective.bound_high=1e-4"]
    recipe = {"recipe": "dppo-divergence", "small": VERIFIED}
    binary, of_heads = (
        run(tmp_path / str(top), *narrow, f"objective.top={top}", **recipe).metrics[0]
        for top in (0, 8)
    )
    assert 0 < binary["mask_share"] < 1
    assert 0 < of_heads["mask_share"] < 1
    assert binary["mask_share"] != of_heads["mask_share"]


def test_the_temperature_follows_the_entropies_of_the_step_before(tmp_path):
    """The first step has none to go by; evaluation and its log-probs keep to the plain one."""
    steps = ["steps=2", "update.learning_rate=1e-12"]
    plain, found = (
        run(
            tmp_path / str(strength),
            *steps,
            f"entropy_temperature={strength}",
            recipe="hapo-heterogeneous",
            small=VERIFIED,
        )
        for strength in (0, 0.5)
    )
    half = found.metrics[0]["rollouts"]
    assert found.rollouts[:half] == plain.rollouts[:half]
    texts = [[row["text"] for row in of.rollouts[half:]] for of in (plain, found)]
    assert texts[0] != texts[1]
    assert all(row["sampling_gap"] < 1e-4 for row in found.metrics)


def test_questions_are_asked_until_enough_teach(tmp_path):
    """Dynamic sampling: a step goes on asking while fewer than two questions have rewards that
    differ, and no question twice."""
    extra = OF_A_RECIPE["dapo-bytedance"]
    found = run(
        tmp_path / "run", *extra, "allocate.votes=4", recipe="dapo-bytedance", small=VERIFIED
    )
    for row in found.metrics:
        rollouts = [r for r in found.rollouts if r["version"] == row["version"] - 1]
        groups = {}
        for rollout in rollouts:
            groups.setdefault(rollout["prompt_id"], []).append(rollout["reward"])
        # With no penalty of length in play the rewards differ where the scores do.
        asked = row["questions"]
        assert asked % 2 == 0
        assert all(len(of) == 4 for of in groups.values())
        teaches = [len({*of}) > 1 for of in groups.values()]
        assert asked == 8 or sum(teaches[: asked - 2]) < 2 <= sum(teaches)


def test_greedy_rollouts_are_the_baseline(tmp_path):
    """ReMax: advantages are the reward less one number a question, 0 or 1, and the tokens of the
    greedy rollouts are counted."""
    found = run(tmp_path / "run", "steps=1", recipe="remax", small=VERIFIED)
    baselines = {}
    for row in found.rollouts:
        baselines.setdefault(row["prompt_id"], set()).add(row["reward"] - row["advantage"])
    assert all(len(of) == 1 for of in baselines.values())
    assert set.union(*baselines.values()) <= {0.0, 1.0}
    assert found.metrics[0]["tokens_baseline"] > 0


def test_questions_say_whether_thinking_is_needed(tmp_path):
    """AdaCoT: by a column. All rollouts think, which costs something where it was not needed; of a
    question that says nothing that is read off them, and it has rewards."""
    questions = load_questions("adapt", 8)
    said = {q.id: [True, False, None][place % 3] for place, q in enumerate(questions)}
    rows = [
        {"id": q.id, "prompt": q.prompt, "gold": q.gold, "needed": said[q.id]} for q in questions
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prices = ["shape.needless=.25", "shape.ill_formed=0"]
    found = run(
        tmp_path / "run", *prices, f"data.questions={tmp_path / 'q.jsonl'}", "steps=1",
        recipe="adacot", small=VERIFIED,
    )  # fmt: skip
    paid = {True: set(), False: set(), None: set()}
    for row in found.rollouts:
        paid[said[row["prompt_id"]]].add(-row["reward"] % 1)
    assert paid == {True: {0}, False: {0.25}, None: {0}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        name
        for name in recipe_names()
        if build_settings(name, assignments=OF_A_RECIPE.get(name, ())).learns_from_gold
    ],
)
def test_any_recipe_runs_without_labels(tmp_path, recipe):
    """One with a verifier learns from the vote instead when it is told to, of eight rollouts."""
    asked = [one for one in OF_A_RECIPE.get(recipe, ()) if not one.startswith("allocate")]
    without = [*asked, "allocate.votes=8", "reward.part=majority", "steps=1"]
    found = run(tmp_path / "run", *without, recipe=recipe, small=VERIFIED)
    assert found.metrics[0]["version"] > 0
    settings = build_settings(recipe, assignments=without)
    if settings.window or not isinstance(settings.shape, NoShape):
        return
    labels = {row["prompt_id"]: row["label"] for row in found.verdicts}
    decided = {row["prompt_id"] for row in found.verdicts if row["kind"] == "decided"}
    for row in found.rollouts:
        if row["prompt_id"] in decided:
            assert row["reward"] == float(row["answer"] == labels[row["prompt_id"]])


@dataclass(frozen=True)
class Asking(CentredAdvantage):
    """An advantage that asks for what nobody gives."""

    @property
    def needs(self):
        return frozenset({"refrence"})


def test_what_nobody_gives_is_refused_before_anything_is_sampled():
    """A misspelt need, or one that only another package's memory would meet."""
    with pytest.raises(SettingsError, match="asks for 'refrence', which the memory part"):
        RunSettings(advantage=Asking())


@dataclass(frozen=True)
class OfRollouts(CentredAdvantage):
    """An advantage that forgets to spread what it gives over tokens."""

    def __call__(self, batch, rewards):
        return self.of_rollouts(batch, rewards), None


def test_advantages_a_rollout_are_refused(policy, ragged_batch):
    """By the name of the part and the shape that it should give."""
    settings = RunSettings(advantage=OfRollouts())
    learner = Learner(settings, policy, None, {})
    with pytest.raises(
        ValueError, match=r"OfRollouts gave advantages of shape \(11,\); .*one a completion"
    ):
        learner._update(ragged_batch, torch.ones(ragged_batch.rollouts), 1)


@pytest.mark.parametrize(
    ("recipe", "assignments", "message"),
    [
        ("grpo", ["advantage.centre=tracked"], "asks for 'tracked', .* memory.part must be values"),
        ("grpo", ["prompts.part=prioritized"], "asks for 'tracked', .* memory.part must be values"),
        ("rto", [], "name it by model.guide"),
        ("hbpo", ["shape.budgets=[1]"], "prompts.budgets is"),
        ("adacot", ["mask.think_token=1"], "shape.think_token is 13, but mask.think_token is 1"),
        ("riskpo", ["memory.low=0.1"], "memory.low is 0.1, but advantage.low is 0.2"),
        ("spo-single-stream", ["overlap=1"], "overlap must be 0"),
        ("grpo", ["window=12"], "window needs advantage.cut hold"),
        ("grpo", ["allocate.votes=1"], "at most 1 .* must take 2 or more"),
        ("remax", ["advantage.centre=mean"], "at most 1 .* must take 2 or more"),
        ("p3o", ["reward.part=majority"], "at most 2 .* must take 3 or more"),
        ("remax", ["reward.part=majority"], "at most 1 .* must take 2 or more"),
        ("grpo", ["entropy_temperature=.1"], "memory.part must be entropies"),
        ("gtpo", ["memory.part=none"], "asks for 'entropies', .* memory.part must be entropies"),
        ("hapo-heterogeneous", ["entropy_temperature=1"], "temperature is 1.0; it must be 0"),
        ("hapo-heterogeneous", ["overlap=1"], "entropy_temperature needs engine.name"),
        ("hapo-heterogeneous", ["engine.name=vllm"], "entropy_temperature needs engine.name"),
        ("hapo-heterogeneous", ["sample.temperature=0"], "entropy_temperature needs engine.name"),
        ("hapo-heterogeneous", ["memory.quantile=.5"], "they must agree"),
        ("dppo-divergence", ["objective.top=4", "overlap=1"], "not kept, so overlap must be 0"),
        ("spo-single-stream", ["prompts.part=uniform", "prompts.budgets=[9]"], "no drift can be"),
        ("remax", ["shape.part=overlong"], "shape.part must be none"),
    ],
)
def test_parts_that_do_not_fit_together(recipe, assignments, message):
    with pytest.raises(SettingsError, match=message):
        build_settings(recipe, assignments=assignments)


@pytest.mark.parametrize(
    ("recipe", "assignments", "most", "needed"),
    [
        ("optpo-sft", ["allocate.part=fixed", "allocate.votes=2"], 2, set()),
        ("dapo-bytedance", ["prompts.part=prioritized", "memory.part=values"], 8,
         {"score", "tracked"}),
        ("otr", ["allocate.votes=1", "select.part=all"], 1, {"score", "logits"}),
    ],
)  # fmt: skip
def test_parts_that_do_fit_together(recipe, assignments, most, needed):
    """Few rollouts that are not compared; a draw by values that no baseline is made of."""
    settings = build_settings(recipe, assignments=assignments)
    assert (settings.allocate.cap, settings.needs) == (most, needed)


def test_a_scale_of_entropies_is_measured_by_itself(tmp_path):
    """No other part need ask for the entropies."""
    found = run(tmp_path / "run", "memory.part=entropies", "steps=2", recipe="grpo", small=VERIFIED)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    notes = json.loads((saved / "state.json").read_text())["prompts"]["notes"]
    assert notes["least entropy"] < notes["quantile entropy"] <= notes["most entropy"]
    assert found.metrics[-1]["version"] > 0


def test_a_run_ends_when_its_tokens_are_spent(tmp_path):
    """After the first step by which as many were sampled, first values among them."""
    most = 8 * 8 * 20 + 400
    found = run(
        tmp_path / "run", f"most_tokens={most}", "steps=50", recipe="spo-single-stream",
        small=VERIFIED,
    )  # fmt: skip
    totals = [row["tokens_total"] for row in found.metrics]
    assert totals[-1] >= most
    assert all(total < most for total in totals[:-1])


def scored(path, body, *assignments, recipe, folder="run", view=None):
    """A run whose rollouts are scored by a function with this body, which sees its arguments."""
    (path / "own_rewards.py").write_text(f"def points(completions, **more):\n    {body}\n")
    chosen = [*assignments, "score.by=own_rewards:points"]
    return run(path / folder, *chosen, recipe=recipe, small=VERIFIED, view=view)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder from which functions are found, and from which none stays loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_rewards", None)


def test_questions_without_a_baseline_are_left_out(own_module):
    """A greedy rollout without a score costs its own question the step, and no other one."""
    body = "return [None if len(c) % 3 == 0 else float(len(c) % 2) for c in completions]"
    found = scored(own_module, body, "steps=2", recipe="remax")
    assert all(row["loss"] is not None and row["skipped_updates"] == 0 for row in found.metrics)
    assert 0 < sum(row["rollouts_kept"] for row in found.metrics) < len(found.rollouts)


@pytest.mark.parametrize("recipe", ["grpo", "dapo-bytedance", "remax", "spo-single-stream"])
def test_every_rollout_is_scored_once(own_module, recipe):
    """Also where a step asks on until enough questions teach; greedy rollouts and first values too."""
    body = (
        "open('asked', 'a').write('x' * len(completions)); return [len(c) % 2 for c in completions]"
    )
    extra = OF_A_RECIPE.get(recipe, ())
    found = scored(own_module, body, *extra, recipe=recipe)
    more = {"remax": 24, "spo-single-stream": 64}.get(recipe, 0)
    assert (own_module / "asked").stat().st_size == len(found.rollouts) + more


def test_a_resumed_run_knows_the_range_of_its_rewards(own_module):
    """With rewards of -1 and 1, those of the initial rollouts too, it draws the same questions."""
    given = ("return [2 * (len(c) % 2) - 1 for c in completions]", "prompts.questions_per_step=3")
    whole = scored(own_module, *given, recipe="spo-single-stream", folder="whole")
    with pytest.raises(RuntimeError, match="switched off"):
        scored(own_module, *given, recipe="spo-single-stream", view=QuietView(1))
    (saved,) = (own_module / "run" / "checkpoints").iterdir()
    states = json.loads((saved / "state.json").read_text())["prompts"]["questions"].values()
    assert min(state["notes"]["least"] for state in states) == -1
    assert scored(own_module, *given, recipe="spo-single-stream") == whole


def test_a_step_without_any_score_is_held_back(own_module):
    """It says so, teaches nothing, and three of them end the run."""
    found = scored(own_module, "return [None] * len(completions)", "steps=9", recipe="grpo")
    assert [row["guards"] for row in found.metrics] == [["no rollout was given a score"]] * 3
    assert all(row["loss"] is None for row in found.metrics)


def test_what_goes_on_has_no_reward_yet(own_module):
    """Windows: the scorer sees rollouts that have ended or are at the limit, and only they count."""
    body = "return [1.0 if 'x' in c else 0.5 for c in completions]"
    found = scored(own_module, body, "allocate.votes=2", "window=12", "steps=2", recipe="t-ppo")
    first = [row for row in found.rollouts if row["version"] == 0]
    assert all(row["reward"] == 0 for row in first if row["finish"] == "length")
    assert found.metrics[0]["reward"] in (None, 0.5)
    assert any(row["reward"] == 0.5 for row in found.rollouts)


def test_a_visit_without_rewards_does_not_forget_the_drift(tmp_path):
    """Where the vote of a question decides nothing its value stands, and so do the rollouts that
    drift is measured by."""
    run(tmp_path / "run", "steps=2", "allocate.cap=8", recipe="optpo-spo", small=VERIFIED)
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    states = json.loads((saved / "state.json").read_text())["prompts"]["questions"].values()
    visits = [(state["notes"].get("visits", 0), state["visits"]) for state in states]
    assert any(rewarded < visited for rewarded, visited in visits)
    for state in states:
        assert bool(state["trajectories"]) == (state["notes"].get("visits", 0) > 0)


def test_budgets_in_words_that_the_model_does_not_know_are_refused(tmp_path):
    """Else every budget would be announced by the same unknown tokens."""
    with pytest.raises(ModelError, match="sentence has words that this model has no tokens"):
        run(tmp_path / "run", recipe="hbpo", small=VERIFIED)


def test_what_makes_it_run_is_in_the_description():
    """The settings that hbpo is tested with on the embedded model, word by word."""
    said = read_recipe("hbpo").description.replace("'", "").split()
    assert {*OF_A_RECIPE["hbpo"]} <= {*said}


def test_a_guide_must_have_the_policys_tokens(tmp_path, llama, tokenizer):
    """Log-probs of other tokens would be no reward of these."""
    for part in (llama, tokenizer):
        part.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="has other tokens than the model that is trained"):
        run(tmp_path / "run", f"model.guide={tmp_path / 'other'}", recipe="rto", small=VERIFIED)
