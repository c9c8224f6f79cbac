"""Judgements: the review queue, what is ready to become data, and who is preferred to whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, Q, QuerySet

from model_core.evaluation.statistics import wilson
from r1platform.access import for_user
from r1platform.models import Project, Role
from serving_app.models import Conversation, Deployment, DeploymentRevision, Judgement, JudgementKind
from serving_app.states import ReviewState
from training_app.models import Checkpoint, DatasetVersion

Reader = User | AnonymousUser


def judgement_list(*, user: Reader, project: Project | None = None) -> QuerySet[Judgement]:
    """What editors review: every judgement of their projects that can become data, newest first; ties cannot."""
    found = for_user(Judgement.objects.exclude(value=0), user, role=Role.EDITOR)
    found = found.select_related("project", "user", "reviewed_by", "deployment", "other_deployment")
    return found if project is None else found.filter(project=project)


def judgement_counts(*, user: Reader, project: Project) -> dict[str, int]:
    """How many judgements are in each state of the review, and `unused`: accepted ones that are in no dataset yet."""
    found = judgement_list(user=user, project=project).order_by()
    states = dict(found.values_list("state").annotate(Count("pk")))
    unused = found.filter(state=ReviewState.ACCEPTED, versions=None).count()
    return {**{state: states.get(state, 0) for state in ReviewState.values}, "unused": unused}


def own_judgements(*, conversation: Conversation) -> dict[int, dict[str, Judgement]]:
    """What the conversation's user said of its answers: by message, then by kind."""
    found: dict[int, dict[str, Judgement]] = {}
    rows = Judgement.objects.filter(message__conversation=conversation, user=conversation.user_id)
    for one in rows.order_by("pk"):
        found.setdefault(one.message_id or 0, {})[one.kind] = one
    return found


@dataclass(frozen=True)
class Pair:
    """How often one deployment was preferred to another, side by side; a tie is half a win of each."""

    first: Deployment
    second: Deployment
    wins: int
    losses: int
    ties: int

    @property
    def num(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def rate(self) -> float:
        """Win rate of the first."""
        return (self.wins + self.ties / 2) / self.num

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(self.wins + self.ties / 2, self.num)

    @property
    def ranked(self) -> tuple[Deployment, Deployment] | None:
        """Who is preferred and to whom; None while the interval does not tell."""
        low, high = self.interval
        if low > 0.5:
            return self.first, self.second
        return (self.second, self.first) if high < 0.5 else None

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        return f"“{self.ranked[0].shown_name}” is preferred." if self.ranked else "No difference can be told yet."


def win_rates(*, user: Reader, project: Project) -> list[Pair]:
    """Every pair of deployments that was compared, the most compared first; what an editor left out does not count."""
    rows = for_user(Judgement.objects.filter(project=project, kind=JudgementKind.CHOICE), user).exclude(
        Q(state=ReviewState.REJECTED) | Q(deployment=None) | Q(other_deployment=None)
    )
    counts: dict[tuple[int, int], Counter[str]] = {}
    for one, other, value in rows.values_list("deployment", "other_deployment", "value"):
        if one is None or other is None or one == other:
            continue
        low, high = sorted((one, other))
        said = "ties" if value == 0 else ("wins" if one == low else "losses")
        counts.setdefault((low, high), Counter())[said] += 1
    named = Deployment.objects.in_bulk({pk for pair in counts for pk in pair})
    found = [Pair(named[a], named[b], n["wins"], n["losses"], n["ties"]) for (a, b), n in counts.items()]
    return sorted(found, key=lambda pair: (-pair.num, pair.first.pk, pair.second.pk))


def judged_versions(*, user: Reader, project: Project) -> QuerySet[DatasetVersion]:
    """Dataset versions that were made from judgements, newest first, with how many each."""
    found = for_user(DatasetVersion.objects.filter(dataset__project=project), user, path="dataset__project")
    return (
        found.filter(judgements__isnull=False)
        .annotate(num_judgements=Count("judgements"))
        .select_related("dataset")
        .prefetch_related("runs")
        .order_by("-pk")
    )


def judged_checkpoint(*, user: Reader, project: Project) -> Checkpoint | None:
    """The checkpoint to go on training from: of the newest revision of the deployment that most judgements are about."""
    rows = for_user(Judgement.objects.filter(project=project), user).order_by()
    tally: Counter[int] = Counter()
    for name in ("deployment", "other_deployment"):
        tally.update(dict(rows.exclude(**{name: None}).values_list(name).annotate(Count("pk"))))
    for deployment, _num in tally.most_common():
        newest = (
            DeploymentRevision.objects.filter(deployment=deployment, checkpoint__isnull=False, checkpoint__removed_at=None)
            .select_related("checkpoint__run")
            .order_by("-number")
            .first()
        )
        if newest is not None:
            return newest.checkpoint
    return None

