"""The endpoint: pictures in, answers out, always from the newest release."""
