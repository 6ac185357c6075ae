"""The folder of an export, which is there as a whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cso_lab.core.errors import UserError

CARD = "README.md"


def check_free(out: Path) -> None:
    """Raises UserError if `out` is a file or a folder with anything in it."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder to export to")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: give another folder, or delete it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a folder beside `out` that becomes `out` if no error is raised, and is deleted otherwise.

    Raises UserError if `out` is not empty, or the folder cannot be written.
    """
    from safetensors import SafetensorError

    check_free(out)
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
