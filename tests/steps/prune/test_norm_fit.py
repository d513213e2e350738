"""A norm's scale and the sums for its readers, against the same from the outputs of every module."""

import pytest
import torch
from torch import nn

from prunus.models.families.table import FAMILIES
from prunus.steps.prune.norm_fit import Reader, best_scale, norm_sums, reader_sums, scale_gain
from prunus.steps.prune.refit import Gram

D, KEPT = 7, 5
CHANNELS = torch.tensor([0, 2, 3, 5, 6])
BASIS = torch.eye(D)[:, CHANNELS]


def norm_of(family_name: str, size: int) -> nn.Module:
    norm = nn.LayerNorm(size) if FAMILIES[family_name].layer_norm else nn.RMSNorm(size, eps=1e-5)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("family_name", ["gpt2", "llama"])
@torch.no_grad()
def test_sums_of_normalised_streams_are_enough(family_name: str) -> None:
    torch.manual_seed(0)
    family = FAMILIES[family_name]
    norms = (norm_of(family_name, D), norm_of(family_name, KEPT))
    batches = [(torch.randn(2, 9, D), torch.randn(2, 9, KEPT)) for _ in range(3)]
    sums = norm_sums(norms, batches, BASIS, family)
    x, x_s = (torch.cat(parts) for parts in zip(*batches, strict=True))

    raw = [norm_of(family_name, size) for size in (D, KEPT)]
    for norm in raw:
        norm.weight.fill_(1)
        if getattr(norm, "bias", None) is not None:
            norm.bias.zero_()
    target, values = norms[1].weight * (raw[0](x) @ BASIS), norms[1].weight * raw[1](x_s)
    scale = float((target * values).sum() / values.square().sum())
    assert best_scale(sums, norms[1], BASIS, family) == pytest.approx(scale, rel=1e-5)

    scale_gain(norms[1], scale, family)
    readers = []
    for bias, count in ((True, 4), (False, 6)):
        modules = (nn.Linear(D, 6, bias=bias), nn.Linear(KEPT, count, bias=bias))
        readers.append(Reader(*modules, torch.randperm(6)[:count], torch.rand(count) + 0.5))
    expected = Gram.empty(KEPT, 10, torch.device("cpu"))
    outputs = []
    for reader in readers:
        y = reader.teacher(norms[0](x))[..., reader.rows] * reader.factors
        outputs.append(y if reader.student.bias is None else y - reader.student.bias)
    expected.add(norms[1](x_s), torch.cat(outputs, dim=-1))
    actual = reader_sums(sums, norms, readers, family)
    torch.testing.assert_close(actual.inputs, expected.inputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual.outputs, expected.outputs, rtol=1e-4, atol=1e-4)
