"""Straight lines of steps over ports: how a lab comes and how it goes."""
