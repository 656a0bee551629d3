"""The playground's app: passes sign-outs on to open sockets."""

from __future__ import annotations

from typing import Any

import structlog
from django.apps import AppConfig

logger = structlog.get_logger(__name__)


def _signed_out(**_: Any) -> None:
    """A hint only: without it the guard finds out within ``CHECK_S`` all the same."""
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    from portal.playground.guard import GROUP

    try:
        async_to_sync(get_channel_layer().group_send)(GROUP, {"type": "look.now"})
    except Exception as error:  # the layer's backend may be away; nobody's sign-out may fail
        logger.warning("sign_out_not_passed_on", error=str(error))


class PlaygroundConfig(AppConfig):
    name = "portal.playground"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_out

        user_logged_out.connect(_signed_out, dispatch_uid="playground-signed-out")
