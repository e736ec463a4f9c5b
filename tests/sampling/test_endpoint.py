"""The settings of an endpoint."""

import pytest

from optpo.errors import SettingsError
from optpo.sampling.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://example.org/v1/", "https://example.org/v1"),
        ("https://example.org/openai/v3", "https://example.org/openai/v3"),
        ("http://[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_an_address_without_a_path_means_v1(url, base):
    """One with a path is taken as it is."""
    assert Endpoint(url).base == base


def test_every_problem_is_reported_at_once():
    """Each with the value and what would be right."""
    with pytest.raises(SettingsError) as caught:
        Endpoint(
            "localhost:8000", model="", api="talk", key_variable="", concurrency=0,
            patience_seconds=0.0, stall_seconds=float("inf"),
        )  # fmt: skip
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 7
    for wanted in ("'localhost:8000'", "model", "'talk'", "key_variable", "concurrency is 0",
                   "patience_seconds is 0.0", "stall_seconds is inf"):  # fmt: skip
        assert wanted in problems


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org", "http://", "http://example.org:port", "http://[::1",
        "http://example.org/v1/chat/completions", "http://example.org/v1/models",
    ],
)  # fmt: skip
def test_what_is_no_address_of_an_endpoint_is_refused(url):
    """With an example of one."""
    with pytest.raises(SettingsError, match="must look like http://localhost:8000/v1"):
        Endpoint(url)


@pytest.mark.parametrize(
    "url", ["http://me:hunter2hunter2@example.org/v1", "http://example.org/v1?key=hunter2hunter2"]
)
def test_a_secret_in_an_address_is_refused_and_not_shown(url):
    """Keys belong into the environment."""
    with pytest.raises(SettingsError) as caught:
        Endpoint(url)
    assert "hunter2" not in str(caught.value)


def test_the_key_comes_from_the_environment(monkeypatch):
    """From the variable named; one that cannot be sent is refused and not shown."""
    endpoint = Endpoint("http://localhost:8000", key_variable="MY_KEY")
    monkeypatch.delenv("MY_KEY", raising=False)
    assert endpoint.key() is None
    monkeypatch.setenv("MY_KEY", " sk-secret/secret= \n")
    assert endpoint.key() == "sk-secret/secret="
    monkeypatch.setenv("MY_KEY", "sk-secret\nX-Other: header")
    with pytest.raises(SettingsError) as caught:
        endpoint.key()
    assert "MY_KEY" in str(caught.value) and "secret" not in str(caught.value)
