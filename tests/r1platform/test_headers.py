"""What every answer tells the browser to refuse, and what changes behind TLS."""

from __future__ import annotations

import json
from pathlib import Path

from django.test import Client

from r1platform.models import Project
from tests.r1platform.command_line import run


def test_pages_allow_no_script_but_ours(client_alice: Client, project: Project) -> None:
    for path in ("/", "/settings/", "/settings/keys/", "/sign-in/x/", "/nodes/"):
        answer = client_alice.get(path)
        rules = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
        assert "unsafe" not in rules["script-src"] and "'self'" in rules["script-src"], path
        assert rules["object-src"] == rules["frame-ancestors"] == "'none'", path
        assert rules["form-action"] == rules["base-uri"] == "'self'", path
        assert answer["X-Content-Type-Options"] == "nosniff" and answer["X-Frame-Options"] == "DENY", path


def test_only_the_admin_may_evaluate(client_alice: Client) -> None:
    assert "'unsafe-eval'" in client_alice.get("/admin/login/", follow=False)["Content-Security-Policy"]
    assert "unsafe-eval" not in client_alice.get("/settings/admin/")["Content-Security-Policy"]


def test_behind_tls_cookies_are_secure_and_the_proxy_is_believed(tmp_path: Path) -> None:
    names = ["SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS", "CSRF_TRUSTED_ORIGINS", "SECURE_PROXY_SSL_HEADER"]
    code = f"""if True:
        import json
        from django.conf import settings
        found = {{name: getattr(settings, name) for name in {names}}} | {{"proxies": settings.REST_FRAMEWORK["NUM_PROXIES"]}}
        print(json.dumps(found))"""

    def values(**environment: str) -> list[object]:
        done = run("shell", "-v", "0", "-c", code, home=tmp_path, **environment)
        return list(json.loads(done.stdout).values())

    assert values() == [False, False, 0, [], None, 0]
    behind = values(R1_HTTPS="true", R1_ALLOWED_HOSTS="r1.example.org")
    assert behind == [True, True, 3600 * 24 * 30, ["https://r1.example.org"], ["HTTP_X_FORWARDED_PROTO", "https"], 1]
