"""All steps of a recipe in an order in which they can be done, each with its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prunus.data.config import TokensConfig
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step, given_model, given_tokenizer, tokens_step
from prunus.models.locate import Located
from prunus.pipeline.cutting import cut_steps, cuts_of, scored
from prunus.pipeline.merging import merge_step
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.search.plan import plan_search
from prunus.pipeline.students import Student
from prunus.pipeline.teacher import Teacher
from prunus.steps.align.plan import Alignment, is_model
from prunus.steps.evaluate.plan import given_data
from prunus.steps.generate.plan import given_prompts
from prunus.steps.score.plan import given_task
from prunus.steps.targets.config import TargetsConfig

_SHARED = ("prune", "distill", "evaluate", "conversations")


@dataclass(frozen=True)
class Common:
    """What the steps of all students read.

    Attributes:
        teacher: The teacher as it is at last.
        corpus: The text to train on.
        held_out: The text to measure on.
        written: What the teacher writes; the corpus where no student trains on that.
        score: The teacher's scores.
        targets: What the teacher was run on before, of each student that trains on it.
        data: Of an evaluation, but for model and text.
    """

    teacher: Step | Given
    corpus: Step
    held_out: Step
    written: Step
    score: Step
    targets: Mapping[str, Step]
    data: Mapping[str, Step | Given]


@dataclass
class Layout:
    """The steps of a recipe, as far as they are laid out.

    Attributes:
        recipe: The recipe, suited to its models.
        root: The folder of the run.
        hub: Where models and text come from.
        base: The teacher before its correction.
        alignment: The teacher's own.
        students: Those that wait for no search, in an order in which they can be made.
        references: The other models that are measured.
        steps: What was laid out.
    """

    recipe: Recipe
    root: Path
    hub: Hub
    base: Teacher
    alignment: Alignment
    students: Mapping[str, Student]
    references: Mapping[str, Located]
    steps: list[Step] = field(default_factory=list)

    def all(self) -> list[Step]:
        """Lay out all of them; those that come to the same result are in one place."""
        common = self._before_students()
        made: dict[str, list[Step]] = {}
        for name, student in self.students.items():
            first = len(self.steps)
            self._student(student, common, made)
            made[name] = self.steps[first:]
        return shared(self.steps)

    def _add(self, step: Step) -> Step:
        self.steps.append(step)
        return step

    def _evaluate(self, subject: str, label: str, **inputs: Step | Given) -> Step:
        return self._add(Step(subject, label, self.recipe.evaluate, inputs, self.root))

    def _before_students(self) -> Common:
        """The teacher and what is made of it, the other models, and the search."""
        recipe, data = self.recipe, given_data(self.recipe.evaluate)
        corpus, held_out = self._streams(self.base.tokenizer, "")
        if isinstance(self.base.model, Step):
            self._add(self.base.model)
        self.steps += [corpus, held_out]
        teacher = self._teacher(corpus, held_out, data)
        measured = self._evaluate("teacher", "evaluate", model=teacher, tokens=held_out, **data)
        if recipe.evaluate.tasks:
            data["beside"] = measured
        for name, model in self.references.items():
            stream = self._add(self._streams(given_tokenizer(model), f"-{name}")[1])
            self._evaluate(name, "evaluate", model=given_model(model), tokens=stream, **data)
        score = self._score_and_search(teacher, corpus)
        written = corpus
        if any(student.distill.reads_teacher for student in recipe.students.values()):
            asked = given_prompts(recipe.generate, self.hub) or {"tokens": corpus}
            written = self._add(Step("teacher", "generate", recipe.generate, {"model": teacher, **asked}, self.root))
        targets = self._targets(teacher, corpus, written)
        return Common(teacher, corpus, held_out, written, score, targets, data)

    def _teacher(self, corpus: Step, held_out: Step, data: Mapping[str, Step | Given]) -> Step | Given:
        """The teacher's correction and alignment."""
        recipe, teacher = self.recipe, self.base.model
        if recipe.correct.tokens:
            corrected = Step("teacher", "correct", recipe.correct, {"model": teacher, "tokens": corpus}, self.root)
            if recipe.teacher.create is None:
                self._evaluate("teacher", "evaluate-original", model=teacher, tokens=held_out, **data)
            teacher = self._add(corrected)
        for step in self.alignment.steps("teacher", teacher, None, self.root, self.base.tokenizer):
            self._add(step)
            teacher = step if is_model(step) else teacher
        return teacher

    def _score_and_search(self, teacher: Step | Given, corpus: Step) -> Step:
        """The scores that cuts read, of the teacher and of the search."""
        shape = self.base.shape
        cuts = [
            cut
            for student in self.students.values()
            if student.merge is None
            for cut in cuts_of(student.prune, shape, student.name)
        ]
        search = plan_search(self.recipe, self.base, corpus, self.hub)
        cuts += search.cuts if search else []
        config = scored(self.recipe.score, shape, cuts)
        inputs = {"model": teacher, "tokens": corpus, **given_task(config)}
        score = Step("teacher", "score", config, inputs, self.root)
        if search or any(cut.statistics(shape, left) for cut, left in cuts):
            self._add(score)
        if search:
            self.steps += search.steps(teacher, score)
        return score

    def _targets(self, teacher: Step | Given, corpus: Step, written: Step) -> dict[str, Step]:
        """The step that runs the teacher before, of each student that wants one; those who read alike share it."""
        steps: dict[str, Step] = {}
        made: dict[str, Step] = {}
        for name, student in self.recipe.students.items():
            distill = student.distill
            if not distill.tokens or distill.targets != "cached":
                continue
            config = TargetsConfig(
                **self.recipe.targets.model_dump(),
                temperature=distill.temperature,
                sequence_length=distill.sequence_length,
                sequences=distill.steps * distill.batch_size,
                attend_across_documents=distill.attend_across_documents,
                seed=distill.seed,
            )
            read = written if distill.reads_teacher else corpus
            step = Step("teacher", "targets", config, {"model": teacher, "tokens": read}, self.root)
            if step.fingerprint not in made:
                made[step.fingerprint] = self._add(step)
            steps[name] = made[step.fingerprint]
        return steps

    def _student(self, student: Student, common: Common, made: Mapping[str, Sequence[Step]]) -> None:
        """The steps of one student, from its cut to the file that runs."""
        name, distill, distills = student.name, student.distill, student.distill.tokens > 0
        if student.merge is None:
            self.steps += self._cut(student, common)
        else:
            self._add(merge_step(self.recipe, name, common.teacher, made, self.root, self.hub))
        last = self.steps[-1]
        corpus, held_out, beside = common.corpus, common.held_out, {"teacher": common.teacher, **common.data}
        if student.own_tokens:  # other tokens of the same text, so that sums over tokens do not compare
            corpus, held_out = self._streams(last, f"-{name}")
            beside = dict(common.data)
            self.steps += [corpus, held_out]
        if student.prune.init == "teacher" or not distills:
            first = "evaluate-merged" if last.kind == "merge" else "evaluate-pruned"
            label = first if distills or student.alignment.stages else "evaluate"
            self._evaluate(name, label, model=last, tokens=held_out, **beside)
        if distills:
            guide = {"targets": common.targets[name]} if name in common.targets else {"teacher": common.teacher}
            read = common.written if distill.reads_teacher else corpus
            last = self._add(Step(name, "distill", distill, {"student": last, **guide, "tokens": read}, self.root))
        words = corpus.inputs["tokenizer"]
        aligned = list(student.alignment.steps(name, last, common.teacher, self.root, words))
        if distills:
            label = "evaluate-distilled" if aligned else "evaluate"
            self._evaluate(name, label, model=last, tokens=held_out, **beside)
        self.steps += aligned
        models = list(filter(is_model, aligned))
        if models:
            last = models[-1]
            self._evaluate(name, "evaluate", model=last, tokens=held_out, **beside)
        if self.recipe.export.formats:
            self._add(Step(name, "export", self.recipe.export, {"model": last, "tokens": held_out}, self.root))

    def _cut(self, student: Student, common: Common) -> list[Step]:
        """The steps that cut a student from the teacher; the last is the cut."""
        shape, config = self.base.shape, student.prune
        given: dict[str, Step | Given] = {"model": common.teacher, "tokens": common.corpus}
        if any(cut.statistics(shape, left) for cut, left in cuts_of(config, shape, student.name)):
            given["scores"] = common.score
        return cut_steps(student.name, config, shape, given, student.distill, self.recipe.score, self.root)

    def _streams(self, tokenizer: Step | Given, suffix: str) -> tuple[Step, Step]:
        """The corpus and the held-out text; one text is split by its documents' hashes where no second is given."""
        data = self.recipe.data
        joined = TokensConfig(append_eos=data.append_eos)
        corpus = self.hub.given_sources(data.corpus, "data.corpus")
        if data.held_out:
            held_out = self.hub.given_sources(data.held_out, "data.held_out")
            train, test = joined.model_copy(update={"max_tokens": data.max_tokens}), joined
        else:
            held_out = corpus
            split = {"held_out_fraction": data.held_out_fraction, "max_tokens": data.max_tokens}
            train, test = (joined.model_copy(update={**split, "part": part}) for part in ("train", "held_out"))
        return (
            tokens_step(train, corpus, tokenizer, f"corpus{suffix}", self.root),
            tokens_step(test, held_out, tokenizer, f"held_out{suffix}", self.root),
        )


def shared(steps: Sequence[Step]) -> list[Step]:
    """The steps, with those that come to the same result in one place: done once, and found done after that.

    Two students that differ in their alignment alone are cut and distilled alike; all with the teacher's words read the
    same conversations.
    """
    places: dict[str, Path] = {}
    instead: dict[int, Step] = {}
    for step in steps:
        inputs = {
            name: instead.get(id(given), given) if isinstance(given, Step) else given
            for name, given in step.inputs.items()
        }
        place = places.get(step.fingerprint) if step.kind in _SHARED else None
        instead[id(step)] = replace(step, inputs=inputs, place=place)
        places.setdefault(step.fingerprint, step.artifact.path)
    return [instead[id(step)] for step in steps]
