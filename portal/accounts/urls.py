"""Routes of ``portal.accounts``; allauth's own lie under ``/accounts/``."""

from django.urls import URLPattern, URLResolver, path

from portal.accounts import views

app_name = "accounts"
urlpatterns: list[URLPattern | URLResolver] = [
    path("operator/<str:token>", views.operator, name="operator"),
]
