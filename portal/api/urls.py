"""Routes of ``portal.api``. Ninja's, in OpenAI's dialect, and an answer for every other path."""

from django.urls import URLPattern, URLResolver, path, re_path

from portal.api import description, routes
from portal.api.dialect import api, in_dialect, no_such_route
from portal.api.native import apps, jobs, models, teams, tickets
from portal.api.responses import routes as responses

app_name = "api"

api.add_router("/v1", routes.api)
api.add_router("/v1/responses", responses.router)
api.add_router("/api/v1/jobs", jobs.router)
for router in (apps.router, models.router, teams.router, tickets.router):
    api.add_router("/api/v1", router)

urlpatterns: list[URLPattern | URLResolver] = []
for pattern in api.urls[0]:
    if isinstance(pattern, URLPattern) and pattern.name != "api-root":
        pattern.callback = in_dialect(pattern.callback)
        urlpatterns.append(pattern)

urlpatterns += [
    path("api/v1/openapi.json", description.openapi, name="openapi"),
    path("v1/openapi.json", description.openapi),
    re_path(r"^(?:api|v1)(?:/|$)", in_dialect(no_such_route)),
]
