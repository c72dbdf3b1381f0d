"""The server: Ray actors that aggregate vehicles' updates and serve the newest release."""
