import pytest

from prunus.models.axes import parse_weight

SIZES = {"vocab": 11, "hidden": 6, "mlp": 5, "heads": 4, "kv_heads": 2, "head_dim": 3}


def test_a_line_is_taken_apart() -> None:
    weight = parse_weight("(heads head_dim) hidden if attention_bias")
    assert weight.dims == ((("heads", "head_dim"),), (("hidden",),))
    assert weight.shape(SIZES) == (12, 6)
    assert weight.runs_over("hidden", -1)
    assert not weight.runs_over("heads", -1)
    assert weight.exists({"attention_bias": True})
    assert not weight.exists({})


def test_a_negated_condition() -> None:
    weight = parse_weight("vocab hidden if not tie_word_embeddings")
    assert weight.exists({"tie_word_embeddings": False})
    assert not weight.exists({"tie_word_embeddings": True})


@pytest.mark.parametrize("line", ["hiden", "", "(heads dim) hidden"])
def test_an_unknown_axis_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="unknown axes"):
        parse_weight(line)


def test_fused_projections_are_segments() -> None:
    weight = parse_weight("(heads head_dim)+(kv_heads head_dim)+mlp (3 head_dim)")
    assert weight.dims == ((("heads", "head_dim"), ("kv_heads", "head_dim"), ("mlp",)), ((3, "head_dim"),))
    assert weight.shape(SIZES) == (12 + 6 + 5, 9)
