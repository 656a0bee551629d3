"""Routes of ``portal.dashboard``."""

from django.urls import URLPattern, URLResolver, path

from portal.dashboard import views

app_name = "dashboard"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.now, name="now"),
    path("live", views.live, name="live"),
    path("drain", views.drain, name="drain"),
]
