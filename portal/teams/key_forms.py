"""What people fill in about API keys."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.teams.forms import HouseForm, _select, _text
from portal.teams.keys import MOST, MOST_TOKENS, KeyRefused, Terms
from portal.teams.models import ApiKey, everyday_scopes
from portal.teams.names import SCOPE_NAMES

GRACES = {
    "0": _("not at all"),
    "1": _("for an hour"),
    "24": _("for a day"),
    "168": _("for a week"),
    "720": _("for 30 days"),
}
"""Hours that an old secret may go on working."""


class _AnyOf(forms.MultipleChoiceField):
    """Whatever was sent: models come and go, and the service looks at their ids."""

    def valid_value(self, value: Any) -> bool:
        return True


def _number(most: int, label: Any) -> forms.IntegerField:
    widget = forms.NumberInput({"class": "input", "min": 1, "placeholder": _("no limit")})
    return forms.IntegerField(
        min_value=1, max_value=most, required=False, label=label, widget=widget
    )


class KeyForm(HouseForm):
    name = forms.CharField(
        max_length=120, label=_("Name"), widget=_text(placeholder=_("Where it will be used"))
    )
    scopes = forms.MultipleChoiceField(
        label=_("It may"), required=False, widget=forms.CheckboxSelectMultiple
    )
    allowed_models = _AnyOf(label=_("Only these models"), required=False)
    expires_on = forms.DateField(
        label=_("Last day"), required=False, widget=forms.DateInput({"type": "date"}, "%Y-%m-%d")
    )
    requests_per_minute = _number(MOST, _("Requests a minute"))
    tokens_per_minute = _number(MOST, _("Tokens a minute"))
    monthly_tokens = _number(MOST_TOKENS, _("Tokens a month"))

    def __init__(self, *args: Any, admin: bool, key: ApiKey | None = None, **kwargs: Any) -> None:
        """``admin``: whether the person may give the key the right to manage the team."""
        super().__init__(*args, **kwargs)
        self.initial.update(_shown(key) if key else {})
        self.initial.setdefault("scopes", everyday_scopes())
        had = key is not None and ApiKey.Scope.ADMIN in key.scopes
        field = self.fields["scopes"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = [
            (scope, name)
            for scope, name in SCOPE_NAMES.items()
            if scope != ApiKey.Scope.ADMIN or admin or had
        ]
        self._expires_at = key.expires_at if key else None

    @property
    def chosen_models(self) -> list[str]:
        """Ids that are ticked, of models that there may be no more."""
        return list(self["allowed_models"].value() or ())

    def terms(self) -> Terms:
        """Of a valid form."""
        given = dict(self.cleaned_data)
        given.pop("name")
        day = given.pop("expires_on")
        unchanged = self._expires_at and day == self._expires_at.astimezone(UTC).date()
        end = datetime.combine(day, time.max, UTC) if day else None
        return Terms(**given, expires_at=self._expires_at if unchanged else end)

    def take(self, refusal: KeyRefused) -> None:
        """Show a service's refusal beside its field."""
        field = {"expires_at": "expires_on"}.get(refusal.field, refusal.field)
        self.add_error(field if field in self.fields else None, str(refusal))


def _shown(key: ApiKey) -> dict[str, Any]:
    names = ("name", "scopes", "allowed_models", "monthly_tokens")
    shown = {name: getattr(key, name) for name in (*names, "requests_per_minute")}
    return shown | {
        "tokens_per_minute": key.tokens_per_minute,
        "expires_on": key.expires_at and key.expires_at.astimezone(UTC).date(),
    }


class RotateForm(HouseForm):
    grace = forms.ChoiceField(
        label=_("The old secret goes on working"), choices=list(GRACES.items()), widget=_select()
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("grace", "24")

    def duration(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["grace"]))
