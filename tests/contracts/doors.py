"""Every door of the platform and whose it is, as data: a route, a method or a socket without a row here fails a test.

A row is `METHOD path body`; `$name` is an id of `tests.contracts.world`, the body is JSON (of a page: its form).
"""

from __future__ import annotations

RULES: dict[str, tuple[str, ...]] = {
    # anonymous, stranger, viewer, editor, owner, staff (who is no member)
    "public": ("in", "in", "in", "in", "in", "in"),
    "signed in": ("out", "in", "in", "", "in", "in"),
    "the same for all": ("out", "in", "", "", "", ""),
    "project read": ("out", "404", "in", "", "in", "404"),
    "project write": ("out", "404", "403", "in", "in", "404"),
    "project own": ("out", "404", "403", "403", "in", "404"),
    "editors' own": ("out", "404", "404", "in", "in", "404"),
    "owners' own": ("out", "404", "404", "404", "in", "404"),
    "self": ("out", "404", "404", "404", "in", "404"),
    "page for editors": ("out", "in", "403", "in", "in", "in"),
    "page for owners": ("out", "in", "403", "403", "in", "in"),
    "named read": ("out", "400", "in", "in", "in", "400"),
    "named write": ("out", "400", "403", "in", "in", "400"),
    "named own": ("out", "400", "403", "403", "in", "400"),
    "form read": ("out", "403", "in", "in", "in", "403"),
    "form write": ("out", "403", "403", "in", "in", "403"),
    "form own": ("out", "403", "403", "403", "in", "403"),
    "staff": ("out", "403", "403", "403", "403", "in"),
    "key read": ("out", "404", "in", "in", "in", "404"),
    "not set up": ("out", "404", "404", "404", "404", "404"),
    "nobody": ("404", "404", "404", "404", "404", "404"),
}
"""What each of the six meets: `in`; `out`, the sign-in; or a refusal. `named`: the body or the query names the project, and one
of others is answered as one that does not exist. `form`: the form says which project its page showed. `page for`: the page is
about the visitor's own project where they are no member of this one. Empty: not visited, for who stands beside meets the same."""

DOORS: dict[str, str] = {
    "public": """
        GET /livez
        GET /readyz
        GET /metrics
        GET /sign-in/
        POST /sign-in/ {"username": "nobody", "password": "x"}
        GET $sign_in_link
        POST $sign_in_link
        GET $invitation_link
        POST $invitation_link {"username": "dora", "password": "correct horse battery"}
    """,
    "not set up": """
        POST /sign-in/oidc/connect/
        POST /sign-in/oidc/disconnect/
    """,
    "nobody": """
        GET /sign-in/oidc/
        GET /sign-in/oidc/callback/
        GET /v1/embeddings
        POST /v1/embeddings {}
        PUT /v1/embeddings
        PATCH /v1/embeddings
        DELETE /v1/embeddings
    """,
    "key read": """
        GET /v1/models/$model
        POST /v1/chat/completions {"model": "$model", "messages": [{"role": "user", "content": "1+1="}]}
        POST /v1/completions {"model": "$model", "prompt": "1+1="}
    """,
    "signed in": """
        GET /v1/models
        POST /sign-out/
        GET /
        GET /rail/
        GET /palette.json?q=z
        GET /nodes/
        GET /styleguide/
        GET /settings/
        POST /settings/projects/ {"name": "Mine"}
        GET /settings/keys/
        POST /settings/keys/ {"name": "k", "scopes": ["read"]}
        GET /settings/alerts/
        GET /runs/alerts/
        GET /runs/
        GET /datasets/
        GET /datasets/benchmarks/
        GET /pipelines/
        GET /usage/training/
        GET /usage/
        GET /usage/export/
        GET /evaluations/
        GET /evaluations/held-out/
        GET /runs/compare/
        GET /deployments/
        GET /deployments/new/engine/?engine=builtin
        GET /deployments/models/
        GET /playground/
        GET /playground/win-rates/
        GET /api/v1/
        GET /api/v1/docs/
        GET /api/v1/me/
        GET /api/v1/projects/
        POST /api/v1/projects/ {"name": "Mine"}
        POST /api/v1/projects/join/ {"token": "none"}
        GET /api/v1/nodes/
        GET /api/v1/nodes/$node/
        GET /api/v1/devices/
        GET /api/v1/devices/$device/
        GET /api/v1/operations/
        GET /api/v1/api-keys/
        POST /api/v1/api-keys/ {"name": "k", "scopes": ["read"]}
        GET /api/v1/audit/
        GET /api/v1/webhooks/
        GET /api/v1/datasets/
        GET /api/v1/uploads/
        GET /api/v1/dataset-versions/
        GET /api/v1/sources/
        GET /api/v1/filters/
        GET /api/v1/tasks/
        GET /api/v1/pipeline-templates/
        GET /api/v1/pipeline-templates/article/
        GET /api/v1/pipelines/
        GET /api/v1/launches/
        GET /api/v1/runs/
        GET /api/v1/checkpoints/
        GET /api/v1/alert-rules/
        GET /api/v1/alerts/
        GET /api/v1/measurements/
        GET /api/v1/benchmarks/
        GET /api/v1/evaluations/
        GET /api/v1/phases/
        GET /api/v1/rewards/
        GET /api/v1/deployments/
        GET /api/v1/deployment-benchmarks/
        GET /api/v1/imported-models/
        GET /api/v1/conversations/
        GET /api/v1/judgements/
        GET /api/v1/presets/
        GET /api/v1/engines/
    """,
    "the same for all": """
        GET /api/v1/schema/
    """,
    "staff": """
        POST /nodes/$node/drain/ {"draining": "1"}
        PATCH /api/v1/nodes/$node/ {"draining": true}
    """,
    "page for editors": """
        GET /datasets/new/?project=$project
        GET /pipelines/new/?project=$project
        GET /evaluations/new/?project=$project
        GET /runs/new/?project=$project
        GET /deployments/new/?project=$project
        GET /deployments/new/fit/?project=$project&engine=builtin
        GET /deployments/models/found/$shelved/?project=$project
        GET /playground/review/?project=$project
        GET /playground/datasets/?project=$project
    """,
    "page for owners": """
        GET /settings/audit/?project=$project
        GET /settings/webhooks/?project=$project
    """,
    "form read": """
        POST /playground/ {"in_project": "$project", "deployment": "$deployment", "content": "1+1="}
        POST /runs/new/rates/ {"in_project": "$project"}
    """,
    "form write": """
        POST /first-pipeline/ {"in_project": "$project"}
        POST /datasets/new/ {"in_project": "$project"}
        POST /datasets/benchmarks/ {"in_project": "$project"}
        POST /pipelines/new/ {"in_project": "$project"}
        POST /evaluations/new/ {"in_project": "$project"}
        POST /settings/alerts/ {"in_project": "$project", "name": "Ends", "kind": "done", "steps": 1}
        POST /settings/alerts/usual/ {"in_project": "$project"}
        POST /runs/new/ {"in_project": "$project"}
        POST /deployments/new/ {"in_project": "$project"}
        POST /deployments/models/found/$shelved/ {"in_project": "$project"}
        POST /playground/review/act/ {"in_project": "$project", "judgement": ["$judgement"], "to": "accepted"}
        POST /playground/datasets/ {"in_project": "$project", "form": "pairs"}
    """,
    "form own": """
        POST /settings/project/ {"in_project": "$project", "name": "Other"}
        POST /settings/project/archive/ {"in_project": "$project"}
        POST /settings/invitations/ {"in_project": "$project", "role": "viewer", "days": "7"}
        POST /settings/invitations/$invitation/end/ {"in_project": "$project"}
        POST /settings/members/ {"in_project": "$project", "username": "viewer", "role": "editor"}
        POST /settings/webhooks/ {"in_project": "$project", "name": "h", "url": "https://h.example.org/"}
    """,
    "self": """
        POST /settings/keys/$key/revoke/
        POST /settings/keys/$key/limits/ {"requests_per_minute": "5"}
        GET /api/v1/api-keys/$key/
        PATCH /api/v1/api-keys/$key/ {"requests_per_minute": 5}
        DELETE /api/v1/api-keys/$key/
        GET /playground/$conversation/
        GET /playground/$conversation/thread/
        POST /playground/$conversation/act/send/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/stop/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/regenerate/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/continue/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/edit/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/rate/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/rewrite/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/prefer/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/settings/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/preset/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/share/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/unshare/ {"token": "$share"}
        POST /playground/$conversation/act/rename/ {"content": "2+2=", "message": "$answer"}
        POST /playground/$conversation/act/delete/ {"content": "2+2=", "message": "$answer"}
        GET /playground/$conversation/tokens/$answer/
        GET /playground/$conversation/export/
        POST /playground/presets/$preset/delete/
        DELETE /api/v1/presets/$preset/
        GET /api/v1/conversations/$conversation/
        PATCH /api/v1/conversations/$conversation/ {"title": "x"}
        DELETE /api/v1/conversations/$conversation/
        GET /api/v1/conversations/$conversation/messages/
        POST /api/v1/conversations/$conversation/messages/ {"content": "2+2="}
        POST /api/v1/conversations/$conversation/messages/$answer/stop/
        POST /api/v1/conversations/$conversation/messages/$answer/regenerate/
        POST /api/v1/conversations/$conversation/messages/$answer/continue/
        GET /api/v1/conversations/$conversation/messages/$answer/tokens/
        POST /api/v1/conversations/$conversation/messages/$asked/edit/ {"content": "2+2="}
        POST /api/v1/conversations/$conversation/messages/$answer/rate/ {"value": -1}
        POST /api/v1/conversations/$conversation/messages/$answer/rewrite/ {"content": "42"}
        POST /api/v1/conversations/$conversation/messages/$answer/prefer/ {"over": [$answer]}
        POST /api/v1/conversations/$conversation/share/ {}
        GET /api/v1/conversations/$conversation/shares/
        POST /api/v1/conversations/$conversation/unshare/ {"token": "$share"}
    """,
    "owners' own": """
        GET /api/v1/webhooks/$webhook/
        PATCH /api/v1/webhooks/$webhook/ {"name": "x"}
        DELETE /api/v1/webhooks/$webhook/
        GET /api/v1/webhooks/$webhook/deliveries/
        POST /api/v1/webhooks/$webhook/ping/
        POST /api/v1/webhooks/$webhook/renew-secret/
    """,
    "project own": """
        GET /settings/webhooks/$webhook/
        POST /settings/webhooks/$webhook/act/test/
        POST /settings/webhooks/$webhook/act/on/
        POST /settings/webhooks/$webhook/act/off/
        POST /settings/webhooks/$webhook/act/secret/
        POST /settings/webhooks/$webhook/act/delete/
        PUT /api/v1/projects/$project/ {"name": "Other"}
        PATCH /api/v1/projects/$project/ {"name": "Other"}
        POST /api/v1/projects/$project/archive/
        POST /api/v1/projects/$project/restore/
        GET /api/v1/projects/$project/invitations/
        POST /api/v1/projects/$project/invitations/ {"role": "viewer"}
        DELETE /api/v1/projects/$project/invitations/$invitation/
        PUT /api/v1/projects/$project/members/ {"username": "viewer", "role": "editor"}
        DELETE /api/v1/projects/$project/members/viewer/
    """,
    "editors' own": """
        GET /api/v1/judgements/$judgement/
    """,
    "named own": """
        POST /api/v1/webhooks/ {"project": "$project", "name": "h", "url": "https://h.example.org/"}
    """,
    "named write": """
        POST /api/v1/datasets/ {"project": "$project", "name": "More"}
        POST /api/v1/uploads/ {"project": "$project"}
        POST /api/v1/pipelines/ {"project": "$project", "name": "P", "phases": [{"phase": "cold_start"}]}
        POST /api/v1/runs/ {"project": "$project", "name": "r", "phase": "pretraining"}
        POST /api/v1/alert-rules/ {"project": "$project", "name": "Ends", "kind": "done"}
        POST /api/v1/evaluations/ {"project": "$project", "benchmark": "gsm8k", "endpoint": "https://x.example.org"}
        POST /api/v1/deployments/ {"project": "$project", "name": "another", "checkpoint": $checkpoint, "engine": "builtin"}
        POST /api/v1/deployment-benchmarks/ {"revision": $revision}
        POST /api/v1/imported-models/ {"project": "$project", "name": "$shelved", "chat_template_sha256": "0"}
        GET /api/v1/imported-models/found/?project=$project
        GET /api/v1/imported-models/found/$shelved/?project=$project
        POST /api/v1/judgements/review/ {"project": "$project", "judgements": [$judgement], "state": "accepted"}
        POST /api/v1/judgements/dataset/ {"project": "$project", "form": "pairs", "name": "Judged"}
    """,
    "named read": """
        GET /api/v1/benchmark-files/?project=$project
        GET /api/v1/costs/?project=$project
        GET /api/v1/evaluations/matrix/?project=$project
        GET /api/v1/judgements/win-rates/?project=$project
        GET /api/v1/usage/?project=$project
        GET /api/v1/usage/rows/?project=$project
        POST /api/v1/conversations/ {"project": "$project", "title": "Mine"}
        POST /api/v1/presets/ {"project": "$project", "name": "Mine"}
    """,
    "project read": """
        GET /projects/$project/choices/runs/
        GET /datasets/$dataset/
        GET /datasets/$dataset/versions/1/
        GET /pipelines/$pipeline/
        GET /pipelines/$pipeline/code/
        GET /pipelines/$pipeline/phases/$phase/
        POST /pipelines/$pipeline/phases/$phase/rates/
        GET /launches/$launch/
        GET /evaluations/$evaluation/
        GET /evaluations/$evaluation/problems/0/
        GET /runs/$run/
        GET /runs/$run/header/
        GET /runs/$run/report/
        GET /runs/$run/rollouts/
        GET /runs/compare/?runs=$run
        GET /deployments/$deployment/
        GET /deployments/$deployment/replicas/$replica/log/
        GET /deployments/$deployment/benchmarks/
        GET /deployments/$deployment/benchmarks/export/
        GET /deployments/$deployment/benchmarks/$load/
        GET /deployments/models/$import/
        GET /playground/shared/$share/
        GET /api/v1/imported-models/$import/
        GET /api/v1/projects/$project/
        GET /api/v1/projects/$project/members/
        GET /api/v1/datasets/$dataset/
        GET /api/v1/datasets/$dataset/versions/
        GET /api/v1/uploads/$upload/
        GET /api/v1/dataset-versions/$version/
        GET /api/v1/dataset-versions/$version/lineage/
        GET /api/v1/dataset-versions/$version/preview/
        GET /api/v1/dataset-versions/$version/report/
        GET /api/v1/pipelines/$pipeline/
        GET /api/v1/pipelines/$pipeline/graph/
        GET /api/v1/pipelines/$pipeline/spec/
        GET /api/v1/launches/$launch/
        GET /api/v1/launches/$launch/graph/
        GET /api/v1/runs/compare/?runs=$run
        GET /api/v1/runs/metrics/?runs=$run
        GET /api/v1/runs/$run/
        GET /api/v1/runs/$run/checkpoints/
        GET /api/v1/runs/$run/events/
        GET /api/v1/runs/$run/experts/
        GET /api/v1/runs/$run/experts/history/
        GET /api/v1/runs/$run/log/
        GET /api/v1/runs/$run/log/download/
        GET /api/v1/runs/$run/log/search/?q=z
        GET /api/v1/runs/$run/metrics/
        GET /api/v1/runs/$run/prompt/?step=1&group=0
        GET /api/v1/runs/$run/rewards/
        GET /api/v1/runs/$run/roll-back-choices/
        GET /api/v1/runs/$run/rollouts/
        GET /api/v1/runs/$run/routes/
        GET /api/v1/runs/$run/routes/$route/
        GET /api/v1/checkpoints/$checkpoint/
        GET /api/v1/checkpoints/$checkpoint/download/
        GET /api/v1/checkpoints/$checkpoint/files/
        GET /api/v1/alert-rules/$rule/
        GET /api/v1/alerts/$alert/
        GET /api/v1/measurements/$measurement/
        GET /api/v1/evaluations/$evaluation/
        GET /api/v1/evaluations/$evaluation/problems/
        GET /api/v1/evaluations/$evaluation/problems/0/
        GET /api/v1/deployments/$deployment/
        GET /api/v1/deployments/$deployment/replicas/
        GET /api/v1/deployments/$deployment/replicas/$replica/log/
        GET /api/v1/deployments/$deployment/revisions/
        GET /api/v1/deployments/$deployment/history/
        GET /api/v1/deployments/$deployment/price/
        GET /api/v1/deployment-benchmarks/$load/
        GET /api/v1/presets/$preset/
    """,
    "project write": """
        POST /datasets/$dataset/delete/
        GET /datasets/$dataset/versions/new/
        POST /datasets/$dataset/versions/new/
        POST /datasets/$dataset/versions/1/stop/
        POST /datasets/benchmarks/$upload/remove/
        GET /pipelines/$pipeline/budget/
        POST /pipelines/$pipeline/budget/
        POST /pipelines/$pipeline/launch/
        POST /pipelines/$pipeline/clone/ {"name": "Another"}
        GET /pipelines/$pipeline/phases/new/
        POST /pipelines/$pipeline/phases/new/
        POST /pipelines/$pipeline/phases/$phase/
        POST /pipelines/$pipeline/phases/$phase/act/earlier/
        POST /pipelines/$pipeline/phases/$phase/act/later/
        POST /pipelines/$pipeline/phases/$phase/act/source/
        POST /pipelines/$pipeline/phases/$phase/act/run/
        POST /pipelines/$pipeline/phases/$phase/act/remove/
        POST /launches/$launch/act/pause/
        POST /launches/$launch/act/resume/
        POST /launches/$launch/act/stop/
        POST /launches/$launch/override/$run/ {"reason": "why"}
        POST /launches/$launch/roll-back/$run/ {"reason": "why"}
        POST /evaluations/$evaluation/act/stop/
        POST /evaluations/$evaluation/act/resume/
        POST /evaluations/$evaluation/act/delete/
        GET /settings/alerts/$rule/
        POST /settings/alerts/$rule/ {"name": "Ends", "kind": "done", "steps": 1}
        POST /settings/alerts/$rule/act/on/
        POST /settings/alerts/$rule/act/off/
        POST /settings/alerts/$rule/act/delete/
        POST /runs/alerts/$alert/see/
        GET /runs/$run/retry/
        POST /runs/$run/retry/
        POST /runs/$run/act/stop/
        POST /runs/$run/act/pause/
        POST /runs/$run/act/resume/
        POST /runs/$run/act/retry/
        POST /runs/$run/act/clone/
        POST /runs/$run/act/override/
        POST /runs/$run/act/roll-back/
        POST /runs/$run/act/describe/
        GET /deployments/$deployment/revise/
        GET /deployments/$deployment/benchmarks/new/
        POST /deployments/$deployment/benchmarks/new/ {"revision": "$revision"}
        POST /deployments/$deployment/benchmarks/$load/act/stop/
        POST /deployments/$deployment/benchmarks/$load/act/delete/
        POST /deployments/$deployment/revise/
        POST /deployments/$deployment/act/stop/ {"name": "$model", "replicas": "2"}
        POST /deployments/$deployment/act/start/ {"name": "$model", "replicas": "2"}
        POST /deployments/$deployment/act/scale/ {"name": "$model", "replicas": "2"}
        POST /deployments/$deployment/act/delete/ {"name": "$model", "replicas": "2"}
        POST /deployments/$deployment/act/idle/ {"minutes": "5"}
        POST /deployments/$deployment/act/shift/ {"revision": "1", "share": "50"}
        POST /deployments/$deployment/act/rollback/ {"revision": "1"}
        POST /deployments/models/$import/remove/
        DELETE /api/v1/imported-models/$import/
        POST /usage/prices/$deployment/ {"input_dollars": "1"}
        POST /playground/checkpoints/$checkpoint/ {"content": "1+1="}
        DELETE /api/v1/datasets/$dataset/
        POST /api/v1/datasets/$dataset/look/
        POST /api/v1/datasets/$dataset/versions/ {"config": {"source": "generated"}}
        POST /api/v1/uploads/$upload/benchmark/ {"name": ""}
        POST /api/v1/dataset-versions/$version/stop/
        PATCH /api/v1/pipelines/$pipeline/ {"budget_tokens": 1000}
        POST /api/v1/pipelines/$pipeline/clone/ {"name": "Another"}
        POST /api/v1/pipelines/$pipeline/launch/
        POST /api/v1/pipelines/$pipeline/phases/ {"phase": "cold_start"}
        PATCH /api/v1/pipelines/$pipeline/phases/$phase/ {"budget_fraction": 0.5}
        DELETE /api/v1/pipelines/$pipeline/phases/$phase/
        POST /api/v1/pipelines/$pipeline/phases/$phase/move/ {"position": 0}
        POST /api/v1/pipelines/$pipeline/phases/$phase/run/
        POST /api/v1/pipelines/$pipeline/phases/$phase/source/ {"starts_from": null}
        POST /api/v1/launches/$launch/pause/
        POST /api/v1/launches/$launch/resume/
        POST /api/v1/launches/$launch/stop/
        PATCH /api/v1/runs/$run/ {"tags": ["a"]}
        POST /api/v1/runs/$run/clone/
        POST /api/v1/runs/$run/override-gate/ {"reason": "why"}
        POST /api/v1/runs/$run/pause/
        POST /api/v1/runs/$run/resume/
        POST /api/v1/runs/$run/retry/
        POST /api/v1/runs/$run/roll-back/ {"checkpoint": $checkpoint, "reason": "why"}
        POST /api/v1/runs/$run/routes/ {"checkpoint": $checkpoint, "prompt": "1+1="}
        POST /api/v1/runs/$run/stop/
        PATCH /api/v1/alert-rules/$rule/ {"name": "Ends"}
        DELETE /api/v1/alert-rules/$rule/
        POST /api/v1/alerts/$alert/see/
        DELETE /api/v1/evaluations/$evaluation/
        POST /api/v1/evaluations/$evaluation/resume/
        POST /api/v1/evaluations/$evaluation/stop/
        PATCH /api/v1/deployments/$deployment/ {"description": "x"}
        DELETE /api/v1/deployments/$deployment/
        POST /api/v1/deployments/$deployment/revisions/ {"checkpoint": $checkpoint}
        POST /api/v1/deployments/$deployment/start/
        POST /api/v1/deployments/$deployment/stop/
        POST /api/v1/deployments/$deployment/shift/ {"revision": 1, "share": 50}
        POST /api/v1/deployments/$deployment/rollback/ {}
        POST /api/v1/deployment-benchmarks/$load/stop/
        DELETE /api/v1/deployment-benchmarks/$load/
        PUT /api/v1/deployments/$deployment/price/ {"input_dollars": "1"}
    """,
}  # fmt: skip

SOCKETS: dict[str, tuple[str, ...]] = {
    "/ws/runs/$run/": ("4401", "4404", "in", "in", "in", "4404"),
    "/ws/overview/": ("4401", "in", "in", "in", "in", "in"),
    "/ws/chat/$conversation/": ("4401", "4404", "4404", "4404", "in", "4404"),
}
"""The code with which a socket closes to each of the six, or `in`."""
