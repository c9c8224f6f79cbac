"""Pages of deployments, playground and usage."""

from __future__ import annotations

from django.urls import path

from serving_app.views import benchmarks, conversations, deployment_new, deployments, imports, playground, review, sharing, usage

urlpatterns = [
    path("deployments/", deployments.deployment_list, name="deployment-list"),
    path("deployments/new/", deployment_new.deployment_new, name="deployment-new"),
    path("deployments/new/engine/", deployment_new.engine_fields, name="deployment-engine-fields"),
    path("deployments/new/fit/", deployment_new.deployment_fit, name="deployment-fit"),
    path("deployments/models/", imports.imported_models, name="imported-models"),
    path("deployments/models/found/<str:name>/", imports.model_found, name="model-found"),
    path("deployments/models/<int:import_id>/", imports.imported_model, name="imported-model"),
    path("deployments/models/<int:import_id>/remove/", imports.import_remove, name="import-remove"),
    path("deployments/<int:deployment_id>/", deployments.deployment_detail, name="deployment-detail"),
    path("deployments/<int:deployment_id>/revise/", deployment_new.deployment_revise, name="deployment-revise"),
    path("deployments/<int:deployment_id>/replicas/<int:replica_id>/log/", deployments.replica_log, name="replica-log"),
    path("deployments/<int:deployment_id>/act/<str:verb>/", deployments.deployment_act, name="deployment-act"),
    path("deployments/<int:deployment_id>/benchmarks/", benchmarks.benchmark_list, name="benchmark-list"),
    path("deployments/<int:deployment_id>/benchmarks/new/", benchmarks.benchmark_new, name="benchmark-new"),
    path("deployments/<int:deployment_id>/benchmarks/export/", benchmarks.benchmark_export, name="benchmark-export"),
    path("deployments/<int:deployment_id>/benchmarks/<int:benchmark_id>/", benchmarks.benchmark_detail, name="benchmark-detail"),
    path(
        "deployments/<int:deployment_id>/benchmarks/<int:benchmark_id>/act/<str:verb>/", benchmarks.benchmark_act,
        name="benchmark-act",
    ),
    path("playground/", playground.playground, name="playground"),
    path("playground/checkpoints/<int:checkpoint_id>/", playground.checkpoint_chat, name="checkpoint-chat"),
    path("playground/<int:conversation_id>/", playground.conversation, name="conversation"),
    path("playground/<int:conversation_id>/thread/", playground.thread, name="conversation-thread"),
    path("playground/<int:conversation_id>/act/<str:verb>/", conversations.conversation_act, name="conversation-act"),
    path("playground/<int:conversation_id>/tokens/<int:message_id>/", playground.message_tokens, name="message-tokens"),
    path("playground/<int:conversation_id>/export/", sharing.conversation_export, name="conversation-export"),
    path("playground/shared/<str:token>/", sharing.shared, name="conversation-shared"),
    path("playground/presets/<int:preset_id>/delete/", sharing.preset_delete, name="preset-delete"),
    path("playground/review/", review.review_queue, name="review-queue"),
    path("playground/review/act/", review.review_act, name="review-act"),
    path("playground/datasets/", review.judged_datasets, name="judged-datasets"),
    path("playground/win-rates/", review.win_rates, name="win-rates"),
    path("usage/", usage.usage, name="usage"),
    path("usage/export/", usage.usage_export, name="usage-export"),
    path("usage/prices/<int:deployment_id>/", usage.price, name="deployment-price"),
]
