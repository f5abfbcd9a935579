"""Frozen types that cross the house: spec (born in files), observed (read from the world), lab."""
