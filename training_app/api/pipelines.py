"""`/api/v1/pipelines/`, `/pipeline-templates/` and `/launches/`: plan, launch, steer."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch, QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from model_core.errors import UnknownName
from r1platform.api import ProjectViewSet, wanted_project
from training_app import selectors, services
from training_app.api.datasets import UploadField
from training_app.api.fields import CheckpointField, VersionField, user_of, values_of
from training_app.api.runs import RunSerializer
from training_app.models import Checkpoint, DatasetVersion, Launch, PhaseRun, Pipeline, PipelinePhase, Upload
from training_app.states import GateDirection


class PipelinePhaseSerializer(serializers.ModelSerializer[PipelinePhase]):
    stop_early = serializers.IntegerField(read_only=True)

    class Meta:
        model = PipelinePhase
        fields = [
            "id", "position", "name", "phase", "starts_from", "rollouts_from", "from_checkpoint", "dataset_version", "config",
            "budget_fraction", "gate_metric", "gate_threshold", "gate_direction", "gate_action", "stop_early", "benchmark_data",
            "num_processes",
        ]  # fmt: skip
        read_only_fields = ["id", "position", "name", "phase", "starts_from", "rollouts_from", "from_checkpoint"]


class PipelineSerializer(serializers.ModelSerializer[Pipeline]):
    phases = PipelinePhaseSerializer(many=True, read_only=True)

    class Meta:
        model = Pipeline
        fields = [
            "id", "project", "name", "description", "template", "seed", "budget_device_seconds", "budget_wall_seconds",
            "budget_dollars", "budget_tokens", "dollars_per_device_hour", "phases", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class GatedSerializer(serializers.Serializer[Any]):
    """The gate of a phase: what it compares, with what, and what follows."""

    gate_metric = serializers.CharField(
        required=False, allow_blank=True, max_length=40,
        help_text="quality, accuracy, length, truncated, a reward component of the phase, or a benchmark; with _low or _high the "
        "end of its 95 % interval. Empty: no gate.",
    )  # fmt: skip
    gate_threshold = serializers.FloatField(required=False, allow_null=True)
    gate_direction = serializers.ChoiceField(choices=GateDirection.choices, required=False)
    gate_action = serializers.CharField(required=False)
    stop_early = serializers.IntegerField(
        required=False, min_value=0, max_value=1000,
        help_text="Held-out measurements in a row that end the phase early when they pass its gate safely; 0: never.",
    )  # fmt: skip
    benchmark_data = UploadField(
        queryset=Upload.objects.none(), required=False, allow_null=True,
        help_text="The uploaded JSONL file of the benchmark that the gate names; by default the project's file of that benchmark.",
    )  # fmt: skip


class BudgetSerializer(serializers.Serializer[Any]):
    """Limits of a whole pipeline, of which each phase has its share; null: none."""

    budget_device_seconds = serializers.FloatField(required=False, allow_null=True)
    budget_wall_seconds = serializers.FloatField(required=False, allow_null=True)
    budget_dollars = serializers.FloatField(required=False, allow_null=True)
    budget_tokens = serializers.IntegerField(required=False, allow_null=True, max_value=2**53)
    dollars_per_device_hour = serializers.FloatField(required=False, allow_null=True)


class NewPhaseSerializer(GatedSerializer):
    """A phase of a plan; `starts_from` and `rollouts_from` name earlier phases, `from_checkpoint` is one of an earlier run."""

    name = serializers.CharField(max_length=60, required=False)
    phase = serializers.CharField(max_length=60)
    starts_from = serializers.CharField(required=False, allow_null=True)
    rollouts_from = serializers.CharField(required=False, allow_null=True)
    from_checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False, allow_null=True)
    dataset_version = VersionField(queryset=DatasetVersion.objects.none(), required=False, allow_null=True)
    config = serializers.DictField(required=False)
    budget_fraction = serializers.FloatField(required=False)
    num_processes = serializers.IntegerField(required=False, min_value=1, max_value=1024)


class NewPipelineSerializer(BudgetSerializer):
    """A plan: from a template on a dataset version, or phase by phase."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=120)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    template = serializers.CharField(required=False, help_text="See GET pipeline-templates/.")
    dataset_version = VersionField(queryset=DatasetVersion.objects.none(), required=False)
    starts_from = CheckpointField(
        queryset=Checkpoint.objects.none(), required=False, allow_null=True,
        help_text="What a template goes on from that does not begin with new weights.",
    )  # fmt: skip
    seed = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)
    phases = NewPhaseSerializer(many=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if bool(attrs.get("template")) == bool(attrs.get("phases")):
            raise serializers.ValidationError({"template": "Give either a template or a list of phases."})
        if attrs.get("template") and attrs.get("dataset_version") is None:
            raise serializers.ValidationError({"dataset_version": "A template needs a dataset version to learn from."})
        if attrs.get("phases") and attrs.pop("starts_from", None) is not None:
            sentence = "A phase of a list says itself what it goes on from, `from_checkpoint`."
            raise serializers.ValidationError({"starts_from": sentence})
        return attrs


class AddPhaseSerializer(NewPhaseSerializer):
    position = serializers.IntegerField(required=False, min_value=0, max_value=1000, help_text="0: the first; by default the last.")
    rebalance = serializers.BooleanField(
        required=False, help_text="The others give what is missing of its share, in proportion; without a share: an equal part."
    )


class MovePhaseSerializer(serializers.Serializer[Any]):
    position = serializers.IntegerField(min_value=0, max_value=1000)


class SourcePhaseSerializer(serializers.Serializer[Any]):
    """What is not given stays; null: none. Of `starts_from` and `from_checkpoint` one takes the place of the other."""

    starts_from = serializers.CharField(required=False, allow_null=True, help_text="Name of an earlier phase.")
    rollouts_from = serializers.CharField(required=False, allow_null=True, help_text="Name of an earlier phase.")
    from_checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False, allow_null=True)


class CloneSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)


class PhasePatchSerializer(GatedSerializer):
    """What is not given stays as it was."""

    dataset_version = VersionField(queryset=DatasetVersion.objects.none(), required=False, allow_null=True)
    config = serializers.DictField(required=False)
    budget_fraction = serializers.FloatField(required=False)
    num_processes = serializers.IntegerField(required=False, min_value=1, max_value=1024)


class LaunchSerializer(serializers.ModelSerializer[Launch]):
    runs = RunSerializer(many=True, read_only=True)
    project = serializers.IntegerField(source="pipeline.project_id", read_only=True)
    state = serializers.SerializerMethodField(
        help_text="As the launch's page says it: a launch that was paused is “pausing” until its phase has written its checkpoint."
    )

    class Meta:
        model = Launch
        fields = ["id", "project", "pipeline", "number", "state", "state_reason", "runs", "created_at", "finished_at"]
        read_only_fields = fields

    def get_state(self, launch: Launch) -> str:
        return selectors.launch_state(launch, launch.runs.all())[0]


class GraphSerializer(serializers.Serializer[Any]):
    pipeline = serializers.IntegerField()
    launch = serializers.IntegerField(allow_null=True)
    nodes = serializers.ListField(child=serializers.DictField())
    edges = serializers.ListField(child=serializers.DictField())


class SpecSerializer(serializers.Serializer[Any]):
    plan = serializers.DictField()
    commands = serializers.CharField()


class TemplateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    phases = serializers.ListField(child=serializers.DictField())
    budget_device_seconds = serializers.FloatField(allow_null=True)
    learns_from = serializers.CharField(help_text="problems, answers or pairs.")
    goes_on = serializers.BooleanField(help_text="It goes on from a checkpoint, `starts_from`; else it begins with new weights.")
    prepare = serializers.DictField(help_text="A configuration for a dataset version that it works with.")


class PipelineTemplates(viewsets.ViewSet):
    """Plans that are known to work."""

    lookup_value_regex = r"[a-z0-9_]+"

    @extend_schema(responses=TemplateSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every template."""
        return Response(selectors.pipeline_templates())

    @extend_schema(responses=TemplateSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        """One template."""
        try:
            return Response(selectors.pipeline_template(pk))
        except UnknownName as error:
            raise Http404(error.message) from None


class Pipelines(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Chains of phases with budgets and gates."""

    queryset = Pipeline.objects.prefetch_related("phases").select_related("project")
    serializer_class = PipelineSerializer
    filterset_fields = ["project", "name", "template"]
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewPipelineSerializer, responses={201: PipelineSerializer})
    def create(self, request: Request) -> Response:
        """A pipeline; nothing runs until it is launched."""
        values = values_of(NewPipelineSerializer, request, self.get_serializer_context())
        values.pop("project", None)
        project, user = wanted_project(request), user_of(request)
        if values.get("template"):
            made = services.pipeline_from_template(
                project=project, user=user, template=values["template"], name=values["name"],
                dataset_version=values["dataset_version"], seed=values["seed"], starts_from=values.get("starts_from"),
            )  # fmt: skip
        else:
            version = values.pop("dataset_version", None)
            for phase in values["phases"]:
                phase.setdefault("dataset_version", version)
            made = services.pipeline_create(project=project, user=user, **{**values, "template": ""})
        return Response(PipelineSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=BudgetSerializer, responses=PipelineSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Changes its limits; launches that exist keep theirs."""
        values = values_of(BudgetSerializer, request, self.get_serializer_context())
        made = services.pipeline_budget_set(pipeline=self.get_object(), user=user_of(request), **values)
        return Response(PipelineSerializer(made).data)

    @extend_schema(request=None, responses={201: LaunchSerializer})
    @action(detail=True, methods=["post"])
    def launch(self, request: Request, pk: str) -> Response:
        """Launches it; 409 while another launch of it is live."""
        user = user_of(request)
        launched = services.pipeline_launch(pipeline=self.get_object(), user=user)
        made = selectors.launch_list(user=user).get(pk=launched.pk)
        return Response(LaunchSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses=GraphSerializer)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def graph(self, request: Request, pk: str) -> Response:
        """Phases and whose checkpoint they take, with the runs of the newest launch."""
        return Response(selectors.pipeline_graph(self.get_object()))

    @extend_schema(request=PhasePatchSerializer, responses=PipelinePhaseSerializer)
    @action(detail=True, methods=["patch"], url_path=r"phases/(?P<phase_id>\d{1,17})")
    def phase(self, request: Request, pk: str, phase_id: str) -> Response:
        """Changes a phase of the plan; launches that exist keep what they were launched with."""
        phase = self._phase(phase_id)
        given = values_of(PhasePatchSerializer, request, self.get_serializer_context())
        names = (
            "dataset_version", "budget_fraction", "num_processes", "gate_metric", "gate_threshold", "gate_direction", "gate_action",
            "benchmark_data",
        )  # fmt: skip
        changed = given.pop("config", {})
        now: dict[str, Any] = {name: getattr(phase, name) for name in names} | services.gate_keys(changed)
        config = {**phase.config, **changed}
        made = services.pipeline_phase_update(phase=phase, user=user_of(request), config=config, **{**now, **given})
        return Response(PipelinePhaseSerializer(made).data)


    @extend_schema(request=CloneSerializer, responses={201: PipelineSerializer})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: str) -> Response:
        """Another pipeline with the same phases, data, budgets and gates."""
        pipeline = self.get_object()
        values = values_of(CloneSerializer, request, self.get_serializer_context())
        made = services.pipeline_clone(pipeline=pipeline, user=user_of(request), **values)
        return Response(PipelineSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses=SpecSerializer)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def spec(self, request: Request, pk: str) -> Response:
        """The plan as `POST pipelines/` takes it, and as a shell script of the library."""
        pipeline = self.get_object()
        return Response({"plan": services.pipeline_spec(pipeline), "commands": selectors.pipeline_commands(pipeline)})

    @extend_schema(request=AddPhaseSerializer, responses={201: PipelinePhaseSerializer})
    @action(detail=True, methods=["post"])
    def phases(self, request: Request, pk: str) -> Response:
        """Adds a phase to the plan; 409 while a launch is live."""
        pipeline = self.get_object()
        values = values_of(AddPhaseSerializer, request, self.get_serializer_context())
        made = services.phase_add(pipeline=pipeline, user=user_of(request), **values)
        return Response(PipelinePhaseSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={204: None})
    @phase.mapping.delete
    def phase_remove(self, request: Request, pk: str, phase_id: str) -> Response:
        """Takes a phase out of the plan; refused while others build on it."""
        services.phase_remove(phase=self._phase(phase_id), user=user_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=MovePhaseSerializer, responses=PipelineSerializer)
    @action(detail=True, methods=["post"], url_path=r"phases/(?P<phase_id>\d{1,17})/move")
    def phase_move(self, request: Request, pk: str, phase_id: str) -> Response:
        """Puts a phase at another place; refused before what it builds on."""
        phase = self._phase(phase_id)
        values = values_of(MovePhaseSerializer, request, self.get_serializer_context())
        services.phase_move(phase=phase, user=user_of(request), **values)
        return Response(PipelineSerializer(self.get_object()).data)

    @extend_schema(request=SourcePhaseSerializer, responses=PipelinePhaseSerializer)
    @action(detail=True, methods=["post"], url_path=r"phases/(?P<phase_id>\d{1,17})/source")
    def phase_source(self, request: Request, pk: str, phase_id: str) -> Response:
        """Changes what a phase starts from or learns from."""
        phase = self._phase(phase_id)
        named = {one.name: one for one in phase.pipeline.phases.all()}
        values = values_of(SourcePhaseSerializer, request, self.get_serializer_context())
        checkpoint = {"from_checkpoint": values.pop("from_checkpoint")} if "from_checkpoint" in values else {}
        for key, name in values.items():
            if name is not None and name not in named:
                raise serializers.ValidationError({key: f"“{name[:60]}” is no phase of this pipeline."})
        sources = {key: named.get(name) for key, name in values.items()} | checkpoint
        services.phase_source_set(phase=phase, user=user_of(request), **sources)
        return Response(PipelinePhaseSerializer(self._phase(phase_id)).data)

    @extend_schema(request=None, responses={201: RunSerializer})
    @action(detail=True, methods=["post"], url_path=r"phases/(?P<phase_id>\d{1,17})/run")
    def phase_run(self, request: Request, pk: str, phase_id: str) -> Response:
        """Runs one phase alone, as the plan has it now, on the newest results of the phases that it builds on."""
        made = services.phase_run(phase=self._phase(phase_id), user=user_of(request))
        return Response(RunSerializer(made).data, status=status.HTTP_201_CREATED)

    def _phase(self, phase_id: str) -> PipelinePhase:
        found: PipelinePhase | None = self.get_object().phases.select_related("pipeline__project").filter(pk=int(phase_id)).first()
        if found is None:
            raise Http404("This pipeline has no such phase.")
        return found


class Launches(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Launches of pipelines with their runs."""

    queryset = Launch.objects.select_related("pipeline__project")
    serializer_class = LaunchSerializer
    project_path = "pipeline__project"
    filterset_fields = ["pipeline", "state"]
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Launch]:
        runs = PhaseRun.objects.select_related("retried_as").order_by("position", "id")
        return super().get_queryset().prefetch_related(Prefetch("runs", runs))

    @extend_schema(responses=GraphSerializer)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def graph(self, request: Request, pk: str) -> Response:
        """Phases and whose checkpoint they take, with the runs of this launch."""
        launch = self.get_object()
        return Response(selectors.pipeline_graph(launch.pipeline, launch))

    @extend_schema(request=None, responses=LaunchSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """The phase that runs writes a checkpoint and waits."""
        services.launch_pause(launch=self.get_object(), user=user_of(request))
        return self._now()

    @extend_schema(request=None, responses=LaunchSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Goes on where it was paused, stopped or failed."""
        services.launch_resume(launch=self.get_object(), user=user_of(request))
        return self._now()

    @extend_schema(request=None, responses=LaunchSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """The phase that runs writes a checkpoint and ends; no other starts."""
        services.launch_stop(launch=self.get_object(), user=user_of(request))
        return self._now()

    def _now(self) -> Response:
        return Response(LaunchSerializer(self.get_object()).data)
