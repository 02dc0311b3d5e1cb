"""The tests of whence, and what they share."""
