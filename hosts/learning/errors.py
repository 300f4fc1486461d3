"""Errors of the learning part: one line that names the thing, where it is, and what to do."""


class LearningError(Exception):
    """Bad data, a bad task description, or bytes that are not what they should be."""


def shown(text: str, most: int = 24) -> str:
    """Return a name from somebody's file for use in a message: at most so many characters, line ends escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:most])
