"""Each method against its equation, written out value by value in float64."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.errors import RecipeError
from prunus.steps.merge import methods
from prunus.steps.merge.config import MergeConfig
from prunus.steps.merge.method import MergeMethod
from prunus.steps.merge.methods import METHODS
from prunus.steps.merge.stream import combine

SHAPE = (5, 7)


def draw(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def by_values(function, *tensors: torch.Tensor) -> torch.Tensor:
    """Apply a function of plain numbers at every place."""
    columns = zip(*(tensor.reshape(-1).tolist() for tensor in tensors), strict=True)
    return torch.tensor([function(*column) for column in columns], dtype=torch.float64).reshape(SHAPE)


def test_a_mean_is_a_mean() -> None:
    a, b, c = draw(3)
    found = methods.linear([a, b, c], [1, 2, 5], normalize=True)
    torch.testing.assert_close(found, by_values(lambda x, y, z: (x + 2 * y + 5 * z) / 8, a, b, c))
    found = methods.linear([a, b], [0.3, -1], normalize=False)
    torch.testing.assert_close(found, by_values(lambda x, y: 0.3 * x - y, a, b))


def test_checkpoints_count_less_the_older_they_are() -> None:
    a, b, c = draw(3)
    found = methods.average([a, b, c], 0.5)
    torch.testing.assert_close(found, by_values(lambda x, y, z: (0.25 * x + 0.5 * y + z) / 1.75, a, b, c))
    torch.testing.assert_close(methods.average([a, b, c], 1.0), (a + b + c) / 3)


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_slerp_follows_the_arc(t: float) -> None:
    a, b = (tensor / tensor.norm() for tensor in draw(2))
    angle = math.acos(float((a * b).sum()))
    found = methods.slerp(a, b, t)
    assert float(found.norm()) == pytest.approx(1)
    assert math.acos(min(1, float((a * found).sum()))) == pytest.approx(t * angle, abs=1e-7)


def test_slerp_of_parallel_weights_is_a_line() -> None:
    (a,) = draw(1)
    torch.testing.assert_close(methods.slerp(a, 3 * a, 0.25), 1.5 * a)
    zero = torch.zeros_like(a)
    assert methods.slerp(zero, zero, 0.3).isfinite().all()


def test_task_arithmetic() -> None:
    base, a, b = draw(3)
    found = methods.added(base, [a, b], [0.4, 2], 0.5, normalize=False)
    torch.testing.assert_close(found, by_values(lambda o, x, y: o + 0.5 * (0.4 * x + 2 * y), base, a, b))
    found = methods.added(base, [a, b], [1, 3], 1, normalize=True)
    torch.testing.assert_close(found, by_values(lambda o, x, y: o + (x + 3 * y) / 4, base, a, b))


@pytest.mark.parametrize("normalize", [True, False])
def test_the_signs_are_elected_value_by_value(normalize: bool) -> None:
    base, a, b, c = draw(4)
    weights = (1.0, 0.5, 2.0)

    def slow(below: float, *deltas: float) -> float:
        weighted = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
        positive = sum(weighted) >= 0
        agree = [i for i, value in enumerate(weighted) if (value > 0) == positive and value]
        total = sum(weighted[i] for i in agree)
        share = sum(weights[i] for i in agree) or 1
        return below + 0.7 * (total / share if normalize else total)

    found = methods.elected(base, [a, b, c], weights, 0.7, normalize)
    torch.testing.assert_close(found, by_values(slow, base, a, b, c))


@pytest.mark.parametrize("density", [0.01, 0.3, 1.0])
def test_trimming_keeps_the_largest_changes(density: float) -> None:
    (delta,) = draw(1)
    found = methods.trimmed(delta, density)
    sizes = sorted((abs(value) for value in delta.reshape(-1).tolist()), reverse=True)
    least = sizes[max(1, int(density * len(sizes))) - 1]
    torch.testing.assert_close(found, by_values(lambda x: x if abs(x) >= least else 0.0, delta))


def test_what_is_dropped_is_made_up_for() -> None:
    delta = torch.ones(200, 200, dtype=torch.float64)
    found = methods.dropped(delta, 0.3, torch.Generator().manual_seed(1))
    assert set(found.unique().tolist()) == {0.0, 1 / 0.3}
    assert float(found.mean()) == pytest.approx(1, abs=4 * math.sqrt(0.7 / 0.3 / 200**2))
    torch.testing.assert_close(methods.dropped(delta, 1.0, torch.Generator()), delta)


def test_model_stock_is_the_point_nearest_to_the_base() -> None:
    """Of all points on the line through base and mean, t is what makes it perpendicular to the models' plane.

    With differences of one length and one angle between any two, as the paper has them.
    """
    base, *raw = draw(4)
    basis = np.linalg.qr(np.stack([tensor.reshape(-1).numpy() for tensor in raw]).T)[0].T
    common, *own = (torch.tensor(row).reshape(SHAPE) for row in basis)
    deltas = [common * 0.8 + 0.6 * one for one in own]
    found = methods.model_stock(base, [base + delta for delta in deltas])
    difference = deltas[0] - deltas[1]
    assert float(((found - base) * difference).sum()) == pytest.approx(0, abs=1e-12)
    cosine = 0.64
    torch.testing.assert_close(found, base + 2 * cosine / (1 + cosine) * (deltas[0] + deltas[1]) / 2)


def test_model_stock_keeps_the_base_of_opposites() -> None:
    base, delta = draw(2)
    torch.testing.assert_close(methods.model_stock(base, [base + delta, base - delta]), base)


def test_the_docs_have_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "merge.md").read_text()
    found = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", page.split("## Methods")[1], re.MULTILINE)
    assert found[1:] == [  # behind the table's head
        (name, method.result, ", ".join(f"`{option}`" for option in method.options), method.source)
        for name, method in METHODS.items()
    ]


def test_the_options_of_the_table_are_those_of_the_config() -> None:
    for method in METHODS.values():
        fields = {option.partition(".")[0] for option in method.options} - {"base"}
        assert fields <= MergeConfig.model_fields.keys()


OTHERS = {"weights": (2.0, 1.0), "densities": (0.9, 0.2), "t": 0.9, "decay": 0.3, "scale": 2.0, "seed": 1}
"""A value of each option that is not its default."""


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.merge])
def test_a_method_reads_the_options_in_the_table(name: str) -> None:
    base, *both = draw(3)
    below = base if METHODS[name].based else None

    def merged(**options) -> torch.Tensor:
        return combine(MergeConfig(method=name, **options), "w", None, both, below)

    start = {"weights": (0.5, 1.5)} if METHODS[name].weighted else {}
    for option, value in OTHERS.items():
        changed = not torch.equal(merged(**start), merged(**start | {option: value}))
        assert changed == (option in METHODS[name].options), option
    unlike = [merged(**start | {"weights": (2.0, 1.0), "normalize": value}) for value in (True, False)]
    assert torch.equal(*unlike) == ("normalize" not in METHODS[name].options)


def test_a_new_entry_is_a_method(monkeypatch) -> None:
    """What follows from an entry: the tensors, the need of a base, and what can be evolved."""
    new = MergeMethod(lambda one: one.origin + max(one.deltas, key=torch.norm), "the farthest", ("base",), "nobody")
    monkeypatch.setitem(METHODS, "model_stock", new)
    base, *both = draw(3)
    config = MergeConfig(method="model_stock")
    torch.testing.assert_close(combine(config, "w", None, both, base), max(both, key=lambda one: (one - base).norm()))
    with pytest.raises(RecipeError, match=r"merge.base: missing"):
        config.check_fits(2, False, 4, "merge")
    with pytest.raises(ValueError, match="model_stock has nothing to evolve"):
        MergeConfig(method="model_stock", evolve={"trials": 3})
