"""The composition root, and the use cases that every face of labctl shares."""
