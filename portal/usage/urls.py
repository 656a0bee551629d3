"""Routes of ``portal.usage``."""

from django.urls import URLPattern, URLResolver, path

from portal.usage import views

app_name = "usage"
urlpatterns: list[URLPattern | URLResolver] = [
    path("usage", views.usage, name="usage"),
    path("usage.csv", views.download, name="download"),
    path("limits", views.limits, name="limits"),
    path("limits/budget", views.budget, name="budget"),
    path("limits/retention", views.retention, name="retention"),
]
