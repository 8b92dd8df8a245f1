"""Text that every file and every wire takes. What models and tools write may hold halves of characters."""


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
