"""Apps that people publish."""
