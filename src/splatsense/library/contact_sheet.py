"""A picture of search results: each query at the left, what it found beside it, best first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from splatsense.errors import FormatError
from splatsense.files import atomic_write, check_writable
from splatsense.library.library import Library
from splatsense.library.search import Hit
from splatsense.tables import printable

MARGIN, GAP, PADDING, RADIUS = 40, 20, 14, 14
CELL, QUERY_WIDTH, CAPTION = 208, 240, 58
TITLE_HEIGHT = 76
PAGE, CARD, EDGE, INK, MUTED, ACCENT = "#f4f5f7", "#ffffff", "#e1e4e9", "#1c2430", "#697386", "#2f6fde"


@dataclass(frozen=True)
class SheetRow:
    """One query and what it found.

    Attributes:
        query: the words, or what to call the picture.
        picture: shown instead of the words, if there is one.
        hits: (thumbnail, name, score), best first.
    """

    query: str
    picture: Image.Image | None
    hits: list[tuple[Image.Image, str, float]]

    @classmethod
    def of(
        cls,
        query: str,
        hits: Sequence[Hit],
        library: Library,
        names: Mapping[str, str] | None = None,
        picture: Path | None = None,
    ) -> "SheetRow":
        """The row of a search, with the library's thumbnails; `names` overrides the names of some files."""
        names = names or {}
        shown = [(_open(library.thumbnail(hit.id)), names.get(hit.path.name, hit.name), hit.score) for hit in hits]
        return cls(query, _open(picture) if picture else None, shown)


def draw_contact_sheet(rows: Sequence[SheetRow], title: str = "") -> Image.Image:
    """Draw rows of results under a title."""
    columns = max((len(row.hits) for row in rows), default=0)
    row_height = CELL + CAPTION
    top = MARGIN + (TITLE_HEIGHT if title else 0)
    width = 2 * MARGIN + QUERY_WIDTH + columns * (CELL + GAP)
    sheet = Image.new("RGB", (width, top + len(rows) * (row_height + GAP) - GAP + MARGIN), PAGE)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN), title, INK, _font(30))
    for index, row in enumerate(rows):
        y = top + index * (row_height + GAP)
        _draw_query(sheet, draw, row, y)
        for column, (thumbnail, name, score) in enumerate(row.hits):
            _draw_hit(sheet, draw, MARGIN + QUERY_WIDTH + GAP + column * (CELL + GAP), y, thumbnail, name, score)
    return sheet


def write_contact_sheet(path: Path, rows: Sequence[SheetRow], title: str = "") -> None:
    """Draw rows of results into an image file. Raises FormatError as `check_sheet` does."""
    kind = _image_kind(path)
    sheet = draw_contact_sheet(rows, title)
    with atomic_write(path) as temporary:
        sheet.save(temporary, kind)


def check_sheet(path: Path) -> None:
    """Raise FormatError when the suffix is not one of an image, or nothing can be written there."""
    _image_kind(path)
    check_writable(path)


def _image_kind(path: Path) -> str:
    suffix = path.suffix.lower()
    kind = Image.registered_extensions().get(suffix, "")
    if kind not in Image.SAVE:  # registered_extensions has filled it
        raise FormatError(f"{path}: cannot draw into {suffix or 'a file without extension'}; use .png, .jpg or .webp.")
    return kind


def _draw_query(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, y: int) -> None:
    """The query's words, or its picture with a caption, in the middle of the row's left column."""
    font, line_height = _font(24), 32
    if row.picture is not None:
        picture = row.picture.copy()
        picture.thumbnail((CELL - 2 * PADDING, CELL - 2 * PADDING), Image.Resampling.LANCZOS)
        _card(draw, MARGIN, y, CELL, CELL + CAPTION, ACCENT)
        sheet.paste(picture, (MARGIN + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        _centered(draw, MARGIN, y + CELL + 4, CELL, row.query, _font(18), ACCENT)
        return
    lines = _wrap(row.query, font, QUERY_WIDTH - GAP)
    start = y + (CELL + CAPTION - line_height * len(lines)) // 2
    for index, line in enumerate(lines):
        draw.text((MARGIN, start + index * line_height), line, ACCENT, font)


def _draw_hit(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, thumbnail: Image.Image, name: str, score: float
) -> None:
    _card(draw, x, y, CELL, CELL + CAPTION, EDGE)
    side = CELL - 2 * PADDING
    sheet.paste(thumbnail.resize((side, side), Image.Resampling.LANCZOS), (x + PADDING, y + PADDING))
    _centered(draw, x, y + CELL - 2, CELL, name, _font(18), INK)
    _centered(draw, x, y + CELL + 24, CELL, f"{score:.3f}", _font(16), MUTED)


def _card(draw: ImageDraw.ImageDraw, x: int, y: int, width: int, height: int, edge: str) -> None:
    draw.rounded_rectangle((x, y, x + width, y + height), RADIUS, CARD, edge, 1)


def _centered(
    draw: ImageDraw.ImageDraw, x: int, y: int, width: int, text: str, font: ImageFont.FreeTypeFont, color: str
) -> None:
    """One line of text in the middle of `width` pixels, cut with an ellipsis when it is longer."""
    text = printable(text)
    while font.getlength(text) > width - 2 * PADDING:
        text = text[:-2].rstrip() + "…"
    draw.text((x + (width - font.getlength(text)) / 2, y), text, color, font)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in printable(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font. Raises FormatError where Pillow was built without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise FormatError("contact sheet: this Pillow has no FreeType; install one that has, such as the wheel on PyPI.")
    return font
