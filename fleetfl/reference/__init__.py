"""Reference of all settings and their meaning, made from their schemas."""
