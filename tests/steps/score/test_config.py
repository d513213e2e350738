from prunus.steps.score.config import ScoreConfig


def test_where_questions_lie_is_no_part_of_a_scores_name() -> None:
    here, there = (ScoreConfig(collect=("accuracy",), task=place) for place in ("here.jsonl", "there.jsonl"))
    assert here.identity() == there.identity()
    assert "task_items" in here.identity()
