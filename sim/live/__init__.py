"""Fleets of real processes on this machine: broker, server, vehicles and a client, from start to report."""
