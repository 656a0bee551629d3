"""What teams refuse. Each text is for the person who asked.

TeamError
├── Refused         it can't be done like this; ``field`` names what to change
├── NotAllowed      one's role doesn't reach that far; pages answer 404
└── LastOwner       a team must keep an owner who can act
"""

from __future__ import annotations

from django.utils.translation import gettext as _


class TeamError(Exception):
    """Its text tells the reader what to do next."""


class Refused(TeamError):
    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotAllowed(TeamError):
    pass


class LastOwner(TeamError):
    def __init__(self) -> None:
        super().__init__(
            _("A team needs an owner. Make somebody else an owner first, or delete the team.")
        )
