"""How Sapling learnt: the curves and the held-out scores of a run of recipes/sapling.yaml, as figures and as a picture.

python benchmarks/sapling.py runs/sapling --json benchmarks/results/sapling.json --svg docs/sapling.svg

Scores are those of the run itself, or with --scores of another evaluation, such as that of `builtin:sapling`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from curves import standalone

from prunus.report.charts import Series, line_chart

STAGES = {
    "correct": "text, every token",
    "align-1-sft": "copying, answers",
    "align-2-sft": "skills, answers",
    "align-3-sft": "skills once more, answers",
}
_POINTS = 100  # of a curve that are kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("--scores", type=Path, help="the folder of an evaluation")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--svg", type=Path, help="draw the losses here")
    options = parser.parse_args()
    kept = {"stages": {name: stage(options.run, name) for name in STAGES}, "scores": {}}
    own = (run for run in (options.run / "teacher").glob("evaluate-????????"))
    kept["scores"] = scores(options.scores or next(own))
    for name, facts in kept["stages"].items():
        print(f"{name:12} {facts['tokens']:>9,} tokens  {facts['seconds']:>7,.0f} s  loss {facts['loss'][-1][1]:.3f}")
    for name, score in kept["scores"].items():
        print(f"{name:22} {score['value']:6.1%}  [{score['low']:.1%}, {score['high']:.1%}]  of {score['items']} items")
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    if options.svg:
        series = [Series(STAGES[name], facts["loss"]) for name, facts in kept["stages"].items()]
        chart = line_chart(series, "tokens of the stage", "loss, nats per counted token", log_y=True)
        options.svg.write_text(standalone(chart, list(STAGES.values())))


def stage(run: Path, name: str) -> dict[str, Any]:
    """A stage's tokens, seconds, hardware and curve of losses by tokens, each the mean since the last point."""
    folder = next(path for path in (run / "teacher").glob(f"{name}-????????"))
    record = json.loads((folder / "artifact.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    points = [(line["tokens"], line["loss"]) for line in lines if "loss" in line]
    width = max(1, len(points) // _POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    curve = [[group[-1][0], sum(loss for _, loss in group) / len(group)] for group in groups]
    return {
        "tokens": points[-1][0],
        "seconds": record["seconds"],
        "hardware": record["hardware"],
        "config": record["config"],
        "loss": curve,
    }


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Held-out scores, every metric of right and wrong with its interval."""
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    wanted = ("prompt_strict", "consistent", "manner", "exact", "right")
    return {
        f"{name} ({metric})": task["metrics"][metric]
        for name, task in tasks.items()
        for metric in wanted
        if metric in task["metrics"]
    }


if __name__ == "__main__":
    main()
