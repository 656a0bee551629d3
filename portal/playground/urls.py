"""Routes of ``portal.playground``."""

from django.urls import URLPattern, URLResolver, path

from portal.playground import views

app_name = "playground"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("c/<uuid:conversation_id>/", views.conversation_page, name="conversation-page"),
    path("conversations", views.conversations, name="conversations"),
    path("conversations/<uuid:conversation_id>", views.conversation, name="conversation"),
    path("conversations/<uuid:conversation_id>/restore", views.restore, name="restore"),
    path("jobs", views.jobs, name="jobs"),
    path("jobs/<slug:job_id>/cancel", views.cancel, name="cancel"),
    path("tokens", views.tokens, name="tokens"),
]
