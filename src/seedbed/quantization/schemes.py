"""From a layer to its matrix in few bits, by the scheme that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.linears.int4 import HIGHEST, LOWEST, Int4Matrix, spread
from seedbed.model.linears.int8 import LARGEST, Int8Matrix, quantise_rows
from seedbed.model.linears.matrix import Matrix
from seedbed.model.linears.nf4 import NF4Matrix
from seedbed.model.linears.storage import Storage
from seedbed.quantization.config import QuantizeConfig
from seedbed.quantization.convert import Plain, Round
from seedbed.quantization.gptq import gptq
from seedbed.quantization.rounding import int4_scales, whole_numbers


def rounding(config: QuantizeConfig, tied: bool) -> Round:
    """The function of a config; `tied`: the embedding is the head too, and multiplied with."""

    def int8(name: str, plain: Plain, second_DD: Tensor | None) -> Matrix:
        multiplies = isinstance(plain, nn.Linear) or (name == "embedding" and tied)
        both = config.scheme == "int8" and config.activations == "int8" and multiplies
        storage = Storage(scheme="int8", activations="int8" if both else "stored")
        whole_OD, scale_O1 = quantise_rows(plain.weight.detach())
        if second_DD is not None:
            scale_OD = scale_O1.expand(whole_OD.shape)
            whole_OD = gptq(plain.weight.detach(), scale_OD, second_DD, -LARGEST, LARGEST).to(torch.int8)
        return Int8Matrix(whole_OD, scale_O1[..., 0], storage)

    def int4(name: str, plain: Plain, second_DD: Tensor | None) -> Matrix:
        if isinstance(plain, nn.Embedding) and config.tables == "int8":
            return int8(name, plain, second_DD)
        weight_OD = plain.weight.detach()
        scale_OG = int4_scales(weight_OD, config.group, None if second_DD is None else second_DD.diagonal())
        scale_OD = spread(scale_OG.float(), config.group, weight_OD.shape[-1])
        if second_DD is None or config.method == "awq":
            whole_OD = whole_numbers(weight_OD, scale_OD, LOWEST, HIGHEST)
        else:
            whole_OD = gptq(weight_OD, scale_OD, second_DD, LOWEST, HIGHEST)
        return Int4Matrix.of(whole_OD, scale_OG, Storage(scheme="int4", group=config.group))

    def nf4(name: str, plain: Plain, second_DD: Tensor | None) -> Matrix:
        return NF4Matrix.of(plain.weight.detach(), Storage(scheme="nf4"))

    return {"int8": int8, "int4": int4, "nf4": nf4}[config.scheme]
