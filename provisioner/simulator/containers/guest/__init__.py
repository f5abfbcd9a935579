"""The files that make a Debian tree a guest; image.py says where each one goes."""
