"""Defences that an update has to pass before it is counted, so that no vehicle owns model or server."""
