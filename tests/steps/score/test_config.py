from prunus.steps.score.config import ScoreConfig


def test_the_path_of_the_questions_does_not_change_the_fingerprint() -> None:
    here, there = (ScoreConfig(collect=("accuracy",), task=place) for place in ("here.jsonl", "there.jsonl"))
    assert here.identity() == there.identity()
    assert "task_items" in here.identity()
