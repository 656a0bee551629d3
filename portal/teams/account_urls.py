"""Routes about one's own data, in the account's area."""

from django.urls import URLPattern, URLResolver, path

from portal.teams import account_views

app_name = "own_data"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", account_views.data, name="page"),
    path("export/", account_views.export, name="export"),
    path("delete/", account_views.delete, name="delete"),
]
