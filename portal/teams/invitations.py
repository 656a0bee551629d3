"""Invitations: into a team by e-mail or by link, once, within a week, until revoked.

The database knows a token by its digest alone; the link is shown or sent once.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from urllib.parse import urlsplit

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from portal import audit
from portal.accounts.languages import spoken_by
from portal.accounts.models import User
from portal.accounts.selectors import by_email
from portal.accounts.tokens import digest
from portal.teams.errors import NotAllowed, Refused
from portal.teams.members import locked, role_in
from portal.teams.models import Invitation, Membership, Team
from portal.teams.rules import may_give

LIFE = timedelta(days=7)
OPEN_LIMIT = 100
PURPOSE = "portal.teams.invitation"


def invite(*, team: Team, role: str, actor: User, email: str = "") -> tuple[Invitation, str]:
    """An invitation and its link, which is never readable again.

    With ``email`` only the account with that address can use it; an earlier one to the same
    address ends. Whether the address has an account makes no difference. Raises ``Refused`` or
    ``NotAllowed``.
    """
    email = _clean(email)
    token = secrets.token_urlsafe(32)
    with locked(team) as row:
        if row.kind != Team.Kind.SHARED or not may_give(role_in(row, actor), role):
            raise NotAllowed
        if email and row.memberships.filter(user__email__iexact=email).exists():
            raise Refused(_("They are a member already."), field="email")
        waiting = open_invitations(row)
        if email:
            waiting.filter(email=email).update(revoked_at=timezone.now())
        if waiting.count() >= OPEN_LIMIT:
            raise Refused(_("100 invitations are open. Revoke one that is no longer needed."))
        made = Invitation.objects.create(
            team=row,
            role=role,
            email=email,
            digest=digest(token, purpose=PURPOSE),
            created_by=actor,
            expires_at=timezone.now() + LIFE,
        )
        audit.record(actor=actor, action="create", instance=made, changes={"role": (None, role)})
    return made, link(token)


def link(token: str) -> str:
    place = urlsplit(settings.LLMASOS.url)
    return f"{place.scheme}://{place.netloc}{reverse('teams:join', args=[token])}"


def send_invitation(*, invitation: Invitation, url: str) -> bool:
    """Send the link; ``False`` if the mail server did not take it: pass it on yourself then."""
    what = {"team": invitation.team.name, "by": str(invitation.created_by), "url": url}
    with spoken_by(by_email(invitation.email)):
        subject = _("%(by)s invites you to %(team)s") % what
        text = render_to_string("teams/invitation.txt", what | {"days": LIFE.days})
    try:
        send_mail(" ".join(subject.split()), text, None, [invitation.email])
    except OSError:  # smtplib's errors too
        return False
    return True


def revoke_invitation(*, invitation: Invitation, actor: User) -> bool:
    """``False`` if it was used or revoked already. Raises ``NotAllowed``."""
    with locked(invitation.team) as team:
        if not may_give(role_in(team, actor), invitation.role):
            raise NotAllowed
        changed = open_invitations(team).filter(pk=invitation.pk).update(revoked_at=timezone.now())
        if changed:
            audit.record(actor=actor, action="delete", instance=invitation)
    return bool(changed)


def accept_invitation(*, token: str, user: User) -> Membership | None:
    """Use the invitation up and join; ``None`` for a token that is unknown, used, old or revoked.

    Raises ``Refused`` when it is for somebody else, or for somebody who is a member already; it
    stays open then.
    """
    found = invitation_of(token)
    if found is None:
        return None
    try:
        with locked(found.team) as team:
            check_invited(found, user)
            now = timezone.now()
            fresh = Invitation.objects.filter(pk=found.pk, accepted_at=None, revoked_at=None)
            if not fresh.filter(expires_at__gt=now).update(accepted_at=now, accepted_by=user):
                return None
            made = Membership.objects.create(team=team, user=user, role=found.role)
            changes = {"role": (None, found.role)}
            audit.record(
                actor=user, action="create", instance=made, changes=changes, name=user.email
            )
    except NotAllowed:  # the team was deleted in between
        return None
    return made


def check_invited(invitation: Invitation, user: User) -> None:
    """Raises ``Refused`` when ``user`` can't use it."""
    if invitation.team.memberships.filter(user=user).exists():
        raise Refused(_("You are a member of this team already."))
    if invitation.email and invitation.email not in addresses(user):
        raise Refused(
            _("This invitation is for another e-mail address. Sign in with the account it is for.")
        )


def addresses(user: User) -> set[str]:
    """What counts as the user's own: verified, or the only one where nothing is verified."""
    own = EmailAddress.objects.filter(user=user, verified=True)
    found = {email.lower() for email in own.values_list("email", flat=True)}
    return found if settings.LLMASOS.email_url else found | {user.email.lower()}


def invitation_of(token: str) -> Invitation | None:
    """The open invitation that ``token`` opens."""
    found = Invitation.objects.filter(
        digest=digest(token, purpose=PURPOSE),
        accepted_at=None,
        revoked_at=None,
        expires_at__gt=timezone.now(),
        team__delete_at=None,
    )
    return found.select_related("team", "created_by").first()


def open_invitations(team: Team) -> QuerySet[Invitation]:
    return Invitation.objects.filter(
        team=team, accepted_at=None, revoked_at=None, expires_at__gt=timezone.now()
    )


def _clean(email: str) -> str:
    email = email.strip().lower()
    if email:
        try:
            validate_email(email)
        except ValidationError:
            raise Refused(_("This is not an e-mail address."), field="email") from None
    return email
