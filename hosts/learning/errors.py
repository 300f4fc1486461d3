"""Errors of the learning part: one line that names the thing, where it is, and what to do."""


class LearningError(Exception):
    """Bad data, a bad task description, or bytes that are not what they should be."""
