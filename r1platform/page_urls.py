"""Addresses of the pages that belong to no app: overview, nodes, settings, palette, style guide."""

from __future__ import annotations

from django.urls import path

from r1platform import page_views, people_views, run_report, settings_views, webhook_views

urlpatterns = [
    path("", page_views.overview, name="overview"),
    path("first-pipeline/", page_views.first_pipeline, name="first-pipeline"),
    path("rail/", page_views.rail_now, name="rail-now"),
    path("palette.json", page_views.palette, name="palette"),
    path("nodes/", page_views.node_list, name="node-list"),
    path("nodes/<int:node_id>/drain/", page_views.node_drain, name="node-drain"),
    path("runs/<int:run_id>/report/", run_report.run_report, name="run-report"),
    path("styleguide/", page_views.styleguide, name="styleguide"),
    path("settings/", settings_views.settings_project, name="settings-project"),
    path("settings/projects/", settings_views.project_new, name="project-new"),
    path("settings/project/", people_views.project_save, name="project-save"),
    path("settings/project/archive/", people_views.project_archive, name="project-archive"),
    path("settings/invitations/", people_views.invitation_new, name="invitation-new"),
    path("settings/invitations/<int:invitation_id>/end/", people_views.invitation_end, name="invitation-end"),
    path("invitations/<str:token>/", people_views.invitation, name="invitation"),
    path("settings/members/", settings_views.member_save, name="member-save"),
    path("settings/keys/", settings_views.settings_keys, name="settings-keys"),
    path("settings/keys/<int:key_id>/limits/", settings_views.key_limit, name="key-limit"),
    path("settings/keys/<int:key_id>/revoke/", settings_views.key_revoke, name="key-revoke"),
    path("settings/webhooks/", webhook_views.settings_webhooks, name="settings-webhooks"),
    path("settings/webhooks/<int:webhook_id>/", webhook_views.webhook_detail, name="webhook-detail"),
    path("settings/webhooks/<int:webhook_id>/act/<str:verb>/", webhook_views.webhook_act, name="webhook-act"),
    path("settings/audit/", settings_views.settings_audit, name="settings-audit"),
]
