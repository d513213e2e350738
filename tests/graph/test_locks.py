"""Locks on the places of results."""

import threading
import time
from pathlib import Path

import pytest

from prunus.console import Console
from prunus.errors import ArtifactError
from prunus.graph.locks import lock_result, lock_run


def test_a_place_is_held_by_one_and_given_back_without_a_trace(tmp_path: Path) -> None:
    place = tmp_path / "data" / "corpus"
    with (
        lock_result(place),
        pytest.raises(ArtifactError, match="another command writes this result"),
        lock_result(place),
    ):
        pass
    with lock_result(place):
        pass
    assert list(place.parent.iterdir()) == []


def test_one_run_in_a_folder(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(ArtifactError, match="another run uses this folder"), lock_run(tmp_path):
        pass


def test_those_who_wait_work_one_after_the_other(tmp_path: Path) -> None:
    place, inside, most = tmp_path / "corpus", [], []

    def work(number: int) -> None:
        for _ in range(5):
            with lock_result(place, Console(quiet=True)):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.002)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most == [1] * 20
    assert not list(tmp_path.iterdir())
