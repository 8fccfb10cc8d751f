"""How many bytes tensors hold while code runs on tensors without storage: the real code, in seconds, for models of any size.

Shapes and dtypes are those of a real run, so what is allocated when, and let go of when, is too. What a program reads out of a tensor
(`.item()`, a boolean mask) is not there: numbers read as one, masks as true everywhere, so that all tokens count. On real tensors the same
counter measures.
"""

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


def _attention_flops(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, causal: bool = False, *_: Any, **__: Any
) -> int:
    """Two products of [T, D] and [S, D] for each head, half of them where no query sees what is behind it. Queries are [B, H, T, D]."""
    return 2 * query.numel() * (key.size(2) + value.size(2)) // (2 if causal else 1)


def _attention_backward_flops(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **_: Any) -> int:
    """Five products in place of two: the scores are computed anew. `rest`: output, log-sum-exp, dropout, causal."""
    return 5 * _attention_flops(query, key, value, *rest[2:4]) // 2


def _grouped_flops(tokens: Tensor, experts: Tensor, *_: Any, out_val: Any = None, **__: Any) -> int:
    """Tokens [N, K], each through one of the experts [E, K, M]; of a backward pass [K, N] and [N, M], to [E, K, M]."""
    return 2 * tokens.numel() * experts.size(-1)


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    torch.ops.aten._grouped_mm: _grouped_flops,
}


@contextlib.contextmanager
def without_storage() -> Iterator[FakeTensorMode]:
    """Tensors that are made inside have shapes and dtypes and nothing else."""
    kept = nn.Module._apply, FakeTensor.__deepcopy__
    nn.Module._apply, FakeTensor.__deepcopy__ = _convert, _copy
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        nn.Module._apply, FakeTensor.__deepcopy__ = kept


def _copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """In place of `Tensor.__deepcopy__`, which in torch 2.13 copies a storage that is not there over memory of others."""
    with torch.no_grad():
        made = tensor.clone()
    memo[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
    return memo[id(tensor)]


def _convert(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """In place of `nn.Module._apply`, behind `.to()`, which in torch 2.13 cannot exchange tensors without storage."""
    for child in module.children() if recurse else ():
        _convert(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None and (changed := function(parameter)) is not parameter:
            module._parameters[name] = nn.Parameter(changed.detach(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make and that are still referred to, and the operations' FLOPs.

    torch's FlopCounterMode is not used beside it: its hooks on modules keep alive what checkpointing lets go of (torch 2.13).

    Attributes:
        live: bytes now.
        peak: the most so far; `restart` begins anew.
        flops: of products of matrices and of attention, a multiplication and an addition counting two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._seen: set[int] = set()
        self._watched: dict[int, weakref.ref] = {}

    def leave_out(self, tensors: Any) -> None:
        """These are counted elsewhere: weights, and views of them that operations will make."""
        self._seen.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def __enter__(self) -> "LiveBytes":
        # When things are let go of must not depend on when the collector happens to run.
        self._collects = gc.isenabled()
        gc.disable()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._watched.clear()
        if self._collects:
            gc.enable()

    def restart(self) -> None:
        self.peak, self.flops = self.live, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], FakeTensor):
            known = _read_out(function, args[0])
            if known is not None:
                return known
            if function is torch.ops.aten.index.Tensor:
                args = (args[0], _all_true(args[1]), *args[2:])
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._watch(value)
        count = FLOPS.get(function.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        self.peak = max(self.peak, self.live)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.size()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self._watched[key] = weakref.ref(storage, partial(self._let_go, key, size))

    def _let_go(self, key: int, size: int, _: object) -> None:
        self._seen.discard(key)
        self._watched.pop(key, None)
        self.live -= size


def _read_out(function: Any, tensor: Tensor) -> Any:
    """What takes the place of a number, or of places, that would be read out of a tensor without storage."""
    if function is torch.ops.aten._local_scalar_dense.default:
        return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 1
    if function is torch.ops.aten.nonzero.default:
        return torch.zeros(tensor.numel(), tensor.ndim, dtype=torch.long, device=tensor.device)
    return None


def _all_true(indices: Any) -> list[Any]:
    """Indices in place of boolean masks that choose everything."""
    chosen: list[Any] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            chosen += [torch.zeros(index.numel(), dtype=torch.long, device=index.device) for _ in range(index.ndim)]
        else:
            chosen.append(index)
    return chosen
