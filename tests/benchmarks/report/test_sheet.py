"""Contact sheets show each picture under its heading."""

import numpy as np
from PIL import Image

from benchmarks.report.sheet import CELL_SIZE, PICTURE, contact_sheet


def test_a_sheet_shows_each_picture_in_its_cell(tmp_path):
    cells = []
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (64, 32), colour).save(tmp_path / f"{colour}.png")
        cells.append((str(number), str(tmp_path / f"{colour}.png"), "a caption"))
    sheet = np.asarray(contact_sheet(cells, per_row=2))
    width, height = CELL_SIZE
    assert sheet.shape == (2 * height, 2 * width, 3)
    for place, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        cell = sheet[place // 2 * height :][:height, place % 2 * width :][:, :width]
        rows, columns = np.nonzero((cell == colour).all(axis=2))
        assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (PICTURE, PICTURE // 2)
        assert (rows.min(), columns.min()) == (20, (width - PICTURE) // 2)
