"""Releases on disk: where they come from, how they scored, and the way back to an older one."""
