"""Routes of ``portal.teams``."""

from django.urls import URLPattern, URLResolver, path

from portal.teams import key_views, member_views, team_views, views

app_name = "teams"
urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("keys", key_views.keys, name="keys"),
    path("keys/<uuid:key_id>", key_views.key, name="key"),
    path("keys/<uuid:key_id>/rotate", key_views.rotate, name="rotate_key"),
    path("keys/<uuid:key_id>/revoke", key_views.revoke, name="revoke_key"),
    path("choose", views.choose, name="choose"),
    path("all", team_views.all_teams, name="all"),
    path("new", team_views.new_team, name="new"),
    path("settings", team_views.settings_page, name="settings"),
    path("settings/name", team_views.rename, name="rename"),
    path("settings/owner", team_views.transfer, name="transfer"),
    path("settings/delete", team_views.delete, name="delete"),
    path("deleted/<uuid:team_id>/restore", team_views.restore, name="restore"),
    path("log", team_views.log, name="log"),
    path("members", member_views.members_page, name="members"),
    path("members/<int:member_id>/role", member_views.set_role, name="set_role"),
    path("members/<int:member_id>/remove", member_views.remove, name="remove"),
    path(
        "invitations/<uuid:invitation_id>/revoke",
        member_views.revoke_invitation,
        name="revoke_invitation",
    ),
    path("join/<str:token>", member_views.join, name="join"),
]
