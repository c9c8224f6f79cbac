"""The tables of training: datasets → pipelines → runs → metrics. They hold data and constraints, no verbs."""

from training_app.models.alerts import Alert, AlertKind, AlertRule, AlertWatch
from training_app.models.datasets import Dataset, DatasetKind, DatasetVersion, Upload, VersionTransition
from training_app.models.evaluations import TASK, Evaluation, EvaluationProblem, EvaluationTransition
from training_app.models.metrics import MetricChunk, MetricSeries
from training_app.models.pipelines import Launch, LaunchTransition, Pipeline, PipelinePhase
from training_app.models.routes import RoutedText
from training_app.models.runs import Checkpoint, PhaseRun, RunAttempt, RunEvent, RunTransition

__all__ = [
    "TASK", "Alert", "AlertKind", "AlertRule", "AlertWatch", "Checkpoint", "Dataset", "DatasetKind", "DatasetVersion",
    "Evaluation", "EvaluationProblem", "EvaluationTransition", "Launch", "LaunchTransition", "MetricChunk", "MetricSeries",
    "PhaseRun", "Pipeline", "PipelinePhase", "RoutedText", "RunAttempt", "RunEvent", "RunTransition", "Upload",
    "VersionTransition",
]
