"""Every route of the portal, room by room."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from portal.accounts.views import choose_language
from portal.health import healthz, readyz
from portal.metrics import metrics

# Rate limits, and later second factors, are allauth's.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="playground:home"), name="home"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("", include("portal.accounts.urls")),
    path("accounts/data/", include("portal.teams.account_urls")),
    path("accounts/", include("allauth.urls")),
    path("i18n/setlang/", choose_language, name="set_language"),
    path("playground/", include("portal.playground.urls")),
    path("gallery/", include("portal.gallery.urls")),
    path("models/", include("portal.catalogue.urls")),
    path("teams/", include("portal.teams.urls")),
    path("teams/", include("portal.usage.urls")),
    path("operations/", include("portal.dashboard.urls")),
    path("developers/", include("portal.api.pages")),
    path("", include("portal.api.urls")),
    path("admin/", admin.site.urls),
]
