"""The HTTP front and the byte path."""
