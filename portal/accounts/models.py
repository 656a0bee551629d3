"""People who sign in, by e-mail address."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _


class EmailUserManager(UserManager["User"]):
    """Makes users without a username."""

    def create_user(  # type: ignore[override]
        self, email: str, password: str | None = None, **fields: Any
    ) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(  # type: ignore[override]
        self, email: str, password: str | None = None, **fields: Any
    ) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """Signs in with an e-mail address; an operator is a user with ``is_staff``."""

    username = None  # type: ignore[assignment]
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    email = models.EmailField(_("e-mail address"), unique=True)
    name = models.CharField(_("name"), max_length=120, blank=True)
    language = models.CharField(
        _("language"),
        max_length=10,
        blank=True,
        default="",
        help_text=_("Of letters; empty until they sign in or choose one."),
    )
    delete_at = models.DateTimeField(
        _("to be deleted"),
        null=True,
        blank=True,
        help_text=_("When the account is removed for good, unless its owner signs in before."),
    )

    class Meta(AbstractUser.Meta):
        indexes = [
            models.Index(
                fields=["delete_at"],
                condition=models.Q(delete_at__isnull=False),
                name="accounts_to_remove",
            )
        ]

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[EmailUserManager] = EmailUserManager()

    def __str__(self) -> str:
        return self.name or self.email

    def get_session_auth_hash(self) -> str:
        """Asking for the account's deletion ends every session, as a new password does."""
        proof = super().get_session_auth_hash()
        if self.delete_at is None:
            return proof
        return salted_hmac("portal.accounts.leaving", f"{proof}{self.delete_at}").hexdigest()


class OperatorLink(models.Model):
    """A one-time link that makes whoever follows it an operator. Only its digest is kept."""

    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )

    def __str__(self) -> str:
        return f"until {self.expires_at:%Y-%m-%d %H:%M} UTC"
