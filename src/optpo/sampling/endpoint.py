"""A server that speaks the OpenAI protocol: where it is, and how long to wait for what."""

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from optpo.errors import SettingsError

Api = Literal["chat", "completions"]
"""Where a question given as text goes: to /chat/completions as a user's message, or to /completions
as it is."""


@dataclass(frozen=True)
class Endpoint:
    """Where to sample, and how patiently. All times are in seconds.

    Args:
        url: the address up to /v1, which is added to an address without a path.
        model: its name there; none where the server has only one.
        api: where a question given as text goes. Messages always go to /chat/completions, token ids
            always to /completions.
        key_variable: the environment variable that holds the key; a server that asks for none needs
            none.
        concurrency: the most rollouts in flight; how many there are adapts to the server.
        start_seconds: how long to look for a first sign that it works, in all.
        patience_seconds: how long to wait for a server that has worked and no longer does.
        connect_seconds: how long opening a connection may take.
        first_token_seconds: how long the first token may take, the server's queue included.
        stall_seconds: how long there may be nothing between two tokens.
        backoff_seconds: the longest pause before a rollout is asked for a second time; the longest
            pause doubles with every time after that, six times.

    Raises:
        SettingsError: what is wrong, all of it.
    """

    url: str
    model: str | None = None
    api: Api = "chat"
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 256
    start_seconds: float = 50.0
    patience_seconds: float = 300.0
    connect_seconds: float = 10.0
    first_token_seconds: float = 120.0
    stall_seconds: float = 60.0
    backoff_seconds: float = 0.5

    def __post_init__(self) -> None:
        problems = _url_problems(self.url)
        if self.model == "":
            problems.append("model is empty; give its name, or none where the server has only one")
        if self.api not in ("chat", "completions"):
            problems.append(f"api is {self.api!r}; it must be 'chat' or 'completions'")
        if not self.key_variable:
            problems.append("key_variable is empty; it must be the name of an environment variable")
        if self.concurrency < 1:
            problems.append(f"concurrency is {self.concurrency}; it must be 1 or more")
        for name in (
            "start_seconds",
            "patience_seconds",
            "connect_seconds",
            "first_token_seconds",
            "stall_seconds",
            "backoff_seconds",
        ):
            seconds = getattr(self, name)
            if not 0 < seconds < float("inf"):
                problems.append(f"{name} is {seconds}; it must be above 0 and finite")
        if problems:
            raise SettingsError(problems)

    @property
    def base(self) -> str:
        """The address that paths such as /models are added to."""
        plain = self.url.rstrip("/")
        return plain if urlsplit(plain).path else f"{plain}/v1"

    def key(self) -> str | None:
        """The key as the environment has it now, none where it has none.

        Raises SettingsError, without showing it, where it cannot be sent.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not re.fullmatch(r"[!#-\[\]-~]*", key):
            raise SettingsError(
                [
                    f"the environment variable {self.key_variable} holds characters that no key "
                    "has, such as a space or a line break; set it to the key alone"
                ]
            )
        return key or None


def _url_problems(url: str) -> list[str]:
    """What is wrong with an address; it is not shown where it may hold a password or a key."""
    right = "it must look like http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return [f"url cannot be read as an address; {right}"]
    if parts.username is not None or parts.password is not None:
        return ["url holds a user's name or password; put the key into the environment instead"]
    if parts.query or parts.fragment:
        return [f"url goes on after its path, with ? or #; {right}"]
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
        return [f"url is {url!r}; {right}"]
    if parts.path.rstrip("/").endswith(("/completions", "/models")):
        return [f"url is {url!r}; give the part before /chat/completions or /models: {right}"]
    return []
