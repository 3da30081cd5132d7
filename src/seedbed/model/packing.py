"""A model made ready to answer: its layers as the processor reads them, its activations by our kernels.

It then computes each position with the same bits, whatever is computed beside it; it learns and is saved no more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from seedbed.model.feedforward import FeedForward, GatedFeedForward
from seedbed.model.linears.int8 import Int8Linear
from seedbed.model.linears.packed import PackedInt8Linear, PackedLinear
from seedbed.model.transformer import Transformer
from seedbed.native.library import library


def pack(model: Transformer) -> Transformer:
    """The same model, where there are kernels for it: on a CPU, in fp32. A tied head becomes a layer of its own."""
    weight = model.embedding.weight
    is_fp32 = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not is_fp32 or library("packed_linear") is None or library("activations") is None:
        return model
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(module, name, PackedLinear(layer.weight, layer.bias))
            elif isinstance(layer, Int8Linear):
                setattr(module, name, PackedInt8Linear(layer))
        activation = ACTIVATIONS.get(model.config.activation)
        if activation is not None and isinstance(module, FeedForward):
            module.activation = activation
        elif activation is not None and isinstance(module, GatedFeedForward):
            module.pass_through = activation
    if model.head is None:
        model.head = PackedLinear(weight)
    return model


def activate(kernel: str, x: Tensor, up: Tensor | None = None) -> Tensor:
    """f(x), or f(x) · up, fp32."""
    native = library("activations")
    assert native is not None, "who packs looks first whether there are kernels"
    x, up = x.contiguous(), None if up is None else up.contiguous()
    out = torch.empty_like(x)
    addresses = (ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in (x, up, out))
    getattr(native, kernel)(*addresses, ctypes.c_int64(x.numel()), torch.get_num_threads())
    return out


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "silu": partial(activate, "silu"),
    "swiglu": partial(activate, "silu"),
    "gelu": partial(activate, "gelu"),
    "geglu": partial(activate, "gelu"),
}
"""By the activation of a config. Those of ReLU need none: it rounds nothing."""
