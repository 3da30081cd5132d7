"""The flash-attn package: exact attention in tiles that never leave the chip, of CUDA and ROCm.

Dao 2023, arXiv:2307.08691. Packed rows become one long row of documents, so that nothing is computed across a border
and nothing for padding.

Shape suffixes: B batch, T query positions, H query heads, G key/value heads, K head width, N positions that are no
padding, D documents.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from seedbed.model.attention_paths.path import Heads
from seedbed.model.masks import AttentionMask

WIDEST = 256
"""Head that the kernels are compiled for; and multiples of 8."""


class FlashAttention:
    """Causal order or both ways, windows, documents, ALiBi, dropout; in fp16 and bf16."""

    def __init__(self, mask: AttentionMask, heads: Heads):
        self.mask = mask
        behind = -1 if mask.window is None else mask.window - 1
        slopes_H = None
        if mask.slopes_H is not None:
            slopes_H = torch.tensor(mask.slopes_H, dtype=torch.float32, device=mask.device)
        self.settings = {
            "dropout_p": heads.dropout,
            "causal": mask.causal,
            "window_size": (behind, 0 if mask.causal else behind),
            "alibi_slopes": slopes_H,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        self.documents = None if mask.segments_BT is None else Documents(mask.segments_BT)

    @staticmethod
    def obstacle(mask: AttentionMask, heads: Heads) -> str | None:
        if mask.device.type != "cuda":
            return "flash-attn needs a GPU"
        if not is_installed():
            return "flash-attn is not installed"
        if heads.dtype not in (torch.float16, torch.bfloat16):
            return f"flash-attn computes in fp16 and bf16, not in {str(heads.dtype).removeprefix('torch.')}"
        if heads.width > WIDEST or heads.width % 8:
            return f"flash-attn takes heads of a multiple of 8 up to {WIDEST}, not of {heads.width}"
        if any(part is not None for part in (mask.prefix_B, mask.sparse, mask.slots_BT)):
            return "flash-attn knows no prefixes, block-sparse patterns and caches"
        return None

    def __call__(self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        q_BTHK, k_BTGK, v_BTGK = (x.transpose(1, 2) for x in (q_BHTK, k_BGTK, v_BGTK))
        if self.documents is None:
            return flash_attn().flash_attn_func(q_BTHK, k_BTGK, v_BTGK, **self.settings).transpose(1, 2)
        where_NB_NT = self.documents.where
        out_NHK = flash_attn().flash_attn_varlen_func(
            *(x_BTHK[where_NB_NT] for x_BTHK in (q_BTHK, k_BTGK, v_BTGK)), **self.documents.borders, **self.settings
        )
        return torch.zeros_like(q_BTHK).index_put(where_NB_NT, out_NHK).transpose(1, 2)


class Documents:
    """Where documents lie when all that is no padding stands in one row. Not all of it may be padding."""

    def __init__(self, segments_BT: Tensor):
        is_first_BT = F.pad(segments_BT[:, 1:] != segments_BT[:, :-1], (1, 0), value=True)
        self.where = torch.nonzero(segments_BT >= 0, as_tuple=True)
        starts_D = torch.nonzero(is_first_BT[self.where])[:, 0]
        borders = F.pad(starts_D, (0, 1), value=len(self.where[0])).int()
        longest = int(borders.diff().max())
        self.borders = {
            "cu_seqlens_q": borders,
            "cu_seqlens_k": borders,
            "max_seqlen_q": longest,
            "max_seqlen_k": longest,
        }


def is_installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def flash_attn() -> ModuleType:
    return importlib.import_module("flash_attn")  # seconds, and only where it is used
