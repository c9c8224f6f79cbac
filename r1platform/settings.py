"""Settings of the whole platform, all by environment variables; README.md lists each.

Unset DATABASE_URL and REDIS_URL mean the embedded servers of this R1_HOME (`r1platform.lib.embedded`). REDIS_URL
`memory://` keeps live messages and tasks inside one process: for tests only.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import environ
from celery.schedules import schedule
from csp.constants import NONCE, NONE, SELF
from django.templatetags.static import static
from plotly import package_data as plotly_files

from r1platform.lib.environment import database, mail, positive_number, redis_address, yes_or_no
from r1platform.lib.home import redis_socket, secret_key, socket_dir
from r1platform.lib.single_sign_on import single_sign_on

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent

R1_HOME = Path(env.str("R1_HOME", default=str(BASE_DIR / "var"))).absolute()
R1_NODE_NAME = env.str("R1_NODE_NAME", default=socket.gethostname())
R1_NODE_ADDRESS = env.str("R1_NODE_ADDRESS", default="127.0.0.1")
R1_SGLANG_PYTHON = env.str("R1_SGLANG_PYTHON", default="")
R1_MODELS = Path(env.str("R1_MODELS", default="") or R1_HOME / "models").absolute()
R1_BENCHMARKS = Path(env.str("R1_BENCHMARKS", default="") or R1_HOME / "benchmarks").absolute()
R1_HUB_URL = env.str("R1_HUB_URL", default="https://huggingface.co").rstrip("/")
R1_EVALUATION_ENDPOINTS: list[str] = env.str("R1_EVALUATION_ENDPOINTS", default="").split()
R1_MAX_UPLOAD_BYTES = positive_number("R1_MAX_UPLOAD_BYTES", env.str("R1_MAX_UPLOAD_BYTES", default=""), default=2 << 30)

R1_WEBHOOKS_PRIVATE = yes_or_no("R1_WEBHOOKS_PRIVATE", env.str("R1_WEBHOOKS_PRIVATE", default=""))
R1_URL = env.str("R1_URL", default="http://127.0.0.1:8000").rstrip("/")
R1_EMAIL_URL = env.str("R1_EMAIL_URL", default="")
globals().update(mail(R1_EMAIL_URL))
DEFAULT_FROM_EMAIL = env.str("R1_EMAIL_FROM", default="r1@localhost")
EMAIL_TIMEOUT = 8

SECRET_KEY = env.str("R1_SECRET_KEY", default="") or secret_key(R1_HOME)
DEBUG = False
ALLOWED_HOSTS: list[str] = env.list("R1_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
R1_HTTPS = yes_or_no("R1_HTTPS", env.str("R1_HTTPS", default=""))
R1_OIDC = single_sign_on(
    issuer=env.str("R1_OIDC_ISSUER", default=""),
    client_id=env.str("R1_OIDC_CLIENT_ID", default=""),
    client_secret=env.str("R1_OIDC_CLIENT_SECRET", default=""),
    name=env.str("R1_OIDC_NAME", default="single sign-on"),
    domains=env.str("R1_OIDC_DOMAINS", default=""),
    creates=yes_or_no("R1_OIDC_CREATE", env.str("R1_OIDC_CREATE", default="")),
    project=env.str("R1_OIDC_PROJECT", default=""),
    role=env.str("R1_OIDC_ROLE", default="viewer"),
)
R1_PASSWORD_SIGN_IN = yes_or_no("R1_PASSWORD_SIGN_IN", env.str("R1_PASSWORD_SIGN_IN", default="yes"))
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend" if R1_PASSWORD_SIGN_IN else "r1platform.backends.WithoutPasswords"
]
SOCIALACCOUNT_ADAPTER = "r1platform.oidc.Requests"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "r1platform",
    "training_app",
    "serving_app",
]
MIDDLEWARE = [
    "r1platform.counting.CountRequests",
    "django.middleware.security.SecurityMiddleware",
    "r1platform.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "r1platform.middleware.RefuseZeroBytes",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "r1platform.middleware.AdminIsForStaff",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "r1platform.urls"
ASGI_APPLICATION = "r1platform.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "r1platform.context.project",
            ],
        },
    },
]
FORM_RENDERER = "r1platform.form_renderer.FormRenderer"

DATABASES: dict[str, dict[str, Any]] = {
    "default": database(env.str("DATABASE_URL"))
    if env.str("DATABASE_URL", default="")
    else {"NAME": "r1", "USER": "postgres", "HOST": str(socket_dir(R1_HOME, "postgres")), "PORT": "5432"}
}
DATABASES["default"] |= {"ENGINE": "django.db.backends.postgresql", "CONN_HEALTH_CHECKS": True}

REDIS_URL = redis_address(env.str("REDIS_URL", default="") or f"unix://{redis_socket(R1_HOME)}")
_IN_MEMORY = REDIS_URL == "memory://"
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    if _IN_MEMORY
    else {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
CELERY_BROKER_TRANSPORT_OPTIONS = {} if _IN_MEMORY else {"visibility_timeout": 600, "socket_keepalive": True}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_DEFAULT_QUEUE = "platform"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(R1_HOME / "celerybeat")
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    "schedule runs": {"task": "training_app.tasks.schedule", "schedule": schedule(2), "options": {"expires": 10}},
    "reconcile runs": {"task": "training_app.tasks.reconcile", "schedule": schedule(5), "options": {"expires": 10}},
    "reconcile replicas": {"task": "serving_app.tasks.reconcile", "schedule": schedule(5), "options": {"expires": 10}},
    "spending": {"task": "serving_app.tasks.spending", "schedule": schedule(30), "options": {"expires": 60}},
    "alerts": {"task": "training_app.tasks.alerts", "schedule": schedule(5), "options": {"expires": 10}},
    "webhooks": {"task": "r1platform.tasks.webhooks_due", "schedule": schedule(5), "options": {"expires": 10}},
    "nodes": {"task": "r1platform.tasks.nodes_ask", "schedule": schedule(10), "options": {"expires": 20}},
    "request keys": {"task": "r1platform.tasks.request_keys_forget", "schedule": schedule(3600), "options": {"expires": 600}},
}

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "r1platform.api_access.ApiKeyAuthentication",
        "r1platform.api_access.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["r1platform.api_access.ScopePermission"],
    "DEFAULT_PARSER_CLASSES": ["r1platform.parsers.StorableJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "r1platform.paging.CursorPaging",
    "DEFAULT_FILTER_BACKENDS": [
        "r1platform.filters.RowFilterBackend",
        "r1platform.filters.CommonFilters",
        "r1platform.filters.CommonOrdering",
    ],
    "DEFAULT_SCHEMA_CLASS": "r1platform.api_schema.Schema",
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {"user": "6000/min", "anon": "60/min", "sign_in": "20/min", "sign_in_name": "10/min"},
    "NUM_PROXIES": 1 if R1_HTTPS else 0,
    "EXCEPTION_HANDLER": "r1platform.problems.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "R1 Platform",
    "DESCRIPTION": "Everything that the pages do. Sign in with a session or with `Authorization: Bearer r1_…`.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "r1platform.api_schema.anything_may_be_null"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {"RoleEnum": "r1platform.models.Role", "DatasetKindEnum": "training_app.models.DatasetKind",
                            "AlertKindEnum": "training_app.models.AlertKind", "ReviewStateEnum": "serving_app.states.ReviewState",
                            "EvaluationStateEnum": "training_app.states.EvaluationState"},
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = R1_HTTPS
CSRF_COOKIE_SECURE = R1_HTTPS
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS] if R1_HTTPS else []
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if R1_HTTPS else None
SECURE_HSTS_SECONDS = 3600 * 24 * 30 if R1_HTTPS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 << 20
FILE_UPLOAD_TEMP_DIR = None
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, "'unsafe-inline'"],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "/static/"
STATIC_ROOT = R1_HOME / "static"
STATICFILES_DIRS: list[Any] = [BASE_DIR / "static", ("plotly", str(Path(plotly_files.__path__[0])))]

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
    },
}

ACCENT_SHADES = {
    "50": (97.7, 0.014), "100": (94.6, 0.03), "200": (90.2, 0.06), "300": (82.0, 0.1), "400": (71.0, 0.15), "500": (58.0, 0.18),
    "600": (48.0, 0.19), "700": (43.0, 0.18), "800": (38.0, 0.16), "900": (33.0, 0.13), "950": (25.0, 0.1),
}  # fmt: skip
"""Lightness in percent and chroma of the admin's shades of our accent, whose hue is 268."""
UNFOLD = {
    "SITE_TITLE": "R1 Platform",
    "SITE_HEADER": "R1 Platform",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("mark.svg")}],
    "SITE_ICON": lambda _request: static("mark.svg"),
    "COLORS": {"primary": {name: f"oklch({light}% {chroma} 268)" for name, (light, chroma) in ACCENT_SHADES.items()}},
}
