"""labctl gives a new engineer a ready-made sandbox on vSphere, and takes it away with proof."""
