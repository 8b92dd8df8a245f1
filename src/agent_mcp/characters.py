"""Text that every file and every wire takes. What models and tools write may hold halves of characters."""

import re

_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with a sign in the place of what is no text for a reader: control characters but line breaks and tabs,
    marks that turn the direction of what follows (UAX 9), and halves of characters. Windows' line breaks become
    plain ones."""
    return _NOT_SHOWN.sub("\ufffd", text.replace("\r\n", "\n"))


def whole(text: str) -> str:
    """The text with characters put together that came in two halves (surrogates), and a half alone replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def ends_in_half(text: str) -> bool:
    """Whether the last character is one whose second half is still to come."""
    return "\ud800" <= text[-1:] <= "\udbff"
