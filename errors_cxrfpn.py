"""The base of all errors that a user can correct."""


class CxrFpnError(ValueError):
    """Raised when an input, a file or a setting cannot be used; the message is one line: what, where, what to do."""
