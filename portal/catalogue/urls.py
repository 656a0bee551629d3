"""Routes of ``portal.catalogue``."""

from django.urls import URLPattern, URLResolver, path

from portal.catalogue import views

app_name = "catalogue"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.model_list, name="list"),
    path("<str:model_id>/part/", views.part, name="part"),
    path("<str:model_id>/lighter/", views.make_lighter, name="make_lighter"),
    path("<str:model_id>/remove/", views.remove, name="remove"),
]
