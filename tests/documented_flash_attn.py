"""What flash-attn's documentation says that its two functions compute, in plain PyTorch: no GPU can be assumed here.

flash-attn 2.8, docstrings of `flash_attn_func` and `flash_attn_varlen_func`.

Shape suffixes: B batch, T query positions, S key positions, N positions of all documents, H query heads, G key/value
heads, K head width.
"""

from __future__ import annotations

import torch


def flash_attn_func(
    q_BTHK, k_BSGK, v_BSGK, dropout_p=0.0, causal=False, window_size=(-1, -1), alibi_slopes=None, deterministic=False
):
    """A query i reads the keys of [i − window_size[0], i + window_size[1]], −1 being no limit; causal: those up to i.
    ALiBi adds −slope·|i − j|."""
    assert q_BTHK.dtype in (torch.float16, torch.bfloat16, torch.float64) and dropout_p == 0  # fp64: to compare
    assert alibi_slopes is None or alibi_slopes.dtype is torch.float32
    group = q_BTHK.shape[2] // k_BSGK.shape[2]
    k_BSHK, v_BSHK = (x.repeat_interleave(group, dim=2) for x in (k_BSGK, v_BSGK))
    scores_BHTS = torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
    ahead_TS = torch.arange(k_BSHK.shape[1]) - torch.arange(q_BTHK.shape[1])[:, None]
    left, right = window_size
    hidden_TS = torch.zeros_like(ahead_TS, dtype=torch.bool)
    if causal:
        hidden_TS |= ahead_TS > 0
    if left >= 0:
        hidden_TS |= ahead_TS < -left
    if right >= 0:
        hidden_TS |= ahead_TS > right
    if alibi_slopes is not None:
        scores_BHTS = scores_BHTS - alibi_slopes.to(scores_BHTS.dtype)[:, None, None] * ahead_TS.abs()
    return torch.einsum("bhts,bshk->bthk", scores_BHTS.masked_fill(hidden_TS, -torch.inf).softmax(-1), v_BSHK)


def flash_attn_varlen_func(q_NHK, k_NGK, v_NGK, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **settings):
    """Documents one after the other; number d is cu_seqlens[d] … cu_seqlens[d + 1] − 1."""
    assert cu_seqlens_q.dtype is torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == max_seqlen_k == cu_seqlens_q.diff().max()
    assert cu_seqlens_q[-1] == len(q_NHK)
    out_NHK = torch.zeros_like(q_NHK)
    for start, end in zip(cu_seqlens_q.tolist(), cu_seqlens_q.tolist()[1:], strict=False):
        document = (x[None, start:end] for x in (q_NHK, k_NGK, v_NGK))
        out_NHK[start:end] = flash_attn_func(*document, **settings)[0]
    return out_NHK
