"""Forms of allauth's that would do too much here."""

from __future__ import annotations

from allauth.account.forms import AddEmailForm
from allauth.account.internal.flows.email_verification import send_verification_email_to_address
from allauth.account.models import EmailAddress
from django.db import transaction
from django.http import HttpRequest


class ChangeEmailForm(AddEmailForm):  # type: ignore[misc]
    """The current address stays until the new one is confirmed, even if nobody ever verified it.

    allauth takes any unverified address for the one that is being changed to; where mail is not
    set up, that is the current one.
    """

    def save(self, request: HttpRequest) -> EmailAddress:
        unconfirmed = EmailAddress.objects.filter(user=self.user, verified=False)
        with transaction.atomic():
            unconfirmed.exclude(email__iexact=self.user.email).delete()
            made = EmailAddress.objects.create(user=self.user, email=self.cleaned_data["email"])
        send_verification_email_to_address(request, made)
        return made
