"""Files of Hugging Face's hub and of open_clip's tags: out of their caches, or downloaded where there is a network."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import open_clip
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_hf

WEIGHTS: tuple[str, str] = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
"""Names of a repository's weights, the preferred one first."""

WAYS_OUT = (
    "Ways out: fill the cache of Hugging Face's hub where there is a network and copy it here (HF_HOME says where it "
    "is), name a folder that holds the model and its tokenizer as local-dir:FOLDER, or load the model yourself and "
    "pass wrap_model(model, preprocess, tokenizer, name=…)."
)

_PATIENCE = 3.0  # seconds until a network counts as absent


def cached_file(repository: str, *names: str) -> Path | None:
    """The first of a repository's files that is in the hub's cache; nothing is asked of the network.

    Args:
        repository: its name on the hub, "owner/name"
        names: of files in it

    Returns:
        its path; None if none of them is there
    """
    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_file(repository: str, *names: str, what: str, local_files_only: bool = False) -> Path:
    """A repository's file: what is in the cache is taken as it is, and what is not is downloaded.

    Args:
        repository: its name on the hub, "owner/name"
        names: under which the file is looked for in the cache; the last one is what open_clip downloads, or its
            ``.safetensors`` where the hub has that
        what: names the file in errors
        local_files_only: whether to take it from the cache alone

    Returns:
        its path on this machine

    Raises:
        ConnectionError: if it is not in the cache and cannot be downloaded
    """
    if (found := cached_file(repository, *names)) is not None:
        return found
    require_network(what, constants.ENDPOINT, local_files_only)
    try:
        return Path(download_pretrained_from_hf(repository, filename=names[-1]))
    except OSError as error:
        raise ConnectionError(f"{what} could not be downloaded: {error}") from error


def tag_file(name: str, tag: str, local_files_only: bool = False) -> Path:
    """The weights of one of open_clip's tags.

    Args:
        name: open_clip's name of the architecture
        tag: one of its tags
        local_files_only: whether to take them from this machine alone

    Returns:
        their path on this machine

    Raises:
        ConnectionError: if they are not on this machine and cannot be downloaded
    """
    entry, what = open_clip.get_pretrained_cfg(name, tag), f"The weights {tag!r} of {name}"
    if file := entry.get("file"):
        return Path(file)
    if repository := entry.get("hf_hub"):
        repository, file = os.path.split(repository)
        names = (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHTS
        return hub_file(repository, *names, what=what, local_files_only=local_files_only)
    url = entry["url"]
    if not Path("~/.cache/clip", os.path.basename(url)).expanduser().is_file():  # where open_clip keeps them
        require_network(what, url, local_files_only)
    try:
        return Path(open_clip.download_pretrained_from_url(url))
    except OSError as error:
        raise ConnectionError(f"{what} could not be downloaded: {error}") from error


def require_network(what: str, url: str, local_files_only: bool = False) -> None:
    """Refuse within seconds what cannot be downloaded: the libraries below would try again for a minute.

    Args:
        what: is not on this machine
        url: where it would come from
        local_files_only: whether nothing may be downloaded

    Raises:
        ConnectionError: naming the ways out, if nothing may be downloaded or nobody answers at ``url``
    """
    if local_files_only:
        reason = "nothing may be downloaded here"
    elif constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE forbids downloads"
    elif _answers(url):
        return
    else:
        reason = f"{url} does not answer"
    raise ConnectionError(f"{what} cannot be found on this machine, and {reason}. {WAYS_OUT}")


def _answers(url: str) -> bool:
    """Whether anything answers at a URL, by way of a proxy where one is set."""
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(url, timeout=_PATIENCE)
        except Exception:  # of one library or another, by the hub's version: nobody answered
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name can take longer than any timeout
    asking.start()
    asking.join(_PATIENCE)
    return answered.is_set()
