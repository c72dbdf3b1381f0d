"""Sensors of simulated vehicles, named in a file by dotted kind, such as sim.sensors.drone_camera."""
