"""A reward model that is an adapter with a score head is one of peft's, and one of peft's is ours.

Peer: peft, the installed version; its name stands in the ids of the tests.
"""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from seedbed.alignment.reward_models.ensemble import RewardModel
from seedbed.model.adapters.adapter import Ia3Adapter, LoraAdapter
from seedbed.model.adapters.config import Ia3Config, LoraConfig
from seedbed.model.adapters.saving import save_adapter
from seedbed.model.folder import load_model
from seedbed.model.score_head import with_score_head
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
IDS = np.arange(30, 45)
ADAPTERS = {
    "LoRA": lambda base: LoraAdapter(LoraConfig(rank=3, alpha=5), base),
    "IA³": lambda base: Ia3Adapter(Ia3Config(), base),
}


@pytest.fixture(
    params=[{}, {"qk_norm": False}], ids=[f"peft {peft.__version__}, {name}" for name in ("Qwen3", "Llama")]
)
def base(request, tmp_path):
    return saved(tmp_path / "base", random_model(tokenizer=TOKENIZER, **request.param), TOKENIZER)


def theirs(base):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = TOKENIZER.pad_id
    return model


def their_score(model) -> float:
    with torch.no_grad():
        return float(model.eval()(torch.from_numpy(IDS)[None]).logits)


def our_score(folder) -> float:
    model = RewardModel.load(folder)
    return float(model.score_tokens([(IDS.astype(np.uint32), np.arange(15) > 9)]))


@pytest.mark.parametrize("method", ADAPTERS)
def test_peft_scores_by_a_folder_of_ours(method, base, tmp_path):
    model = ADAPTERS[method](base).put_on(with_score_head(load_model(base, learns=True)[0]))
    with torch.no_grad():
        for weight in model.moving.values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    save_adapter(tmp_path / "adapter", model, TOKENIZER, inputs={"model": base}, card={})
    found = their_score(peft.PeftModel.from_pretrained(theirs(base), tmp_path / "adapter"))
    assert found == pytest.approx(our_score(tmp_path / "adapter"), abs=1e-4) and abs(found) > 0.05


def test_we_score_by_a_folder_of_pefts(base, tmp_path):
    torch.manual_seed(0)
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(theirs(base), settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_("score.modules_to_save" in name and torch.randn(weight.shape))
    model.save_pretrained(tmp_path / "theirs")
    wanted = their_score(model)
    assert our_score(tmp_path / "theirs") == pytest.approx(wanted, abs=1e-4) and abs(wanted) > 0.05
