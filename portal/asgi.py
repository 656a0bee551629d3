"""HTTP and WebSocket, in one process."""

from __future__ import annotations

import os
from typing import cast

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application

from portal.prefix import Prefixed

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
http = get_asgi_application()

# These need the apps loaded.
from portal.api.disconnects import Application, NoteDisconnects  # noqa: E402
from portal.api.shedding import Shedding  # noqa: E402
from portal.lean import ByKey, KeyedHandler  # noqa: E402
from portal.playground.origin import SameOrigin  # noqa: E402
from portal.playground.routing import websocket_urlpatterns  # noqa: E402
from portal.sqlite import hold_open  # noqa: E402

hold_open()
keyed = Shedding(cast(Application, KeyedHandler()))
application = Prefixed(
    ProtocolTypeRouter(
        {
            "http": NoteDisconnects(
                cast(Application, ByKey(http, keyed, prefix=settings.LLMASOS.prefix))
            ),
            "websocket": SameOrigin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
        }
    ),
    prefix=settings.LLMASOS.prefix,
)
