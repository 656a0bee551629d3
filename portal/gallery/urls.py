"""Routes of ``portal.gallery``."""

from django.urls import URLPattern, URLResolver, path

from portal.gallery import views

app_name = "gallery"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.listing, name="list"),
    path("runs/<uuid:run_id>", views.run_result, name="result"),
    path("<slug:slug>", views.app, name="app"),
    path("<slug:slug>/run", views.run, name="run"),
]
