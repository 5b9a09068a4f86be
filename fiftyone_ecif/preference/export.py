"""Preference pairs as training programs read them: TRL's rows for DPO and KTO, and LLaVA's conversations."""

from __future__ import annotations

import base64
import io
import json
import mimetypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fiftyone_ecif.preference.pair import PreferencePair

Row = dict[str, Any]


def rows_of(form: str, pairs: Sequence[PreferencePair], picture: Callable[[str], Any] = lambda path: path) -> list[Row]:
    """The rows of a form.

    Args:
        form: "dpo", "kto" or "llava"
        pairs: the pairs
        picture: what stands for the image at a path

    Returns:
        rows of plain values
    """
    makers = {"dpo": _dpo, "kto": _kto, "llava": _llava}
    return list(makers[form](pairs, picture))


def write(form: str, container: str, embedded: bool, pairs: Sequence[PreferencePair], folder: Path) -> int:
    """Write pairs into a folder.

    Args:
        form: "dpo", "kto" or "llava"
        container: "jsonl" or "parquet"
        embedded: whether the file holds the images themselves, or the paths where they lie
        pairs: the pairs
        folder: where to

    Returns:
        the number of rows

    Raises:
        ValueError: if the library that writes Parquet is not here, or there is no such file of this form
        OSError: if an image is gone
    """
    if container == "jsonl":
        rows = rows_of(form, pairs, _data_url if embedded else lambda path: path)
        if form == "llava":
            (folder / "llava.json").write_text(f"{json.dumps(rows, indent=1)}\n")
        else:
            (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return len(rows)
    if form == "llava":
        raise ValueError("LLaVA's conversations are a JSON file: choose the container 'jsonl'.")
    try:
        from datasets import Dataset, Features, List, Value
        from datasets import Image as Picture
    except ImportError as error:
        raise ValueError(
            "A Hugging Face dataset needs the library datasets: pip install 'fiftyone-ecif[preference]'."
        ) from error
    rows = rows_of(form, pairs, _bytes if embedded else lambda path: path)
    message = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
    kinds = {"images": List(Picture() if embedded else Value("string")), "label": Value("bool")}
    features = Features({name: kinds.get(name, message) for name in rows[0]})
    Dataset.from_list(rows, features=features).to_parquet(str(folder / "train.parquet"))
    return len(rows)


def _dpo(pairs: Sequence[PreferencePair], picture: Callable[[str], Any]) -> Iterator[Row]:
    for each in pairs:
        yield {
            "prompt": _asked(each.prompt),
            "chosen": _answered(each.chosen),
            "rejected": _answered(each.rejected),
            "images": [picture(each.path)],
        }


def _kto(pairs: Sequence[PreferencePair], picture: Callable[[str], Any]) -> Iterator[Row]:
    """Each answer by itself, a right one once however many wrong ones stand against it."""
    seen = set()
    for each in pairs:
        for text, good in ((each.chosen, True), (each.rejected, False)):
            if (said := (each.sample_id, each.prompt, text)) not in seen:
                seen.add(said)
                images = [picture(each.path)]
                yield {"prompt": _asked(each.prompt), "completion": _answered(text), "label": good, "images": images}


def _llava(pairs: Sequence[PreferencePair], picture: Callable[[str], Any]) -> Iterator[Row]:
    """Each right answer once."""
    right: dict[tuple[str, str, str], PreferencePair] = {}
    for pair in pairs:
        right.setdefault((pair.sample_id, pair.prompt, pair.chosen), pair)
    for each in right.values():
        turns = [{"from": "human", "value": f"<image>\n{each.prompt}"}, {"from": "gpt", "value": each.chosen}]
        yield {"id": each.key, "image": picture(each.path), "conversations": turns}


def _asked(prompt: str) -> list[Row]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]


def _answered(text: str) -> list[Row]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def _bytes(path: str) -> Row:
    return {"bytes": Path(path).read_bytes(), "path": Path(path).name}


def _data_url(path: str) -> str:
    """An image in a text, as transformers reads it."""
    data, kind = Path(path).read_bytes(), mimetypes.guess_type(path)[0]
    if kind is None:
        kind = Image.MIME[str(Image.open(io.BytesIO(data)).format)]
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
