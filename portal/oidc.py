"""Signing in through a provider that the operator names (``OIDC_…``); off by default.

The provider's own description says where its other addresses are. We follow those only to where
anybody may go, or to the host that the setting itself names: no answer of a provider, and no
redirect, leads a request to inside (``portal.outbound``).
"""

from __future__ import annotations

from typing import Any

from portal.config import Settings

PROVIDER = "oidc"


def provider(settings: Settings) -> dict[str, Any]:
    """allauth's description of the provider; empty while none is set."""
    if not settings.oidc_url:
        return {}
    return {
        "openid_connect": {
            "OAUTH_PKCE_ENABLED": True,
            "APP": {
                "provider_id": PROVIDER,
                "name": settings.oidc_name,
                "client_id": settings.oidc_client_id,
                "secret": settings.oidc_client_secret,
                "settings": {"server_url": settings.oidc_url},
            },
        }
    }
