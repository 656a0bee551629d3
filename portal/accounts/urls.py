"""Routes of ``portal.accounts``; allauth's own lie under ``/accounts/``."""

from django.urls import URLPattern, URLResolver, path

from portal.accounts import provider_views, views

app_name = "accounts"
urlpatterns: list[URLPattern | URLResolver] = [
    path("operator/<str:token>", views.operator, name="operator"),
    path("accounts/oidc/<str:provider_id>/login/", provider_views.login),
    path("accounts/oidc/<str:provider_id>/login/callback/", provider_views.callback),
    path("accounts/profile/", views.profile, name="profile"),
    path("accounts/sessions/<int:session_id>/end/", views.end_session, name="end_session"),
]
