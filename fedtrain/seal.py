"""The manifest of a finished run: size and SHA-256 of every file that it left behind.

Most files of a run directory check each other; the log, the pictures and the metrics have nothing
to check them against, so that the manifest is what shows a changed byte there. It is no signature:
whoever can write the directory can write it anew. What signs a run are the signatures of its
secure sums, those of `signatures/`, and that of its report.

Files that later commands add (the audit, signatures, the report) may change and are sealed again
by the command that writes them; those of the run itself never are.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fedtrain.costs import COSTS
from fedtrain.durable import SUFFIX, replace_file
from fedtrain.errors import AuditError, RunDirectoryError

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
REPORT_FILES: Final = ("report.json", "report.html", "model_card.md", "registry.yaml")
ADDED_FOLDERS: Final = ("audit", "signatures")
# Empty; or beside the run, and free to be removed.
_UNLISTED: Final = ("checkpoint/lock", COSTS)

Manifest = dict[str, dict[str, Any]]


def seal_run(path: Path) -> None:
    """Write the manifest of a run that has just ended.

    Raises:
        OSError: A file cannot be read, or the manifest cannot be written.
    """
    _write_manifest(path, {name: _describe(path / name) for name in list_files(path)})


def unseal_run(path: Path) -> None:
    """Remove the manifest of a run that goes on."""
    (path / MANIFEST).unlink(missing_ok=True)


def extend_seal(path: Path) -> None:
    """Take what a later command added into the manifest; of a run without one nothing is sealed.

    Raises:
        AuditError: A file of the run itself is not what was sealed.
        RunDirectoryError: The manifest cannot be written.
    """
    if not (path / MANIFEST).exists():
        return
    sealed = read_manifest(path)
    kept = {name: one for name, one in sealed.items() if not is_added(name)}
    check_files(path, kept)
    added = [name for name in list_files(path) if is_added(name)]
    try:
        _write_manifest(path, kept | {name: _describe(path / name) for name in added})
    except OSError as error:
        raise RunDirectoryError(
            f"{path / MANIFEST}: cannot be written ({error.strerror})"
        ) from error


def read_manifest(path: Path) -> Manifest:
    """Read the manifest, in the one form that it is written in.

    Raises:
        AuditError: It is missing, damaged or in another form.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        tree = json.loads(text)
        files: Manifest = tree["files"]
        sound = tree["format"] == FORMAT and all(_is_sound(one) for one in files.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(f"{MANIFEST}: missing or damaged ({error}); restore it") from error
    if not sound or text != _to_text(files):
        raise AuditError(f"{MANIFEST}: not in the form that it is written in; restore it")
    return files


def check_files(path: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Check files against their sizes and digests.

    Raises:
        AuditError: One is missing or was changed.
    """
    for name, due in files.items():
        file = path / name
        if not file.is_file() or file.is_symlink():
            raise AuditError(f"{name}: missing, it was sealed with the run; restore it")
        found = _describe(file)
        if found != due:
            raise AuditError(
                f"{name}: changed after it was sealed (SHA-256 {found['sha256'][:12]}, sealed"
                f" {due['sha256'][:12]}); restore it"
            )


def list_files(path: Path) -> list[str]:
    """Return the files of a run directory that a manifest lists, by their names below it."""
    found = []
    for folder, folders, files in os.walk(path):
        folders.sort()
        names = ((Path(folder) / name).relative_to(path).as_posix() for name in files)
        found += [name for name in names if _is_listed(name)]
    return sorted(found)


def find_unsealed(path: Path, sealed: Iterable[str]) -> list[str]:
    """Return the files of a run directory that are not in its manifest."""
    known = set(sealed)
    return [name for name in list_files(path) if name not in known]


def is_added(name: str) -> bool:
    """Say whether a file is one that later commands write."""
    return name in REPORT_FILES or name.partition("/")[0] in ADDED_FOLDERS


def _is_listed(name: str) -> bool:
    return name != MANIFEST and name not in _UNLISTED and not name.endswith(SUFFIX)


def _is_sound(one: Mapping[str, Any]) -> bool:
    return set(one) == {"bytes", "sha256"} and len(one["sha256"]) == 64


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def _to_text(files: Manifest) -> str:
    return json.dumps({"files": files, "format": FORMAT}, indent=1, sort_keys=True) + "\n"


def _write_manifest(path: Path, files: Manifest) -> None:
    replace_file(path / MANIFEST, _to_text(files))
