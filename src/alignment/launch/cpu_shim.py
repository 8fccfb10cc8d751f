"""GPU launcher configs on CPU ranks: MULTI_GPU, DEEPSPEED and FSDP mean the same over gloo.

accelerate 1.15 would start processes that train independently, or stop (docs/launch.md has the table). It has a CPU path of
its own for plain DDP; for the two that shard it has none, and its state, which is one for the whole process, is built
inside `TrainingArguments`, where nothing can be passed to it. So this is the one class of another library that is changed
(`imports.py` changes a function).
"""

import os
from typing import Any


def use_cpu_ranks(strategy: str) -> None:
    """Makes accelerate's launch variables mean CPU ranks. Call it once, in a rank, where no GPU is visible."""
    if strategy == "ddp":
        os.environ["ACCELERATE_USE_CPU"] = "true"
        return
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    os.environ.pop("ACCELERATE_USE_CPU", None)  # accelerate would then look at neither FSDP nor DeepSpeed
    from accelerate.state import PartialState

    if strategy.startswith("zero"):
        from alignment.launch.deepspeed import load_shared_memory_op

        # DeepSpeed would build it in a folder whose lock outlives a build that was killed, and then wait for ever.
        load_shared_memory_op()
    if not getattr(PartialState, "_is_for_cpu_ranks", False):
        _change(PartialState)


def _change(state: type) -> None:
    init = state.__init__

    def init_for_cpu_ranks(self: Any, cpu: bool = False, **arguments: Any) -> None:
        """`cpu` is what use_cpu of the arguments becomes; taken at its word it would turn sharding off."""
        init(self, False, **{**arguments, "backend": "gloo"})

    def prepare_backend(self: Any, *_: Any, **__: Any) -> tuple[str, Any]:
        from accelerate.utils import DistributedType

        return "gloo", DistributedType.MULTI_GPU

    state.__init__ = init_for_cpu_ranks
    state._prepare_backend = prepare_backend
    state._is_for_cpu_ranks = True
