"""Errors that keep a server from starting or going on."""

from fleetfl import FleetflError


class ServerError(FleetflError, RuntimeError):
    """The server cannot start or go on; says why and what to do."""


class NotWellError(FleetflError):
    """Something keeps a running server from its work."""
