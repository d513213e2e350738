from pathlib import Path

import pytest

from prunus.inference import local
from prunus.inference.config import GenerationOptions
from prunus.inference.prompts import PLAIN, Prompt, batches, rendered, shows_tools
from prunus.models.pretrained import load_tokenizer
from tests.tiny import load

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def written(teacher: Path):
    """Prompts of differing lengths, and a way to answer them."""
    model, tokenizer = load(teacher), load_tokenizer(teacher)
    texts = ["a plum tree", "once", "there was a cherry tree that bore"]
    prompts = [Prompt(i, tokenizer(text)["input_ids"], text) for i, text in enumerate(texts)]

    def answer(**options):
        found = local.answers(batches(prompts, 2), GenerationOptions(24, **options), model, tokenizer)
        return dict(sorted(found)), tokenizer, model

    return answer


def test_an_answer_ends_before_what_stops_it(written) -> None:
    free, tokenizer, _ = written()
    word = free[0].text[5:8]
    assert word
    for answer in written(stop=(word, "never said so"))[0].values():
        assert word not in answer.text
    stopped = written(stop=(word,))[0]
    assert stopped[0].text == free[0].text[: free[0].text.index(word)]
    assert stopped[0].finish == "stop"
    assert free[0].ids[: len(stopped[0].ids)] == stopped[0].ids  # no token that was not written
    assert word in tokenizer.decode(stopped[0].ids)
    assert word not in tokenizer.decode(stopped[0].ids[:-1])
    for number, answer in free.items():
        if word not in answer.text:
            assert stopped[number] == answer


def test_generation_leaves_the_models_generation_config_unchanged(written) -> None:
    _, _, model = written()
    before = model.generation_config
    written(stop=("x",))
    assert model.generation_config is before


def test_tools_are_passed_to_the_template(teacher: Path) -> None:
    tokenizer = load_tokenizer(teacher)
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "rain?"}]
    text, ids = rendered(turns, tokenizer, "here", TOOLS, PLAIN)
    assert text.startswith('System: You can call these functions: [{"type": "function"')
    assert text.endswith("System: be brief\n\nUser: rain?\n\nAssistant:")
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert rendered(turns, tokenizer, "here", None, PLAIN)[0] == "System: be brief\n\nUser: rain?\n\nAssistant:"
    assert shows_tools(tokenizer, PLAIN)
    assert not shows_tools(tokenizer, "{{ messages }}")
    assert not shows_tools(tokenizer)
