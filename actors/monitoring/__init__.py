"""Metrics of a running server and its fleet, the monitor's HTTP pages, and the table of `fleetfl status`."""
