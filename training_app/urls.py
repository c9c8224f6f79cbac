"""Pages of datasets, pipelines, launches, runs and evaluations; the REST API is in `training_app.api`."""

from __future__ import annotations

from django.urls import path

from training_app.views import (
    alerts,
    benchmark_files,
    choices,
    costs,
    datasets,
    evaluation_page,
    evaluations,
    launches,
    phases,
    pipelines,
    plans,
    runs,
    version_new,
    versions,
)

urlpatterns = [
    path("projects/<int:project_id>/choices/<str:kind>/", choices.choice_list, name="choice-list"),
    path("datasets/", datasets.dataset_list, name="dataset-list"),
    path("datasets/new/", version_new.dataset_new, name="dataset-new"),
    path("datasets/benchmarks/", benchmark_files.benchmark_file_list, name="benchmark-file-list"),
    path("datasets/benchmarks/<int:upload_id>/remove/", benchmark_files.benchmark_file_remove, name="benchmark-file-remove"),
    path("datasets/<int:dataset_id>/", datasets.dataset_detail, name="dataset-detail"),
    path("datasets/<int:dataset_id>/delete/", datasets.dataset_delete, name="dataset-delete"),
    path("datasets/<int:dataset_id>/versions/new/", version_new.version_new, name="version-new"),
    path("datasets/<int:dataset_id>/versions/<int:number>/", versions.version_detail, name="version-detail"),
    path("datasets/<int:dataset_id>/versions/<int:number>/stop/", versions.version_stop, name="version-stop"),
    path("pipelines/", pipelines.pipeline_list, name="pipeline-list"),
    path("pipelines/new/", pipelines.pipeline_new, name="pipeline-new"),
    path("pipelines/<int:pipeline_id>/", pipelines.pipeline_detail, name="pipeline-detail"),
    path("pipelines/<int:pipeline_id>/budget/", pipelines.pipeline_budget, name="pipeline-budget"),
    path("pipelines/<int:pipeline_id>/launch/", pipelines.pipeline_launch, name="pipeline-launch"),
    path("pipelines/<int:pipeline_id>/clone/", plans.pipeline_clone, name="pipeline-clone"),
    path("pipelines/<int:pipeline_id>/code/", plans.pipeline_code, name="pipeline-code"),
    path("pipelines/<int:pipeline_id>/phases/new/", plans.phase_new, name="phase-new"),
    path("pipelines/<int:pipeline_id>/phases/<int:phase_id>/act/<str:verb>/", plans.phase_act, name="phase-act"),
    path("pipelines/<int:pipeline_id>/phases/<int:phase_id>/", phases.phase_edit, name="phase-edit"),
    path("pipelines/<int:pipeline_id>/phases/<int:phase_id>/rates/", phases.phase_rates, name="phase-rates"),
    path("launches/<int:launch_id>/", launches.launch_detail, name="launch-detail"),
    path("launches/<int:launch_id>/act/<str:verb>/", launches.launch_act, name="launch-act"),
    path("launches/<int:launch_id>/override/<int:run_id>/", launches.gate_override, name="gate-override"),
    path("launches/<int:launch_id>/roll-back/<int:run_id>/", launches.gate_roll_back, name="gate-roll-back"),
    path("usage/training/", costs.cost_page, name="cost"),
    path("evaluations/", evaluations.evaluation_list, name="evaluation-list"),
    *alerts.urlpatterns,
    path("evaluations/held-out/", evaluations.held_out_list, name="held-out-list"),
    path("evaluations/new/", evaluations.evaluation_new, name="evaluation-new"),
    path("evaluations/<int:evaluation_id>/", evaluation_page.evaluation_detail, name="evaluation-detail"),
    path("evaluations/<int:evaluation_id>/act/<str:verb>/", evaluation_page.evaluation_act, name="evaluation-act"),
    path("evaluations/<int:evaluation_id>/problems/<int:row>/", evaluation_page.evaluation_problem, name="evaluation-problem"),
    *runs.urlpatterns,
]
