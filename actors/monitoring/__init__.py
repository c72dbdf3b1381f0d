"""How a running server and its fleet are: metrics, the monitor's pages, `fleetfl status`."""
