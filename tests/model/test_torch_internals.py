"""Replacements of torch's private operators and attributes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from sklearn_gliclass.model import onednn, torch_internals, transformers_internals
from sklearn_gliclass.model.onednn import is_onednn_faster
from sklearn_gliclass.model.precision import autocast
from sklearn_gliclass.model.torch_internals import change_counter, keep_above


@pytest.mark.parametrize("inference", [False, True])
def test_torch_multiplies_without_operators_of_onednn(inference, monkeypatch):
    missing = "HAS_INFERENCE_OPERATORS" if inference else "HAS_GRADIENT_OPERATORS"
    monkeypatch.setattr(torch_internals, missing, False)
    monkeypatch.setattr(onednn, "measure_speedup", lambda context: 9.0)
    assert not is_onednn_faster(inference)
    inputs, weight = torch.ones(300, 128), torch.full((160, 128), 0.5)
    with autocast("cpu", "float32", inference) as context:
        assert not isinstance(context, onednn.OneDNNLinear)
        assert torch.equal(F.linear(inputs, weight), torch.full((300, 160), 64.0))


@pytest.mark.parametrize("has_operator", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_kept_above_the_threshold(has_operator, dtype, monkeypatch):
    monkeypatch.setattr(torch_internals, "HAS_THRESHOLD_OPERATOR", has_operator)
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=dtype)
    kept = keep_above(values, torch.tensor([[0.0, 0.4, 0.5, 0.6]], dtype=dtype), 0.5)
    assert torch.equal(kept, torch.tensor([[0.0, 0.0, 0.0, 4.0]], dtype=dtype))


def test_change_counter_differs_after_an_operation_in_place():
    tensor = torch.ones(2)
    before = change_counter(tensor)
    assert change_counter(tensor) == before
    tensor.add_(1)
    assert change_counter(tensor) != before
    assert change_counter(object()) != change_counter(object())  # without a counter, nothing is known


def test_models_are_built_without_the_private_constructor(monkeypatch):
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    for dtype in (torch.float64, torch.float32, None):
        torch.manual_seed(0)
        expected = transformers_internals.build_from_config(T5EncoderModel, config, dtype)
        torch.manual_seed(0)
        with monkeypatch.context() as patched:
            patched.delattr("transformers.PreTrainedModel._from_config")
            built = transformers_internals.build_from_config(T5EncoderModel, config, dtype)
        assert type(built) is T5EncoderModel
        for ours, theirs in zip(built.parameters(), expected.parameters(), strict=True):
            assert ours.dtype == theirs.dtype == (dtype or torch.float32)
            assert ours.shape == theirs.shape


def test_unexpected_patterns_may_be_missing():
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel(config)
    model._keys_to_ignore_on_load_unexpected = [r"cls\."]
    assert transformers_internals.unexpected_patterns(model) == [r"cls\."]
    assert transformers_internals.unexpected_patterns(nn.Linear(2, 2)) == []
