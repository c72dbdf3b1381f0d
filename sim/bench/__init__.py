"""Campaigns that measure codecs: bytes, time, and what they cost in accuracy."""
