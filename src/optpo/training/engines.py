"""The engine that samples from a policy: in this process or in others."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from optpo.sampling.engine import Engine, SampleSettings
from optpo.sampling.ray_cluster import RaySettings
from optpo.sampling.ray_engine import RayEngine
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.sampling.vllm_engine import open_vllm
from optpo.sampling.voter import Voter
from optpo.training.loading import load_policy
from optpo.training.policy import Policy
from optpo.training.settings import LoraSettings, ModelSettings, RunSettings


def open_voter(policy: Policy, settings: RunSettings, prompts: Iterable[tuple[int, ...]]) -> Voter:
    """Votes of a policy by the engine that the settings name; of `prompts` or shorter ones.

    Raises SettingsError where the engine is not installed or cannot draw as asked, EngineError where
    it does not start.
    """
    sample, engine = settings.sample, settings.engine
    longest = max(map(len, prompts))
    opened: Engine
    if engine.workers == 0:
        opened = _open_here(engine.name, policy, sample, longest)
    else:
        plain = replace(settings.model, lora=LoraSettings())
        opened = RayEngine(
            partial(_open_in_worker, engine.name, plain, sample, longest),
            RaySettings(
                workers=engine.workers,
                address=engine.cluster,
                resources={"CPU": 1.0, "GPU": engine.worker_gpus},
            ),
            save=policy.save,
        )
    return Voter(opened, policy.decode, sample, settings.data.answers)


def open_sampling(
    settings: RunSettings,
    whole: Policy,
    voter: Voter,
    prompts: Sequence[tuple[int, ...]],
    stack: ExitStack,
) -> tuple[Policy, Voter, Voter | None]:
    """The policy that training samples from, its voter, and one that draws the likeliest token.

    They are those of the evaluation unless the update overlaps, rollouts are sampled by windows, or
    a part asks for greedy rollouts. `stack` closes what is opened.
    """
    sampling, greedy = whole, None
    if settings.overlap:
        sampling = whole.copy()
        voter = stack.enter_context(open_voter(sampling, settings, prompts))
    if settings.window:
        short = replace(settings.sample, max_new_tokens=settings.window)
        voter = stack.enter_context(open_voter(sampling, replace(settings, sample=short), prompts))
    if "greedy" in settings.needs:
        likeliest = replace(settings, sample=replace(settings.sample, temperature=0.0))
        greedy = stack.enter_context(open_voter(sampling, likeliest, prompts))
    return sampling, voter, greedy


def _open_here(name: str, policy: Policy, sample: SampleSettings, longest: int) -> Engine:
    if name == "transformers":
        return TransformersEngine(
            policy.model, policy.decode, policy.end_tokens, sample, policy.mixed
        )
    precision = str(policy.autocast).removeprefix("torch.")
    with TemporaryDirectory(prefix="optpo-") as scratch:
        folder = Path(scratch) / "policy"
        policy.save(folder)
        return open_vllm(folder, sample, policy.end_tokens, longest, precision, policy.save)


def _open_in_worker(
    name: str, model: ModelSettings, sample: SampleSettings, longest: int
) -> Engine:
    # As many processes as cores share the machine.
    torch.set_num_threads(1)
    return _open_here(name, load_policy(model, sample.temperature), sample, longest)
