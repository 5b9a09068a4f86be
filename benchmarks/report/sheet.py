"""Contact sheets: pictures with what is said of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL_SIZE = (200, 215)  # pixels
PICTURE = 128  # pixels, the longer side


def contact_sheet(cells: Sequence[tuple[str, str, str]], per_row: int) -> Image.Image:
    """Pictures with a heading above and a caption below each.

    Args:
        cells: (heading, image file, caption) of each
        per_row: pictures side by side

    Returns:
        the sheet, RGB
    """
    width, height = CELL_SIZE
    sheet = Image.new("RGB", (per_row * width, -(-len(cells) // per_row) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, (heading, filepath, caption) in enumerate(cells):
        left, top = place % per_row * width, place // per_row * height
        with Image.open(filepath) as opened:
            image = ImageOps.contain(opened.convert("RGB"), (PICTURE, PICTURE))
        sheet.paste(image, (left + (width - image.width) // 2, top + 20))
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline="lightgray")
        draw.text((left + 6, top + 4), heading, fill="black", font=font)
        lines = textwrap.wrap(caption, 31)[:4]
        draw.text((left + 6, top + 152), "\n".join(lines), fill="black", font=font)
    return sheet
