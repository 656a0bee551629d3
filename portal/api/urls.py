"""Routes of ``portal.api``. Ninja's, in OpenAI's dialect, and an answer for every other path."""

from django.urls import URLPattern, URLResolver, re_path

from portal.api import routes  # noqa: F401  (adds its operations to the api)
from portal.api.dialect import api, in_dialect, no_such_route

app_name = "api"
urlpatterns: list[URLPattern | URLResolver] = []

for pattern in api.urls[0]:
    if isinstance(pattern, URLPattern):
        view = no_such_route if pattern.name == "api-root" else pattern.callback
        pattern.callback = in_dialect(view)
        urlpatterns.append(pattern)

urlpatterns.append(re_path(r"", in_dialect(no_such_route)))
