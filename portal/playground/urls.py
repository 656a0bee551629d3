"""Routes of ``portal.playground``."""

from django.urls import URLPattern, URLResolver

app_name = "playground"
urlpatterns: list[URLPattern | URLResolver] = []
