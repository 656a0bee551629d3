"""Django's settings, derived from ``portal.config.Settings``; no environment is read here."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.utils.translation import gettext_lazy as _
from pydantic import ValidationError

from portal import caching, logs, oidc, security
from portal.config import Settings, mask

BASE_DIR = Path(__file__).resolve().parent.parent

try:
    LLMASOS = Settings()
except ValidationError as error:
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]).upper()
        value = mask(str(problem["input"]))
        sys.stderr.write(f"Bad setting {name}={value!r}: {problem['msg']}\n")
    sys.exit(2)

try:
    SECRETS = LLMASOS.secrets
except (OSError, ValueError) as error:
    sys.stderr.write(f"Bad setting DATA={str(LLMASOS.data)!r}: {error}\n")
    sys.exit(2)

SECRET_KEY = SECRETS["secret_key"]
API_KEY_PEPPER = SECRETS["pepper"]
INSTANCE = sha256(SECRET_KEY.encode()).hexdigest()[:8]
DEBUG = LLMASOS.debug
ALLOWED_HOSTS = LLMASOS.hosts

INSTALLED_APPS = [
    "daphne",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "auditlog",
    "channels",
    "corsheaders",
    "django_cotton",
    "django_htmx",
    "django_structlog",
    "django_vite",
    "rules.apps.AutodiscoverRulesConfig",
    "portal.accounts",
    "portal.teams",
    "portal.usage",
    "portal.catalogue",
    "portal.jobs",
    "portal.conversations",
    "portal.responses",
    "portal.gallery",
    "portal.api",
    "portal.playground",
    "portal.dashboard",
    "portal.supervisor",
]

MIDDLEWARE = [
    "portal.logs.RequestMiddleware",
    "portal.metrics.MetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.security.ContentSecurityPolicyMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.accounts.middleware.LastSeenMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "portal.teams.context.teams",
            ],
        },
    },
]


def _database(url: str) -> dict[str, object]:
    """Django's description of ``DATABASE_URL``; without one, SQLite in the data folder."""
    parts = urlsplit(url)
    if parts.scheme in ("postgres", "postgresql"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or ""),
            "PORT": str(parts.port or ""),
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 16, "timeout": 10}},
        }
    name = unquote(parts.path) if url else str(LLMASOS.data / "db.sqlite3")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


DATABASES = {"default": _database(LLMASOS.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "portal.accounts.backends.RulesBackend",
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
_VALIDATORS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_VALIDATORS}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_VALIDATORS}.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": f"{_VALIDATORS}.CommonPasswordValidator"},
    {"NAME": f"{_VALIDATORS}.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "portal.teams.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if LLMASOS.email_url else "none"
ACCOUNT_EMAIL_SUBJECT_PREFIX = "LLMasOS: "
ACCOUNT_FORMS = {"add_email": "portal.accounts.forms.ChangeEmailForm"}
ACCOUNT_CHANGE_EMAIL = True  # one address; a new one counts once it is verified
ACCOUNT_REAUTHENTICATION_REQUIRED = True  # before the address or a factor changes
ACCOUNT_REAUTHENTICATION_TIMEOUT = 15 * 60
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if LLMASOS.https else "http"
ACCOUNT_RATE_LIMITS = {
    "signup": "20/m/ip",
    "login": "30/m/ip",
    "login_failed": "10/m/ip,5/5m/key",
    "invite": "60/h/user",
    "join": "30/m/ip",
    "export": "6/h/user",
}
MFA_ADAPTER = "portal.accounts.mfa.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "LLMasOS"
MFA_TOTP_TOLERANCE = 1
MFA_ALLOW_UNVERIFIED_EMAIL = not LLMASOS.email_url  # without mail no address is ever verified
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not LLMASOS.https  # browsers allow it on localhost alone
SOCIALACCOUNT_ADAPTER = "portal.teams.adapter.SocialAccountAdapter"
SOCIALACCOUNT_PROVIDERS = oidc.provider(LLMASOS)
ALLAUTH_TRUSTED_PROXY_COUNT = LLMASOS.trusted_proxies
DEFAULT_FROM_EMAIL = SERVER_EMAIL = LLMASOS.email_from
globals().update(LLMASOS.mail)  # EMAIL_BACKEND, EMAIL_HOST, …

REDIS_URL = LLMASOS.redis
if LLMASOS.redis_url:  # several portal processes share one; the embedded portal is alone
    CACHES = {
        "default": {
            "BACKEND": "portal.caching.ForgivingRedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "llmasos:cache",
            "OPTIONS": caching.OPTIONS,
        }
    }
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "llmasos:channels"},
    }
}

CHORES = {  # what comes round again in the tasks process, and after how many seconds
    "portal.usage.alerts.send_alerts": 15.0,
    "portal.jobs.retention.drop_read": 2.0,
    "portal.jobs.retention.drop_old": 60.0,
    "portal.conversations.retention.drop_old": 60.0,
    "portal.gallery.retention.drop_old": 60.0,
    "portal.teams.chores.remove_what_is_due": 60.0,
    "portal.teams.chores.forget_old_invitations": 24 * 3600.0,
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_NAME = "llmasos_language"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [path for path in (BASE_DIR / "static" / "dist",) if path.exists()]
SERVESTATIC_USE_FINDERS = True
DJANGO_VITE = {"default": {"manifest_path": BASE_DIR / "static" / "dist" / "manifest.json"}}

# Cookies carry the instance's name: browsers share them between ports, and two instances may run
# beside each other on one machine.
SESSION_COOKIE_NAME = f"llmasos_{INSTANCE}_session"
CSRF_COOKIE_NAME = f"llmasos_{INSTANCE}_csrf"
FORCE_SCRIPT_NAME = LLMASOS.prefix or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = LANGUAGE_COOKIE_PATH = f"{LLMASOS.prefix}/"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = LLMASOS.https
CSRF_TRUSTED_ORIGINS = ["{0.scheme}://{0.netloc}".format(urlsplit(LLMASOS.url))]
CONTENT_SECURITY_POLICY = security.policy(LLMASOS.url, sign_in=LLMASOS.oidc_url)
X_FRAME_OPTIONS = "DENY"
SECURE_HSTS_SECONDS = LLMASOS.hsts_seconds if LLMASOS.https else 0
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # subdomains are not ours to promise
if LLMASOS.trusted_proxies:
    USE_X_FORWARDED_HOST = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = LLMASOS.https
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
else:  # whether a request came over TLS can't be known here: redirecting could go in circles
    SILENCED_SYSTEM_CHECKS.append("security.W008")

# Pages elsewhere may call the API where CORS_ORIGINS says so, with a key: no cookie travels.
CORS_ALLOW_ALL_ORIGINS = "*" in LLMASOS.cors_origins
CORS_ALLOWED_ORIGINS = [origin for origin in LLMASOS.cors_origins if origin != "*"]
CORS_URLS_REGEX = r"^/(api/)?v1/"
CORS_ALLOW_HEADERS = security.CORS_REQUEST_HEADERS
CORS_EXPOSE_HEADERS = security.CORS_ANSWER_HEADERS

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logs.describe(level=LLMASOS.log_level, as_json=LLMASOS.log_json)

UNFOLD = {
    "SITE_TITLE": "LLMasOS",
    "SITE_HEADER": "LLMasOS",
    "SITE_URL": f"{LLMASOS.prefix}/",
    "SHOW_HISTORY": False,
}
