"""One's own data: a copy of it, and deleting the account."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO

from allauth.account.adapter import get_adapter
from allauth.account.decorators import reauthentication_required
from asgiref.sync import sync_to_async
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.accounts.export import write_export
from portal.accounts.models import User
from portal.accounts.selectors import signed_in
from portal.accounts.throttle import throttled
from portal.teams.farewell import MustHandOver, request_deletion, teams_to_hand_over

IN_MEMORY = 8 * 2**20
CHUNK = 2**16


class DeleteAccountForm(forms.Form):
    """Asks for the address, so that nothing is deleted by a slip of the hand."""

    confirm = forms.CharField(
        max_length=254,
        label=gettext_lazy("Type your e-mail address"),
        widget=forms.TextInput({"class": "input", "autocomplete": "off"}),
    )

    def __init__(self, user: User, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._email = user.email

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed.strip().lower() != self._email.lower():
            raise forms.ValidationError(_("That is not your address."))
        return typed


@never_cache
@login_required
@require_GET
def data(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    return _page(request, user, DeleteAccountForm(user))


def _page(
    request: HttpRequest, user: User, form: DeleteAccountForm, status: int = 200
) -> HttpResponse:
    page = {
        "form": form,
        "blocked": teams_to_hand_over(user),
        "days": settings.LLMASOS.deletion_grace_days,
    }
    return render(request, "accounts/data.html", page, status=status)


@never_cache
@login_required
@require_POST
def export(request: HttpRequest) -> HttpResponseBase:
    """Everything about the user as a ZIP; on the disk where it is large, never all in memory."""
    if refusal := throttled(request, "export"):
        return refusal
    file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  (_chunks closes it)
    write_export(signed_in(request), file)
    size = file.tell()
    file.seek(0)
    response = StreamingHttpResponse(_chunks(file), content_type="application/zip")
    name = f"llmasos-{timezone.now():%Y-%m-%d}.zip"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Content-Length"] = str(size)
    return response


async def _chunks(file: IO[bytes] | tempfile.SpooledTemporaryFile[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := await sync_to_async(file.read)(CHUNK):
            yield chunk


@login_required
@require_POST
@reauthentication_required  # type: ignore[untyped-decorator]
def delete(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    form = DeleteAccountForm(user, request.POST)
    if not form.is_valid():
        return _page(request, user, form, 422)
    try:
        until = request_deletion(user=user)
    except MustHandOver:
        return _page(request, user, form, 409)
    get_adapter().logout(request)
    text = _("Your account will be deleted on %(date)s. Sign in before then to keep it.")
    messages.success(request, text % {"date": date_format(until, "DATE_FORMAT")})
    return redirect("account_login")
