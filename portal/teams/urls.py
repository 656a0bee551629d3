"""Routes of ``portal.teams``."""

from django.urls import URLPattern, URLResolver, path

from portal.teams import views

app_name = "teams"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("keys", views.keys, name="keys"),
    path("keys/<uuid:key_id>/revoke", views.revoke, name="revoke_key"),
    path("choose", views.choose, name="choose"),
]
