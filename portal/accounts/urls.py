"""Routes of ``portal.accounts``; allauth's own lie under ``/accounts/``."""

from django.urls import URLPattern, URLResolver, path

from portal.accounts import views

app_name = "accounts"
urlpatterns: list[URLPattern | URLResolver] = [
    path("operator/<str:token>", views.operator, name="operator"),
    path("accounts/profile/", views.profile, name="profile"),
    path("accounts/sessions/<int:session_id>/end/", views.end_session, name="end_session"),
]
