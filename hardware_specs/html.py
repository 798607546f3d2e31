"""Plain HTML tables, as notebooks show them; every text is escaped and nothing is loaded."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table of texts, numbers to the right.

    Parameters
    ----------
    columns : heads; a column is aligned to the right where every cell starts with a digit, a sign, a dash or a dollar
    rows : one cell a column
    caption : stands above, lines broken where it has line ends

    Examples
    --------
    >>> html_table(["name"], [["a < b"]])
    '<table><thead><tr><th>name</th></tr></thead><tbody><tr><td>a &lt; b</td></tr></tbody></table>'
    """
    cells = [[str(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(row[i][:1] in "0123456789-+$." for row in cells) for i in range(len(columns))]
    styles = [' style="text-align:right"' if is_right else "" for is_right in right]
    heads = "".join(f"<th{style}>{escape(name)}</th>" for name, style in zip(columns, styles, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell, style in zip(row, styles, strict=True)) + "</tr>"
        for row in cells
    )
    said = f"<caption>{'<br>'.join(map(escape, caption.splitlines()))}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
