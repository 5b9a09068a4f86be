"""The console script ``fiftyone-ecif``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
LINK_NAME = "fiftyone-ecif"


def plugin_folder() -> Path:
    """The folder that FiftyOne loads the plugin from.

    A wheel carries ``fiftyone.yml``, its entry file and the icons inside ``fiftyone_ecif/plugin``; in a checkout they
    lie at the root.

    Raises:
        FileNotFoundError: if neither has them
    """
    for folder in (PACKAGE / "plugin", PACKAGE.parent):
        if (folder / "fiftyone.yml").is_file():
            return folder
    raise FileNotFoundError(f"There is no fiftyone.yml in {PACKAGE / 'plugin'}; install fiftyone-ecif anew.")


def install_plugin(plugins_dir: Path) -> Path:
    """Link the plugin into FiftyOne's plugins folder, in place of an earlier link.

    Args:
        plugins_dir: FiftyOne's plugins folder, made where it is missing

    Returns:
        the link

    Raises:
        FileExistsError: if a folder of that name is there, which may be a copy with somebody's changes
        OSError: if the link cannot be made
    """
    link = plugins_dir / LINK_NAME
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} is a folder already, not a link made by this command; move it away first.")
    plugins_dir.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f".{LINK_NAME}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(plugin_folder(), target_is_directory=True)
    os.replace(part, link)
    return link


def main(arguments: list[str] | None = None) -> int:
    """Run the console script; returns its exit status."""
    parser = argparse.ArgumentParser(prog="fiftyone-ecif", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install-plugin", help="link the installed package into FiftyOne's plugins folder")
    doctor = commands.add_parser("doctor", help="list what crashes left in the database and the cache folder")
    doctor.add_argument("--apply", action="store_true", help="remove it, too")
    features = commands.add_parser("features", help="list the stored features of images and captions, or prune them")
    features.add_argument("--prune", nargs="+", default=[], metavar="NAME", help="choose stores by their names")
    features.add_argument("--older-than", type=float, metavar="DAYS", help="choose stores not used for so many days")
    features.add_argument("--apply", action="store_true", help="remove what is chosen")
    chosen = parser.parse_args(arguments)
    if chosen.command == "doctor":
        return report_leftovers(chosen.apply)
    if chosen.command == "features":
        return report_features(chosen.prune, chosen.older_than, chosen.apply)
    return report_installation()


def report_installation() -> int:
    """Install the plugin and say where; returns the exit status."""
    import fiftyone as fo

    try:
        link = install_plugin(Path(fo.config.plugins_dir))
    except OSError as error:
        print(f"The plugin was not installed: {error}", file=sys.stderr)
        return 1
    print(f"FiftyOne will load the plugin from {link} -> {link.resolve()}")
    print("Remove it by deleting that link. An App that is running finds it after a reload of its page.")
    return 0


def report_leftovers(apply: bool) -> int:
    """Say what crashes left, and remove it where asked to; returns the exit status."""
    from fiftyone_ecif.dataset.run.doctor import examine

    try:
        found = examine(apply)
    except (ConnectionError, ValueError) as error:
        print(f"The examination was not completed: {error}", file=sys.stderr)
        return 1
    for line in found:
        print(f"{'Removed' if apply else 'Found'}: {line}")
    if not found:
        print("Nothing was left behind.")
    elif not apply:
        print("Nothing was changed. fiftyone-ecif doctor --apply removes this.")
    return 0


def report_features(names: list[str], older_than: float | None, apply: bool) -> int:
    """List feature stores, and remove those that are chosen where asked to; returns the exit status."""
    from fiftyone_ecif.features import housekeeping

    try:
        if apply and not names and older_than is None:
            raise ValueError("nothing is chosen: name stores after --prune, or pass --older-than DAYS.")
        folder = housekeeping.local_folder()
        stores = housekeeping.stored_features(folder)
        pruned = housekeeping.chosen(stores, names, older_than)
    except ValueError as error:
        print(f"Nothing was removed: {error}", file=sys.stderr)
        return 1
    if not stores:
        print(f"There are no features in {folder}.")
    for store in stores:
        if store not in pruned:
            print(f"Stays: {store}" if names or older_than is not None else store)
        elif not apply:
            print(f"Would remove: {store}{' (a job may be using it, so it would stay)' if store.in_use else ''}")
        else:
            reason = housekeeping.remove(store)
            print(f"Removed: {store}" if reason is None else f"Stays, since {reason}: {store}")
    if pruned and not apply:
        print(
            "Nothing was removed. With --apply it is: pairs are then embedded again when a run needs them, and runs "
            "that stand on these features must be computed again before they answer questions."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
