"""Linear layers by oneDNN: the same numbers, in the context alone."""

import pytest
import torch
from torch.nn import Linear, Sequential

from optpo.sampling import onednn_linear
from optpo.sampling.onednn_linear import WORTH, by_onednn, onednn_forwards


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (64, 1), (3, 50)])
def test_onednn_gives_what_linear_gives(bias, shape):
    """For few rows and many, with a bias or none, outputs are those of the layer itself."""
    torch.manual_seed(0)
    layer = Linear(256, 300, bias)
    states = torch.randn(*shape, 256)
    with torch.inference_mode():
        expected = layer(states)
        with by_onednn(onednn_forwards(layer)):
            assert torch.allclose(layer(states), expected, atol=1e-5)


def test_layers_are_themselves_again_afterwards():
    """Within the context large products go to oneDNN, small ones do not; after it none, also where
    it ends by an error, and gradients flow as ever."""
    torch.manual_seed(0)
    model = Sequential(Linear(64, 1024), Linear(1024, 64))
    forwards = onednn_forwards(model)
    assert set(forwards) == set(model)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        multiply = onednn_linear._multiply
        patch.setattr(
            onednn_linear, "_multiply", lambda *parts: asked.append(1) or multiply(*parts)
        )
        with pytest.raises(KeyError), torch.inference_mode(), by_onednn(forwards):
            model(torch.ones(WORTH // (64 * 1024) - 1, 64))
            assert asked == []
            model(torch.ones(WORTH // (64 * 1024), 64))
            assert asked == [1, 1]
            raise KeyError
        model(torch.ones(100, 64)).sum().backward()
        assert asked == [1, 1]
    assert model[0].weight.grad.abs().sum() > 0


def test_other_layers_are_left_alone():
    """Layers in half precision, and subclasses that compute something of their own, are no concern
    of oneDNN's here."""

    class Own(Linear):
        pass

    assert onednn_forwards(Sequential(Linear(4, 4).bfloat16(), Own(4, 4))) == {}
