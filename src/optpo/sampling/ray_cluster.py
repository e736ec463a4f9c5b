"""Which Ray a pool of engines runs on: one that is there, or one begun here."""

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optpo.errors import EngineError, SettingsError


@dataclass(frozen=True)
class RaySettings:
    """How many workers, what each needs, and where.

    Args:
        workers: engines, each in a process of its own.
        resources: of each worker, by Ray's names: "CPU", "GPU", or those that a cluster gives its
            nodes.
        address: of a cluster, or "auto"; none: the Ray that this process is connected to, that of
            RAY_ADDRESS, or else one begun on this machine.
        restarts: how often each worker is begun anew after its process, node or engine has failed.
        start_seconds: how long to wait for workers to come up while there is none to go on with.
    """

    workers: int = 2
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    address: str | None = None
    restarts: int = 3
    start_seconds: float = 300.0

    def __post_init__(self) -> None:
        checks = {
            f"workers is {self.workers}; it must be 1 or more": self.workers >= 1,
            f"restarts is {self.restarts}; it must be 0 or more": self.restarts >= 0,
            f"start_seconds is {self.start_seconds}; it must be above 0": self.start_seconds > 0,
        } | {
            f"resources.{name} is {amount}; it must be 0 or more": amount >= 0
            for name, amount in self.resources.items()
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)


def connect(settings: RaySettings) -> bool:
    """Connect this process to Ray, or begin one here; whether there was a need to.

    Raises SettingsError without Ray, EngineError where the cluster cannot be reached, or where the
    one begun here has no room for all workers: it will not grow.
    """
    address = settings.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            ["a pool of engines needs a package that is missing: pip install 'optpo[ray]'"]
        ) from error
    if ray.is_initialized():
        return False
    # Nothing of Ray's goes to standard output, where results belong.
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        try:
            ray.init(address, **quietly)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(f"no Ray cluster can be reached at {address!r}: {error}") from error
        return True
    if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        # It obeys this process and its children alone, and writes no key into the home folder.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    needs = {name: each * settings.workers for name, each in settings.resources.items()}
    needs.pop("GPU", None)
    ray.init(
        "local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(needs.pop("CPU", 0))),
        resources=needs,
        include_dashboard=False,
        **quietly,
    )
    cluster: Any = ray
    has = cluster.cluster_resources()
    if any(has.get(name, 0) < each * settings.workers for name, each in settings.resources.items()):
        needed = needs_of_worker(settings)
        ray.shutdown()
        raise EngineError(f"workers is {settings.workers}, more than fit on this machine; {needed}")
    return True


def needs_of_worker(settings: RaySettings) -> str:
    """What each worker needs, and how much of that the cluster has."""
    import ray

    cluster: Any = ray
    has, free = cluster.cluster_resources(), cluster.available_resources()
    needs = ", ".join(
        f"{amount:g} {name} (there are {has.get(name, 0):g}, {free.get(name, 0):g} free)"
        for name, amount in settings.resources.items()
        if amount > 0
    )
    return f"each needs {needs}"
