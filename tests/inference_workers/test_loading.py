"""What a worker does once when its model is loaded."""

from __future__ import annotations

import gc

from inference_workers.loading import settle


def test_what_is_loaded_is_spared_from_garbage_collections() -> None:
    assert not gc.get_freeze_count()
    try:
        settle()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 10_000
    finally:
        gc.unfreeze()
