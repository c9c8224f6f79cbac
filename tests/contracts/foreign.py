"""What a stranger, who has all rights in a project of their own, sends with an id of another project in it; as `doors`."""

from __future__ import annotations

FOREIGN = """
    GET /api/v1/datasets/?project=$project
    GET /api/v1/uploads/?project=$project
    GET /api/v1/dataset-versions/?dataset=$dataset
    GET /api/v1/dataset-versions/?rollouts_of=$run
    GET /api/v1/benchmark-files/?project=$project
    GET /api/v1/pipelines/?project=$project
    GET /api/v1/launches/?pipeline=$pipeline
    GET /api/v1/runs/?project=$project
    GET /api/v1/runs/?launch=$launch
    GET /api/v1/runs/?dataset_version=$version
    GET /api/v1/runs/compare/?runs=$own_run,$run
    GET /api/v1/runs/metrics/?runs=$own_run,$run
    GET /api/v1/runs/$own_run/routes/$route/
    GET /api/v1/checkpoints/?run=$run
    GET /api/v1/alert-rules/?project=$project
    GET /api/v1/alert-rules/?run=$run
    GET /api/v1/alerts/?project=$project
    GET /api/v1/alerts/?run=$run
    GET /api/v1/alerts/?rule=$rule
    GET /api/v1/measurements/?project=$project
    GET /api/v1/measurements/?run=$run
    GET /api/v1/measurements/?launch=$launch
    GET /api/v1/evaluations/?project=$project
    GET /api/v1/evaluations/?checkpoint=$checkpoint
    GET /api/v1/evaluations/?run=$run
    GET /api/v1/deployments/?project=$project
    GET /api/v1/deployment-benchmarks/?deployment=$deployment
    GET /api/v1/deployment-benchmarks/?revision=$revision
    POST /api/v1/deployment-benchmarks/ {"revision": $own_revision, "dataset_version": $version}
    GET /deployments/$own_deployment/benchmarks/$load/
    GET /api/v1/deployments/$own_deployment/replicas/$replica/log/
    GET /api/v1/conversations/?project=$project
    GET /api/v1/conversations/?deployment=$deployment
    GET /api/v1/judgements/?project=$project
    GET /api/v1/judgements/?deployment=$deployment
    GET /api/v1/presets/?project=$project
    GET /api/v1/webhooks/?project=$project
    GET /api/v1/audit/?project__slug=$slug
    POST /api/v1/api-keys/ {"name": "k", "scopes": ["read"], "project": "$project"}
    DELETE /api/v1/projects/$own_project/invitations/$invitation/
    POST /api/v1/pipelines/ {"project": "$own_project", "name": "P", "template": "article", "dataset_version": $version}
    POST /api/v1/pipelines/$own_pipeline/phases/ {"phase": "cold_start", "name": "b", "dataset_version": $version}
    POST /api/v1/pipelines/$own_pipeline/phases/ {"phase": "cold_start", "name": "b", "from_checkpoint": $checkpoint}
    POST /api/v1/pipelines/$own_pipeline/phases/$own_phase/source/ {"from_checkpoint": $checkpoint}
    PATCH /api/v1/pipelines/$own_pipeline/phases/$phase/ {"budget_fraction": 0.5}
    PATCH /api/v1/pipelines/$own_pipeline/phases/$own_phase/ {"dataset_version": $version}
    PATCH /api/v1/pipelines/$own_pipeline/phases/$own_phase/ {"benchmark_data": $upload}
    POST /api/v1/runs/ {"project": "$own_project", "name": "r", "phase": "cold_start", "dataset_version": $version}
    POST /api/v1/runs/ {"project": "$own_project", "name": "r", "phase": "reinforcement", "starts_from": $checkpoint}
    POST /api/v1/runs/ {"project": "$own_project", "name": "r", "phase": "rejection_sampling", "rollouts_from": $checkpoint}
    POST /api/v1/runs/ {"project": "$own_project", "name": "r", "phase": "cold_start", "benchmark_data": $upload}
    POST /api/v1/runs/$own_run/roll-back/ {"checkpoint": $checkpoint, "reason": "why"}
    POST /api/v1/runs/$own_run/routes/ {"checkpoint": $checkpoint, "prompt": "1+1="}
    POST /api/v1/datasets/$own_dataset/versions/ {"config": {"source": "jsonl"}, "upload": $upload}
    POST /api/v1/datasets/$own_dataset/versions/ {"config": {"source": "rollouts"}, "run": $run}
    POST /api/v1/datasets/$own_dataset/look/ {"config": {"source": "jsonl"}, "upload": $upload}
    POST /api/v1/alert-rules/ {"project": "$own_project", "name": "a", "kind": "done", "run": $run}
    POST /api/v1/alert-rules/ {"project": "$own_project", "name": "a", "kind": "done", "webhook": $webhook}
    PATCH /api/v1/alert-rules/$own_rule/ {"run": $run}
    POST /api/v1/evaluations/ {"project": "$own_project", "benchmark": "gsm8k", "checkpoint": $checkpoint}
    POST /api/v1/deployments/ {"project": "$own_project", "name": "d", "checkpoint": $checkpoint, "engine": "builtin"}
    POST /api/v1/deployments/$own_deployment/revisions/ {"checkpoint": $checkpoint}
    POST /api/v1/deployments/$own_deployment/revisions/ {"imported_model": $import}
    POST /api/v1/deployments/ {"project": "$own_project", "name": "d", "imported_model": $import, "engine": "sglang"}
    GET /api/v1/imported-models/?project=$project
    POST /api/v1/conversations/ {"project": "$own_project", "deployment": $deployment}
    POST /api/v1/conversations/ {"project": "$own_project", "deployment": $own_deployment, "beside": [$deployment]}
    PATCH /api/v1/conversations/$own_conversation/ {"deployment": $deployment}
    PATCH /api/v1/conversations/$own_conversation/ {"beside": [$deployment]}
    POST /api/v1/conversations/$own_conversation/messages/ {"content": "2+2=", "parent": $answer}
    GET /api/v1/conversations/$own_conversation/messages/$answer/tokens/
    POST /api/v1/conversations/$own_conversation/messages/$answer/rate/ {"value": 1}
    POST /api/v1/conversations/$own_conversation/messages/$own_answer/prefer/ {"over": [$answer]}
    POST /api/v1/conversations/$own_conversation/share/ {"leaf": $answer}
    POST /api/v1/conversations/$own_conversation/unshare/ {"token": "$share"}
    POST /api/v1/judgements/review/ {"project": "$own_project", "judgements": [$judgement], "state": "accepted"}
    POST /api/v1/judgements/dataset/ {"project": "$own_project", "form": "pairs", "dataset": $dataset}
    GET /datasets/new/?upload=$upload&as=jsonl
    GET /datasets/new/?from=rollouts&run=$run
    GET /datasets/$dataset/versions/1/
    GET /pipelines/new/?dataset_version=$version
    GET /pipelines/new/?template=preference&starts_from=$checkpoint
    GET /evaluations/new/?checkpoint=$checkpoint
    GET /evaluations/$own_evaluation/?with=$evaluation
    GET /runs/?launch=$launch
    GET /runs/?version=$version
    GET /runs/new/?clone=$run
    GET /runs/new/?starts_from=$checkpoint
    GET /runs/compare/?runs=$own_run,$run
    GET /deployments/new/?checkpoint=$checkpoint
    GET /deployments/new/?imported_model=$import
    GET /deployments/$own_deployment/replicas/$replica/log/
    GET /playground/?deployment=$deployment
    GET /playground/?deployment=$own_deployment&beside=$deployment
    GET /playground/?checkpoint=$checkpoint
    GET /playground/?preset=$preset
    GET /playground/$own_conversation/tokens/$answer/
    GET /playground/shared/$share/
    POST /playground/ {"in_project": "$own_project", "deployment": "$deployment", "content": "1+1="}
    POST /playground/$own_conversation/act/rate/ {"message": "$answer", "value": "1"}
    POST /playground/$own_conversation/act/send/ {"parent": "$answer", "content": "2+2="}
    POST /playground/review/act/ {"in_project": "$own_project", "judgement": ["$judgement"], "to": "accepted"}
    POST /launches/$own_launch/override/$run/ {"reason": "why"}
    POST /launches/$own_launch/roll-back/$own_run/ {"checkpoint": "$checkpoint", "reason": "why"}
    POST /pipelines/$own_pipeline/phases/$phase/act/remove/
    POST /pipelines/$own_pipeline/phases/$own_phase/act/source/ {"starts_from": "$phase"}
    POST /runs/new/ {"in_project": "$own_project", "name": "r", "starts_from": "$checkpoint"}
    POST /deployments/new/ {"in_project": "$own_project", "name": "d", "checkpoint": "$checkpoint", "engine": "builtin"}
    POST /deployments/new/ {"in_project": "$own_project", "name": "d", "imported_model": "$import", "engine": "sglang"}
    POST /settings/alerts/ {"in_project": "$own_project", "name": "a", "kind": "done", "steps": 1, "run": "$run"}
    POST /settings/invitations/$invitation/end/ {"in_project": "$own_project"}
"""
"""What a stranger sends to doors of their own project with an id of the other one in it: it is answered as one that is none."""
