"""Pure decisions: no clock, no environment, no I/O."""
