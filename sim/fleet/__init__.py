"""Whole fleets on virtual time: the real agent and the real judgement, on made-up devices, links and days."""
