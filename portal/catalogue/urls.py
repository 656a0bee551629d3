"""Routes of ``portal.catalogue``."""

from django.urls import URLPattern, URLResolver, path

from portal.catalogue import views

app_name = "catalogue"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.model_list, name="list"),
]
