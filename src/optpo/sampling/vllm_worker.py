"""What vLLM's workers have to do beyond what they do by themselves."""

from typing import Any


class TiedHeads:
    """Mixed into vLLM's workers on a CPU, where a head is multiplied by from a packed copy.

    A head that shares the embeddings' weights is in no folder, and so vLLM does not pack it anew
    when it reads one: it would go on with the copy made from the first weights.
    """

    model_runner: Any

    def pack_tied_heads(self) -> None:
        """Pack every such head from the weights as they are now."""
        from vllm.model_executor.layers.vocab_parallel_embedding import (
            ParallelLMHead,
            VocabParallelEmbedding,
        )

        layers = list(self.model_runner.get_model().modules())
        heads = [layer for layer in layers if isinstance(layer, ParallelLMHead)]
        embeddings = {
            layer.weight.data_ptr()
            for layer in layers
            if isinstance(layer, VocabParallelEmbedding) and layer not in heads
        }
        for head in heads:
            if head.weight.data_ptr() in embeddings:
                head.quant_method.process_weights_after_loading(head)
