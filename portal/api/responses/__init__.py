"""``/v1/responses``: answers that are kept, gone on from, and read again from any event."""
