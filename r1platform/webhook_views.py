"""Settings, Webhooks: the addresses that a project tells, for its owners; what was sent and whether it arrived."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from r1platform import webhooks
from r1platform.access import current_project, for_user, require_role, signed_in
from r1platform.form_words import WordedForm
from r1platform.models import Role, Webhook

PER_PAGE = 50
SESSION_SHOWN = "new_webhook"
"""Where the secret of a webhook waits for the page that shows it once."""


class WebhookForm(WordedForm):
    """A new webhook."""

    name = forms.CharField(max_length=80, help_text="What is at the other end, such as “the team's channel”.")
    url = forms.CharField(max_length=500, label="Address", help_text="It gets a POST with JSON, signed with a secret.")

    def clean_url(self) -> str:
        """Looks at the address also where the name is missing: all errors are said at once."""
        try:
            return webhooks.checked_url(self.cleaned_data["url"])
        except ValidationError as error:
            raise ValidationError(error.messages) from None


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def settings_webhooks(request: HttpRequest) -> HttpResponse:
    """The project's webhooks; a POST makes one, and the page that it leads to shows its secret, once."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    require_role(request.user, project, Role.OWNER)
    form = WebhookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made, secret = webhooks.webhook_create(project=project, user=signed_in(request), **form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            request.session[SESSION_SHOWN] = {"name": made.name, "secret": secret}
            return redirect("settings-webhooks")
    counted = webhooks.webhook_list(user=signed_in(request), project=project).annotate(
        num_waiting=Count("deliveries", filter=Q(deliveries__delivered_at=None, deliveries__given_up_at=None)),
        num_given_up=Count("deliveries", filter=Q(deliveries__given_up_at__isnull=False)),
    )
    shown = request.session.pop(SESSION_SHOWN, None) if request.method == "GET" else None
    context = {"webhooks": counted, "form": form, "shown": shown, "project": project}
    return render(request, "r1platform/settings_webhooks.html", context, status=422 if form.is_bound else 200)


@login_required
@require_safe
def webhook_detail(request: HttpRequest, webhook_id: int) -> HttpResponse:
    """What one webhook was sent, newest first."""
    webhook = _owned(request, webhook_id)
    page = Paginator(webhook.deliveries.order_by("-id"), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "r1platform/webhook.html", {"webhook": webhook, "page": page, "project": webhook.project})


@login_required
@require_POST
def webhook_act(request: HttpRequest, webhook_id: int, verb: str) -> HttpResponse:
    """Tests a webhook, switches it on or off, gives it a new secret, or deletes it."""
    webhook, user = _owned(request, webhook_id), signed_in(request)
    match verb:
        case "test":
            data = {"project": webhook.project.slug, "by": user.username}
            with transaction.atomic():
                sent = webhooks.webhook_send(webhook=webhook, event="ping", data=data)
            messages.success(request, "A ping is on its way; this page says whether it arrived." if sent else "It is switched off.")
            return redirect("webhook-detail", webhook.pk)
        case "on" | "off":
            webhooks.webhook_update(webhook=webhook, user=user, is_enabled=verb == "on")
            messages.success(request, f"“{webhook.name}” is switched {verb}.")
        case "secret":
            secret = webhooks.webhook_secret_renew(webhook=webhook, user=user)
            request.session[SESSION_SHOWN] = {"name": webhook.name, "secret": secret}
        case "delete":
            webhooks.webhook_delete(webhook=webhook, user=user)
            messages.success(request, f"“{webhook.name}” is deleted.")
        case _:
            raise Http404(f"A webhook cannot “{verb}”.")
    return redirect("settings-webhooks")


def _owned(request: HttpRequest, webhook_id: int) -> Webhook:
    """A webhook of a project that the user is a member of, for owners."""
    webhook = get_object_or_404(for_user(Webhook.objects.select_related("project"), request.user), pk=webhook_id)
    require_role(request.user, webhook.project, Role.OWNER)
    return webhook
