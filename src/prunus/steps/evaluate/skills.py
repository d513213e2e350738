"""A skill from its items to what each is worth, with the answers kept to be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from prunus import distributed
from prunus.console import Console
from prunus.inference.answers import Answer
from prunus.judging.judge import SAVED, Judge
from prunus.judging.prompts import JudgePrompt, filled, judge_prompts
from prunus.steps.evaluate.ask import Asker, transcript
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item, read_items
from prunus.steps.evaluate.scoring import score
from prunus.steps.evaluate.summary import Row

Given = list[list[list[Answer]]]
JUDGE = "evaluate.judge"


def ask_skill(
    name: str, task: TaskConfig, config: EvaluateConfig, asker: Asker, console: Console
) -> tuple[list[Row], dict[str, Any]]:
    """Ask and check every item of a skill; write `answers/NAME.jsonl`. Of several processes the first asks the judge.

    Returns:
        What each item is worth, and what came of a judge, if one was wanted.

    Raises:
        DataError: Items cannot be read, or the chat template refuses one.
    """
    skill, where = task.kind or name, f"tasks.{name}"
    items = read_items(task, skill, where)
    given = asker.ask(name, items, task, config, console)
    scores = [score(item, skill, answers, where) for item, answers in zip(items, given, strict=True)]
    rows: list[Row] = [{"id": i.id, "group": i.group, "scores": s} for i, s in zip(items, scores, strict=True)]
    facts: dict[str, Any] = {}
    if distributed.rank():
        return rows, facts
    if any(item.check.get("judge") for item in items):
        judge = Judge(config.judge, asker.out / SAVED, JUDGE)
        grades = judge.grade(dict(questions(items, given, judge_prompts(config.judge, JUDGE))), console)
        facts["judge"] = asdict(judge.tally)
        for i, row in enumerate(rows):
            row["scores"] |= _graded({place[1:]: grade for place, grade in grades.items() if place[0] == i})
    _save(name, items, given, rows, asker)
    return rows, facts


def questions(
    items: list[Item], given: Given, prompts: dict[str, JudgePrompt]
) -> Iterator[tuple[tuple[int, int, int], JudgePrompt]]:
    """What is asked of a judge about each answer that wants a grade, by item, sample and turn."""
    for i, item in enumerate(items):
        if not item.check.get("judge"):
            continue
        for sample, answers in enumerate(given[i]):
            for turn, (said, replied) in enumerate(transcript(item, answers)):
                yield (i, sample, turn), filled(prompts, said, replied, item.check.get("reference"))


def _graded(grades: dict[tuple[int, int], float]) -> dict[str, tuple[float, float]]:
    """The mean grade of an item, and that of each of its turns; none where there is no grade."""
    scores = {}
    if grades:
        scores["judge"] = (sum(grades.values()), float(len(grades)))
    for turn in sorted({turn for _, turn in grades}):
        found = [grade for (_, at), grade in grades.items() if at == turn]
        scores[f"judge_turn_{turn + 1}"] = (sum(found), float(len(found)))
    return scores


def _save(name: str, items: list[Item], given: Given, rows: list[Row], asker: Asker) -> None:
    """Every answer with its prompt, a line an item; the first prompt as the model read it."""
    folder = asker.out / "answers"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8", errors="replace") as file:
        for item, samples, row in zip(items, given, rows, strict=True):
            said = [message["content"] for message in item.messages if message["role"] == "user"][-1:] + item.then
            line = {
                **row,
                "said": said,
                "answers": [[answer.text for answer in answers] for answers in samples],
                "finish": [[answer.finish for answer in answers] for answers in samples],
            }
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
