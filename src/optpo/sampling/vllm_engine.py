"""vLLM under the caller's control: its scheduler and its kernels, driven rollout by rollout.

vLLM keeps weights and cache in processes of its own, which end with the engine. A script that opens
one needs the `if __name__ == "__main__":` of every program that starts processes.

Where it differs from the embedded engine: a rollout's draws come from its own stream, but its logits
carry the rounding of the batch that it was in, so `exact_streams` is not claimed; and of what cuts
tokens off, min-p goes first, top-k next, and top-p takes its share of what those two left.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from optpo.errors import EngineError
from optpo.sampling.background_loop import BackgroundLoop
from optpo.sampling.completion_protocol import seed_of
from optpo.sampling.engine import Capabilities, Completion, Request, SampleSettings
from optpo.sampling.vllm_process import (
    logprobs_mode,
    read_weights,
    require_vllm,
    start_vllm,
    tensor_names,
)

MORE = "with VLLM_LOGGING_LEVEL=INFO in the environment it says more"


def open_vllm(
    folder: Path,
    settings: SampleSettings,
    end_tokens: Sequence[int],
    longest_prompt: int,
    precision: str = "float32",
    save: Callable[[Path], None] | None = None,
) -> "VllmEngine":
    """Start vLLM with a model folder, whose weights are version 0.

    Args:
        folder: as `save_pretrained` writes it, in safetensors; with its tokenizer where there are
            stop strings. Once vLLM has started it may go.
        settings: how tokens are drawn. Memory is taken for a cache of `rows` rollouts of full
            length, no more.
        end_tokens: those of the policy; the folder's own are not looked at.
        longest_prompt: in tokens; a longer one is refused.
        precision: "float32", "bfloat16" or "float16".
        save: writes the policy as it is now to a folder; what `update_weights` reads without one.

    Raises:
        SettingsError: vLLM cannot be imported, or would draw otherwise than asked.
        EngineError: it cannot run this model.
    """
    require_vllm(settings)
    loop = BackgroundLoop("optpo-vllm")
    try:
        started = start_vllm(folder, settings, longest_prompt, precision)
        names = tensor_names(folder)
        return VllmEngine(loop.run(started), loop, settings, end_tokens, names, save)
    except Exception as error:
        loop.close()
        raise EngineError(f"vLLM cannot run {folder}: {_reason(error)}; {MORE}") from error
    except BaseException:
        loop.close()
        raise


class VllmEngine:
    """Samples through vLLM's AsyncLLM; `open_vllm` makes one."""

    def __init__(
        self,
        llm: Any,
        loop: BackgroundLoop,
        settings: SampleSettings,
        end_tokens: Sequence[int],
        names: frozenset[str],
        save: Callable[[Path], None] | None = None,
    ) -> None:
        self.prefill_tokens = 0
        self._llm, self._loop, self._save = llm, loop, save
        self._settings, self._names = settings, names
        self._end_tokens = sorted({*end_tokens, *settings.stop_tokens})
        self._version = 0
        self._next_handle = 0
        self._in_flight: dict[int, Future[Any]] = {}
        self._ended: SimpleQueue[int] = SimpleQueue()

    @property
    def capabilities(self) -> Capabilities:
        """No log-probs where tokens are cut off at a temperature that is not 1: `logprobs_mode`."""
        return Capabilities(
            cancel=True,
            logps=logprobs_mode(self._settings) is not None,
            seed=True,
            exact_streams=False,
            prefix_cache=True,
        )

    @property
    def slots(self) -> int:
        """The rollouts that vLLM decodes at once."""
        return self._settings.rows

    @property
    def lost_tokens(self) -> int:
        """None: a rollout does not fail alone."""
        return 0

    def submit(self, request: Request) -> int:
        """Queue a rollout; vLLM begins them in the order of submission."""
        handle = self._next_handle
        self._next_handle += 1
        rollout = self._loop.start(self._sample(handle, request))
        self._in_flight[handle] = rollout
        rollout.add_done_callback(lambda _: self._ended.put(handle))
        return handle

    def cancel(self, handle: int) -> int:
        """Drop a rollout; returns the tokens it had cost, also where it ended before `poll` saw it."""
        rollout = self._in_flight.pop(handle, None)
        if rollout is None:
            return 0
        self._loop.run(self._llm.abort(str(handle)))
        if rollout.exception() is not None:
            return 0
        output = rollout.result()
        tokens = len(output.outputs[0].token_ids)
        if tokens > 0:
            self._count_prefill(output)
        return tokens

    def poll(self) -> list[Completion]:
        """Wait until at least one rollout finishes; empty when none is in flight.

        Raises EngineError if vLLM has stopped.
        """
        finished: list[Completion] = []
        while self._in_flight and not finished:
            ended = [self._ended.get()]
            while not self._ended.empty():
                ended.append(self._ended.get())
            finished += [
                self._completion(handle, self._in_flight.pop(handle))
                for handle in ended
                if handle in self._in_flight
            ]
        return finished

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Read a folder's weights in place of those held; prompts are computed anew.

        Without a folder, those of the policy as it is now. Raises RuntimeError while rollouts are in
        flight: they would mix two policies; and EngineError if there are no weights to be read.
        """
        if self._in_flight:
            raise RuntimeError("weights changed while rollouts were in flight")
        if folder is not None:
            self._take(folder)
        elif self._save is not None:
            with TemporaryDirectory() as scratch:
                saved = Path(scratch) / "policy"
                self._save(saved)
                self._take(saved)
        else:
            raise EngineError("vLLM holds weights of its own: save the policy, and give its folder")
        self._version = version

    def _take(self, folder: Path) -> None:
        # What is missing vLLM would leave as it was, and say nothing.
        if wrong := sorted(self._names ^ tensor_names(folder)):
            raise EngineError(
                f"the weights in {folder} are not those of this model: {len(wrong)} are missing or too "
                f"many ({wrong[0]}, ...)"
            )
        try:
            self._loop.run(read_weights(self._llm, folder))
        except Exception as error:
            raise EngineError(
                f"vLLM cannot take the weights in {folder}: {_reason(error)}; what it holds now is "
                f"neither the old nor the new, so open another ({MORE})"
            ) from error

    def close(self) -> None:
        """End vLLM's processes; what is in flight is dropped."""
        if self._llm is not None:
            self._in_flight.clear()
            self._loop.call(self._llm.shutdown)
            self._loop.close()
            # It would shut itself down once more when the interpreter ends, and fail.
            self._llm = None

    def _completion(self, handle: int, rollout: Future[Any]) -> Completion:
        from vllm.exceptions import VLLMClientError

        error = rollout.exception()
        if isinstance(error, VLLMClientError | ValueError):
            return Completion(handle, (), (), "error", self._version, reason=_reason(error))
        if error is not None:
            raise EngineError(f"vLLM has stopped: {_reason(error)}; {MORE}") from error
        output = rollout.result()
        self._count_prefill(output)
        sampled = output.outputs[0]
        if sampled.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a rollout with {sampled.finish_reason!r}; {MORE}")
        tokens = tuple(sampled.token_ids)
        places = zip(tokens, sampled.logprobs or (), strict=False)
        return Completion(
            handle=handle,
            tokens=tokens,
            logps=tuple(of_token[token].logprob for token, of_token in places),
            finish=sampled.finish_reason,
            version=self._version,
        )

    def _count_prefill(self, output: Any) -> None:
        self.prefill_tokens += len(output.prompt_token_ids) - (output.num_cached_tokens or 0)

    # All that follows runs in the loop's thread.

    async def _sample(self, handle: int, request: Request) -> Any:
        """One rollout from beginning to end: vLLM's record of it."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        vocabulary = self._llm.model_config.get_vocab_size()
        if (last := max(request.prompt_tokens, default=0)) >= vocabulary:
            # It would be the end of vLLM, not of this rollout alone.
            raise ValueError(f"token {last} of the prompt is not among the model's {vocabulary}")
        settings = self._settings
        asked = SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            max_tokens=settings.max_new_tokens,
            stop=list(settings.stop),
            stop_token_ids=self._end_tokens,
            ignore_eos=True,
            # As a server of vLLM is asked, so that both draw the same.
            seed=seed_of(request.stream),
            logprobs=None if logprobs_mode(settings) is None else 0,
            detokenize=bool(settings.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        # Tokens that need no rendering are taken in before anything is awaited: so rollouts begin in
        # order, and `abort` finds every one.
        prompt = tokens_input(list(request.prompt_tokens))
        [output] = [last async for last in self._llm.generate(prompt, asked, str(handle))]
        return output


def _reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return str(error).strip().split("\n")[0] or type(error).__name__
