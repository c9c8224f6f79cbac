"""Readings of evaluations: the list, models against benchmarks with published figures, one problem with what was said."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import F, OuterRef, QuerySet, Subquery

from model_core.evaluation.benchmarks import BENCHMARKS
from r1platform.access import for_user
from r1platform.models import Project
from training_app.evaluation_dir import EvaluationDir
from training_app.models import TASK, Evaluation, EvaluationProblem
from training_app.states import EvaluationState

Reader = User | AnonymousUser
VERDICTS: dict[str, tuple[str, dict[str, Any]]] = {
    "right": ("Right", {"correct": True}),
    "wrong": ("Wrong", {"correct": False}),
    "split": ("Sometimes right", {"accuracy__gt": 0, "accuracy__lt": 1}),
    "no_answer": ("No answer found", {"no_answer__gt": 0}),
    "truncated": ("Cut off", {"truncated__gt": 0}),
    "unscored": ("Unscored", {"correct": None}),
}
"""How problems can be filtered: the word and the lookups."""
DIFFERS = "differs"
MAX_MODELS = 200
"""Rows of the matrix; the newest models count."""


def evaluation_list(*, user: Reader, project: Project | None = None) -> QuerySet[Evaluation]:
    """Evaluations that the user may see, newest first."""
    found = for_user(Evaluation.objects.all(), user).order_by("-id")
    found = found.select_related("project", "checkpoint__run", "checkpoint__attempt", "node", "created_by")
    return found if project is None else found.filter(project=project)


def benchmark_title(evaluation: Evaluation) -> str:
    """What is asked, for people."""
    if evaluation.benchmark == TASK:
        return f"{evaluation.data_name.replace('_', ' ').capitalize()} (generated)"
    title = str(BENCHMARKS.get(evaluation.benchmark).title)
    return title if evaluation.data_name == evaluation.benchmark else f"{evaluation.data_name} ({title.lower()})"


def changed_settings(evaluation: Evaluation) -> list[str]:
    """What is not as the benchmark has pinned it, in words; two results are comparable when this is empty for both."""
    pinned = BENCHMARKS.get(evaluation.benchmark).Config().resolved()
    words = [f"{name.replace('_', ' ')} {_shown(value)} instead of {_shown(pinned.get(name))}"
             for name, value in evaluation.config.items() if pinned.get(name) != value and name != "prompt"]  # fmt: skip
    if evaluation.config.get("prompt") != pinned["prompt"]:
        words.append("another prompt")
    if evaluation.limit is not None and evaluation.benchmark != TASK:
        words.append(f"only the first {evaluation.limit} problems")
    return words


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else f"“{value}”"


@dataclass
class Row:
    """One model of the matrix: what it reached in each column. `source` is where a published figure stands."""

    label: str
    source: str = ""
    cells: list[Any] = field(default_factory=list)


def evaluation_matrix(*, user: Reader, project: Project) -> dict[str, Any]:
    """Models against benchmarks: of each pair the newest result, below them what was published on those benchmarks.

    A column is a benchmark with its data: the same name on another file is another column.
    """
    done = evaluation_list(user=user, project=project).filter(state=EvaluationState.SUCCEEDED).defer("task_config")
    columns: dict[Any, str] = {}
    models: dict[Any, dict[Any, Evaluation]] = {}
    labels: dict[Any, str] = {}
    for evaluation in done:
        model = evaluation.checkpoint_id or (evaluation.endpoint, evaluation.endpoint_model)
        if model not in models and len(models) >= MAX_MODELS:
            continue
        column = _column(evaluation)
        columns.setdefault(column, benchmark_title(evaluation))
        labels[model] = evaluation.model_label
        models.setdefault(model, {}).setdefault(column, evaluation)
    order = sorted(columns, key=lambda column: (column[0] == TASK, columns[column], column[2]))
    rows = [Row(labels[model], cells=[_cell(found.get(column)) for column in order]) for model, found in models.items()]
    published = _published([column[0] if column[0] == column[1] else "" for column in order])
    return {"columns": [columns[column] for column in order], "rows": rows, "references": published}


def _column(evaluation: Evaluation) -> tuple[str, str, str]:
    own = f"{sorted(evaluation.task_config.items())}/{evaluation.seed}" if evaluation.benchmark == TASK else evaluation.data_sha256
    return evaluation.benchmark, evaluation.data_name, own


def _cell(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None or evaluation.result is None:
        return None
    result = evaluation.result
    return {
        "evaluation": evaluation.pk, "accuracy": result["accuracy"], "low": result["low"], "high": result["high"],
        "num_problems": result["num_problems"], "num_samples": evaluation.config["num_samples"],
        "majority": result["majority"], "changed": changed_settings(evaluation),
    }  # fmt: skip


def _published(names: list[str]) -> list[Row]:
    """A row for each model and source that published something on one of the columns; figures as shares."""
    found: dict[tuple[str, str], Row] = {}
    for place, name in enumerate(names):
        for one in BENCHMARKS.get(name).references if name else ():
            row = found.setdefault((one.source, one.model), Row(one.model, one.source, [None] * len(names)))
            row.cells[place] = [*(row.cells[place] or []), {"metric": one.metric, "value": one.value / 100}]
    return [found[key] for key in sorted(found, key=lambda key: ("article" not in key[0], key))]


def evaluation_problems(
    evaluation: Evaluation, *, verdict: str = "", text: str = "", other: Evaluation | None = None
) -> QuerySet[EvaluationProblem]:
    """Its problems in the order of the data; `verdict` is a key of `VERDICTS`, or “differs” from `other`, whose share of right
    samples then stands in `other_accuracy`."""
    found = evaluation.problems.order_by("row")
    if other is not None:
        theirs = EvaluationProblem.objects.filter(evaluation=other, row=OuterRef("row"))
        shares, verdicts = theirs.values("accuracy")[:1], theirs.values("correct")[:1]
        found = found.annotate(other_accuracy=Subquery(shares), other_correct=Subquery(verdicts))
        if verdict == DIFFERS:
            found = found.exclude(other_correct=F("correct")).exclude(other_correct=None).exclude(correct=None)
    if verdict in VERDICTS:
        found = found.filter(**VERDICTS[verdict][1])
    return found.filter(prompt__icontains=text) if text else found


def evaluation_compare(first: Evaluation, second: Evaluation) -> dict[str, int]:
    """How many problems both, one, or none of two evaluations of the same rows have right, by the answer of most samples."""
    theirs = EvaluationProblem.objects.filter(evaluation=second, row=OuterRef("row")).values("correct")[:1]
    rows = first.problems.annotate(other=Subquery(theirs)).exclude(correct=None).exclude(other=None)
    counted = Counter(rows.order_by().values_list("correct", "other"))
    return {
        "both": counted[True, True], "first": counted[True, False], "second": counted[False, True], "none": counted[False, False],
    }  # fmt: skip


def evaluation_problem(evaluation: Evaluation, row: int) -> dict[str, Any] | None:
    """One problem with every sample: what was said, what was found in it, how it was judged and why. Raises DataError."""
    problem = evaluation.problems.filter(row=row).first()
    if problem is None:
        return None
    texts = EvaluationDir(evaluation.pk).texts(problem)
    samples = [
        {**sample, "completion": texts[number] if number < len(texts) else None} for number, sample in enumerate(problem.samples)
    ]
    return {
        "row": problem.row, "prompt": problem.prompt, "expected": problem.expected, "answer": problem.answer or None,
        "correct": problem.correct, "accuracy": problem.accuracy, "samples": samples,
    }  # fmt: skip


def benchmarks_known() -> list[dict[str, Any]]:
    """Every benchmark there is, with its settings' schema and what was published on it."""
    return [
        {"name": name, "title": cls.title, "description": " ".join((cls.__doc__ or "").split()), "source": cls.source,
         "licence": cls.licence, "schema": cls.Config.model_json_schema(),
         "references": [{"model": one.model, "metric": one.metric, "value": one.value, "source": one.source}
                        for one in cls.references]}
        for name, cls in BENCHMARKS.items()
    ]  # fmt: skip
