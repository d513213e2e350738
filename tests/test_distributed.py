"""What the environment of a process says of the others."""

import os

import pytest

from prunus import distributed


@pytest.mark.parametrize(
    ("world", "launched", "asked", "shares"),
    [("2", "true", False, True), ("2", None, True, True), ("2", None, False, False), ("1", "true", True, False)],
)
def test_weights_are_shared_where_options_or_the_launcher_say_so(
    monkeypatch: pytest.MonkeyPatch, world: str, launched: str | None, asked: bool, shares: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    for name in ("ACCELERATE_USE_FSDP", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", launched)
    distributed._launched_with_fsdp.cache_clear()
    try:
        assert [distributed.shards_weights(asked) for _ in range(2)] == [shares, shares]
        if world != "1" and launched and not asked:
            assert "ACCELERATE_USE_FSDP" not in os.environ, "accelerate must not share out once more"
    finally:
        distributed._launched_with_fsdp.cache_clear()


def test_one_process_under_torchrun_shards_as_several_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert not distributed.shards_weights(True)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert distributed.shards_weights(True)
    assert not distributed.shards_weights(False)
