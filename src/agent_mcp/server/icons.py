"""Small pictures for hosts that show some: SVG in data URIs, so that nothing is fetched from anywhere."""

from urllib.parse import quote

from mcp_types import Icon


def _icon(path: str) -> list[Icon]:
    """One icon of 24 by 24, drawn with a stroke of middle grey that can be seen on light and on dark."""
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='#7a7a8c' stroke-width='2'>"
        f"<path d='{path}'/></svg>"
    )
    # Spaces too: a client that holds the list against its schema wants a URI by the letter.
    source = quote(svg, safe="'=:/")
    return [Icon(src=f"data:image/svg+xml,{source}", mime_type="image/svg+xml", sizes=["any"])]


SERVER = _icon("M4 5h16v11H9l-5 4zM9 10h0M12 10h0M15 10h0")
ASK = _icon("M4 5h16v11H9l-5 4z")
SESSION = _icon("M6 3h9l4 4v14H6zM9 9h6M9 13h7M9 17h7")
AGENT = _icon("M5 9h14v10H5zM12 9V4M9 13v2M15 13v2")
MEMORY = _icon("M6 4h12v16l-6-4-6 4z")
