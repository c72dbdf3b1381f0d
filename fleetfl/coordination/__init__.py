"""The server's decisions without I/O: which updates count, each once, and which release they make."""
