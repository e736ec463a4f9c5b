"""The engine that samples from a policy: in this process or in others."""

from collections.abc import Iterable
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
