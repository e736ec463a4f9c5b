"""Loading a policy, and saying why one cannot be loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from optpo.errors import ModelError
from optpo.training.loading import load_policy
from optpo.training.settings import LoraSettings, ModelSettings

PROJECTION = "model.layers.1.mlp.up_proj.weight"
TOKENS = torch.tensor([[8, 9, 10, 40, 11]])


@pytest.fixture(scope="session")
def model_folder(llama, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def own_folder(model_folder, tmp_path):
    """A copy of the model's folder, to be spoilt."""
    return shutil.copytree(model_folder, tmp_path / "model")


def load(name, **settings):
    return load_policy(ModelSettings(str(name), device="cpu", **settings), temperature=0.8)


def logits_of(model):
    with torch.no_grad():
        return model(TOKENS).logits


def test_a_folder_is_loaded(model_folder, llama):
    """Model, tokenizer, end tokens and settings are the folder's; the model does not drop out."""
    policy = load(model_folder)
    assert torch.allclose(logits_of(policy.model), logits_of(llama), atol=1e-5)
    assert policy.end_tokens == (2,)
    assert (policy.version, policy.temperature, policy.value_head) == (0, 0.8, None)
    assert not policy.model.training
    assert policy.model.dtype == torch.float32
    assert len(policy.trainable()) == len(list(llama.parameters()))
    assert policy.decode([8, 2, 9]) == "w8 w9"


def test_weights_that_are_trained_stay_in_float32(model_folder):
    """bfloat16 computes forwards in bfloat16 and keeps the trained weights exact."""
    policy = load(model_folder, precision="bfloat16")
    assert policy.model.dtype == torch.float32
    with policy.mixed():
        assert policy.model(TOKENS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no model folder"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"pickle \(pytorch_model.bin\)",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + b"\0" * 30),
            "cannot be loaded",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_loaded_says_why(own_folder, spoil, message):
    """Missing, incomplete, pickled or damaged: a ModelError with the reason, never a bare one."""
    spoil(own_folder)
    with pytest.raises(ModelError, match=message):
        load(own_folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop(PROJECTION), rf"lacks 1 of its weights \({PROJECTION}"),
        (lambda weights: weights.update({PROJECTION: torch.ones(3, 32)}), "cannot be loaded"),
    ],
)
def test_missing_weights_are_not_made_up(own_folder, spoil, message):
    """A model some of whose weights are not in the file, or of another shape, is refused:
    transformers would fill them in at random, and every answer would be noise."""
    weights = load_file(own_folder / "model.safetensors")
    spoil(weights)
    save_file(weights, own_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        load(own_folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.gguf", "there is no file"),
        ("~/no/such/folder", "there is no model folder"),
        ("./nothing", "there is no model folder"),
        ("a/b/c", "there is no model folder"),
    ],
)
def test_a_path_that_is_not_there(name, message, tmp_path, monkeypatch):
    """What looks like a path is never looked for on the hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(name)


def test_a_file_is_no_model(tmp_path):
    """A file that is no GGUF is named as such."""
    (tmp_path / "weights.safetensors").write_text("x")
    with pytest.raises(ModelError, match=r"is a file; name the model's folder, or a \.gguf file"):
        load(tmp_path / "weights.safetensors")


def test_a_hub_name_offline(monkeypatch):
    """A name that the hub cannot be asked for is a ModelError with one line of reason."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/no-such-model' cannot be loaded") as caught:
        load("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(model_folder):
    """The setting is named with its value."""
    for device in ("cuda:63", "abacus"):
        with pytest.raises(ModelError, match=f"model.device is '{device}'"):
            load_policy(ModelSettings(str(model_folder), device=device), 1.0)


def test_end_tokens_come_from_the_generation_config(own_folder):
    """A list in generation_config.json counts whole; without any end token the model is refused,
    for no rollout could ever end."""
    generation = own_folder / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert load(own_folder).end_tokens == (2, 7)
    generation.write_text(json.dumps({}))
    assert load(own_folder).end_tokens == (2,)
    tokenizer_config = own_folder / "tokenizer_config.json"
    entries = json.loads(tokenizer_config.read_text())
    tokenizer_config.write_text(json.dumps(entries | {"eos_token": None}))
    config = own_folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": None}))
    with pytest.raises(ModelError, match="eos_token_id"):
        load(own_folder)


def test_saving_gives_a_folder_that_transformers_loads(policy, tmp_path):
    """The saved folder holds weights and tokenizer, replaces an older one, and is loaded by
    transformers and by optpo to the same logits."""
    with torch.no_grad():
        policy.model.lm_head.weight.add_(0.25)
    folder = tmp_path / "final"
    for _ in range(2):
        policy.save(folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]
    expected = logits_of(policy.model)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert logits_of(loaded).equal(expected)
    assert AutoTokenizer.from_pretrained(folder).encode("w8 w9") == [8, 9]
    assert torch.allclose(logits_of(load(folder).model), expected, atol=1e-6)


def test_adapters_alone_are_trained(model_folder, llama):
    """With a rank, the adapters are trainable and nothing else; they begin at no effect, the same
    in every process, without touching torch's random state."""
    before = torch.random.get_rng_state()
    policy = load(model_folder, lora=LoraSettings(rank=3, alpha=6))
    assert torch.random.get_rng_state().equal(before)
    names = set(policy.trainable())
    assert names and all("lora_" in name for name in names)
    # Seven linear layers in each of two blocks, two factors each; the output layer is left alone.
    assert len(names) == 2 * 7 * 2
    assert torch.allclose(logits_of(policy.model), logits_of(llama), atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(77)
        again = load(model_folder, lora=LoraSettings(rank=3, alpha=6))
    for name, value in policy.trainable().items():
        assert value.equal(again.trainable()[name]), name


def test_adapters_are_merged_when_saved(model_folder, llama, tmp_path):
    """The saved folder is a plain model with the adapted model's logits; the policy itself goes on
    with its adapters."""
    policy = load(model_folder, lora=LoraSettings(rank=3, alpha=6))
    with torch.no_grad():
        for value in policy.trainable().values():
            value.add_(0.1)
    adapted = logits_of(policy.model)
    assert not torch.allclose(adapted, logits_of(llama), atol=1e-2)
    policy.save(tmp_path / "final")
    assert torch.allclose(logits_of(policy.model), adapted)
    assert len(policy.trainable()) == 28
    assert not list((tmp_path / "final").glob("adapter*"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert torch.allclose(logits_of(merged), adapted, atol=1e-4)
    assert not any("lora" in name for name, _ in merged.named_parameters())
