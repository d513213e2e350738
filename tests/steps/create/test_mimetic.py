import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prunus.steps.create.config import CreateConfig
from prunus.steps.create.mimetic import make_mimetic


def test_queries_are_keys_and_outputs_undo_values() -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
    raw = CreateConfig(intermediate_size=48, **shape).model_config_json()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**raw))
    mlp = model.model.layers[0].mlp.up_proj.weight.clone()
    make_mimetic(model)
    assert torch.equal(mlp, model.model.layers[0].mlp.up_proj.weight)
    first, second = (layer.self_attn for layer in model.model.layers)
    assert not torch.equal(first.k_proj.weight, second.k_proj.weight)
    assert not torch.equal(first.k_proj.weight, first.v_proj.weight)
    keys, values = (first.k_proj.weight.view(4, 8, 64), first.v_proj.weight.view(4, 8, 64))
    queries, outputs = first.q_proj.weight.view(8, 8, 64), first.o_proj.weight.view(64, 8, 8)
    for head in range(8):  # two query heads read each KV head
        assert torch.equal(queries[head], keys[head // 2])
        torch.testing.assert_close(outputs[:, head], values[head // 2].T / 4)  # half of it, shared by two heads
    assert abs(keys.var().item() * 64 - 1) < 0.15
    assert abs(values.var().item() * 64 - 1) < 0.15
