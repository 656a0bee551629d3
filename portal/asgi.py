"""HTTP and WebSocket, in one process."""

from __future__ import annotations

import gc
import os
from typing import cast

import django
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries

from portal.prefix import Prefixed

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup(set_prefix=False)

# These need the apps loaded.
from portal.api.disconnects import Application, NoteDisconnects  # noqa: E402
from portal.api.shedding import Shedding  # noqa: E402
from portal.lean import ByKey, KeyedHandler, PagesHandler  # noqa: E402
from portal.playground.consumer import Straight  # noqa: E402
from portal.playground.origin import SameOrigin  # noqa: E402
from portal.playground.routing import websocket_urlpatterns  # noqa: E402
from portal.sqlite import hold_open  # noqa: E402

# When a request begins no connection waits to be looked after: a page's thread is new, and
# portal.threads minds its own. Django would ask each time, in another thread.
for receiver in (close_old_connections, reset_queries):
    request_started.disconnect(receiver)

hold_open()
keyed = Shedding(cast(Application, KeyedHandler()))
application = Prefixed(
    ProtocolTypeRouter(
        {
            "http": NoteDisconnects(
                cast(Application, ByKey(PagesHandler(), keyed, prefix=settings.LLMASOS.prefix))
            ),
            "websocket": SameOrigin(
                Straight(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
            ),
        }
    ),
    prefix=settings.LLMASOS.prefix,
)

# What is there by now stays. Python would look through all of it again and again for circles to
# collect, which took a third of the time that streaming takes.
gc.collect()
gc.freeze()
