"""What people ask of a model, as pure functions: build a prompt, read the answer. No model here."""
