"""Which encodings a web server may name. Python knows more, and those are no use but to harm."""

from __future__ import annotations

import codecs
import re

_OF_TEXT = re.compile(
    r"utf-8(-sig)?|utf-16(-[bl]e)?|ascii|(iso8859|koi8|mac)-\w+|cp\d+|big5(hkscs)?|gb\w+|hz|euc_\w+|shift_jis\w*|"
    r"iso2022_\w+|johab|tis-620"
)
"""By Python's own names. Not `punycode`, which takes hours for some MiB; not `unicode_escape` and `utf-7`, which give
half characters; and not what is no text at all, such as `zlib`."""


def charset_of(content_type: str) -> str | None:
    """The encoding that a content type names, by Python's name; None where it names none that is used for text."""
    for parameter in content_type.lower().split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name == "charset":
            try:
                found = codecs.lookup(value.strip("\"' ")).name
            except (LookupError, ValueError):
                return None
            return found if _OF_TEXT.fullmatch(found) else None
    return None
