"""What generates completions, behind one call.

A sampler answers prompts and says with which version of the weights it did so; a completion of older weights is refused, because
its advantages would be those of another policy. One whose kernels are not the trainer's also gives the probability of
each token as it sampled it, and training weighs the token by the ratio of the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from alignment.errors import LaunchError
from alignment.measure.generation import cut_at_stop, generate_batch

Ids = Sequence[int]


@dataclass(frozen=True)
class Completion:
    """A sampled answer.

    Attributes:
        ids: it ends with the stop token when `stopped`.
        logps: of each token, as the sampler sampled it; None where the sampler is the policy itself.
        version: optimizer steps that the weights had behind them.
    """

    ids: tuple[int, ...]
    stopped: bool
    version: int
    logps: tuple[float, ...] | None = None


class Sampler(Protocol):
    """Answers prompts. Every rank must call `sample` with the same prompts, and gets all completions."""

    is_policy: bool  # samples with the trainer's own weights and kernels

    def sample(self, prompts: Sequence[Ids], *, seed: int, version: int) -> list[Completion]:
        """One completion a prompt, in their order; the same for the same seed and weights.

        Args:
            version: of the policy's weights now; an engine with weights of its own takes these over first.
        """
        ...


class TransformersSampler:
    """The policy's own `generate`, in batches that do not depend on the number of ranks."""

    is_policy = True

    def __init__(
        self,
        policy: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        max_new_tokens: int,
        batch_size: int,
        temperature: float,
        bf16: bool,
    ) -> None:
        self._policy, self._tokenizer = policy, tokenizer
        self._limits = (stop_ids, pad_id, max_new_tokens, batch_size)
        self._settings = {"temperature": temperature, "bf16": bf16}

    def sample(self, prompts: Sequence[Ids], *, seed: int, version: int) -> list[Completion]:
        made = generate_batch(self._policy, self._tokenizer, prompts, *self._limits, seed=seed, **self._settings)
        return [Completion(one.ids, one.stopped, version) for one in made]


class Engine(Protocol):
    """An inference engine with weights of its own. Every rank must call both."""

    def sync_weights(self) -> None:
        """Takes over the policy's weights as they are now."""
        ...

    def generate(self, prompts: Sequence[Ids], seed: int) -> list[tuple[list[int], list[float]]]:
        """For each of this rank's prompts the ids, and the log-probability of each as it was sampled (at the temperature)."""
        ...


class EngineSampler:
    """An engine beside the trainer: it gets the weights of every update, and each rank samples its share of the prompts."""

    is_policy = False

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> None:
        self._engine, self._tokenizer, self._stop_ids = engine, tokenizer, stop_ids
        self._version: int | None = None  # of the weights that the engine has

    def sample(self, prompts: Sequence[Ids], *, seed: int, version: int) -> list[Completion]:
        if self._version != version:
            self._engine.sync_weights()
            self._version = version
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        share = len(prompts) // ranks  # the schedule deals whole shares
        made = self._engine.generate(prompts[rank * share : (rank + 1) * share], seed)
        own = [self._read(ids, logps) for ids, logps in made]
        if ranks == 1:
            return own
        parts: list[list[Completion] | None] = [None] * ranks
        dist.all_gather_object(parts, own)
        return [one for part in parts for one in part]

    def _read(self, ids: list[int], logps: list[float]) -> Completion:
        kept, stopped = cut_at_stop(ids, self._stop_ids)
        return Completion(kept, stopped, self._version, tuple(logps[: len(kept)]))


def check_completions(completions: Sequence[Completion], num_prompts: int, version: int, is_policy: bool) -> None:
    """Refuses what must not be trained on.

    Raises:
        LaunchError: a completion is missing, is of other weights, or lacks the probabilities that its sampler must give.
    """
    if len(completions) != num_prompts:
        raise LaunchError(
            f"ppo.sampler: {len(completions)} completions for {num_prompts} prompts; one each was expected."
        )
    for row, one in enumerate(completions):
        if one.version != version:
            raise LaunchError(
                f"ppo.sampler: completion {row} was sampled from the weights of step {one.version}; those of step {version} were "
                "expected. The weights were not sent to the engine that samples."
            )
        if not one.ids:
            raise LaunchError(f"ppo.sampler: completion {row} has no token; at least a stop token was expected.")
        if not is_policy and (one.logps is None or len(one.logps) != len(one.ids)):
            raise LaunchError(
                f"ppo.sampler: completion {row} has {len(one.logps or ())} log-probabilities for {len(one.ids)} tokens; one each was "
                "expected, because the engine samples with kernels of its own."
            )
        if not is_policy and not all(map(math.isfinite, one.logps)):
            raise LaunchError(
                f"ppo.sampler: completion {row} has a log-probability that is not finite; that of the sampled token was expected."
            )
