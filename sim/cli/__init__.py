"""`fleetfl sim`, `fleetfl bench` and `fleetfl chaos`."""
