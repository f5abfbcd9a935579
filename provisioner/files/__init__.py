"""YAML to model: every problem at once, each with file, line, column and what is allowed."""
