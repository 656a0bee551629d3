"""What people fill in about teams."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from portal.teams.errors import Refused
from portal.teams.models import Membership, Team
from portal.teams.names import choices
from portal.teams.rules import RANK, may_give


def _text(**attrs: object) -> forms.TextInput:
    return forms.TextInput({"class": "input", "autocomplete": "off", **attrs})


def _select() -> forms.Select:
    return forms.Select({"class": "select"})


class HouseForm(forms.Form):
    """Shows a service's refusal beside the field that it names."""

    def refuse(self, refusal: Refused) -> None:
        self.add_error(refusal.field if refusal.field in self.fields else None, str(refusal))


class NameForm(HouseForm):
    name = forms.CharField(max_length=120, label=_("Name"), widget=_text())


class InviteForm(HouseForm):
    email = forms.CharField(
        max_length=254,
        required=False,
        label=_("E-mail address"),
        widget=_text(type="email", placeholder=_("Empty for a link that you pass on")),
    )
    role = forms.ChoiceField(label=_("Role"), widget=_select())

    def __init__(self, giver: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["role"]
        assert isinstance(field, forms.ChoiceField)
        given = [role for role in reversed(RANK) if may_give(giver, role)]
        field.choices = choices(given)
        self.initial.setdefault("role", Membership.Role.DEVELOPER)


class TransferForm(HouseForm):
    email = forms.EmailField(label=_("The new owner's e-mail address"), widget=_text(type="email"))

    def __init__(self, team: Team, me: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._others = Membership.objects.filter(team=team, user__is_active=True).exclude(user=me)

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        self.heir = self._others.select_related("user").filter(user__email__iexact=email).first()
        if self.heir is None:
            raise forms.ValidationError(_("No other member has this address."))
        return email


class DeleteForm(HouseForm):
    """Asks for the name, so that nothing is deleted by a slip of the hand."""

    confirm = forms.CharField(max_length=120, label=_("Type the team's name"), widget=_text())

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name = team.name

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed.strip() != self._name:
            raise forms.ValidationError(_("That is not the team's name."))
        return typed
