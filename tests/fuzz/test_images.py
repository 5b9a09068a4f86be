"""Odd image files are read, or left out with a reason."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fiftyone_ecif.features import UnreadablePair, read_image
from tests.fuzz.inputs import inputs, tried

pytestmark = pytest.mark.filterwarnings("ignore")

KIND = "image files"
MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P")}
MODES |= {
    "TIFF": ("1", "L", "I;16", "F", "RGB", "RGBA", "CMYK", "LAB"),
    "BMP": ("1", "L", "RGB"),
    "WEBP": ("RGB", "RGBA"),
}


@st.composite
def pictures(draw) -> bytes:
    """A file of any mode and size, of which some bytes may be changed, and the end missing."""
    kind = draw(st.sampled_from(sorted(MODES)))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    file = io.BytesIO()
    Image.new(draw(st.sampled_from(MODES[kind])), size).save(file, kind)
    content = bytearray(file.getvalue())
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)):
        content[place] = byte
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


@inputs(few=200, many=2_000)
@given(content=st.one_of(pictures(), st.binary(max_size=200)))
@example(content=b"\x89PNG\r\n\x1a\n")
def test_odd_files_are_read_or_named_unreadable(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "odd"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except UnreadablePair as error:
        tried[KIND, "refused"] += 1
        assert error.reason.strip()
        return
    except BaseException:
        tried[KIND, "undocumented"] += 1
        raise
    tried[KIND, "accepted"] += 1
    assert image.mode == "RGB" and image.size > (0, 0)
