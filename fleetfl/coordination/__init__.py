"""The server's judgement, pure: which updates count, once each, and which release they make."""
