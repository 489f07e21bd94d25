"""The output folder of ``flowprior fit``, which an interrupted run leaves ready to be resumed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from flowprior.files.limits import read_json
from flowprior.files.whole_file import remove_partials, write_whole
from flowprior.results import Fits

__all__ = ["Part", "RunFolder"]

RUN_FILE = "run.json"
FITS_FILE = "fits.npz"
PARTS = "parts"


class Part(Protocol):
    """The people of a chunk."""

    def __len__(self) -> int: ...

    def save(self, path: Path) -> None:
        """Write a file atomically."""


class RunFolder:
    """Finished chunks, until all of them are joined to ``fits.npz``.

    Args:
        path: The folder; created if missing.
        settings: What determines the results: the input and the options.
        fresh: Whether to delete the results of an earlier run.

    Attributes:
        done: Numbers of the finished chunks.
        images: Number of images in them.
        people: Number of people in them.
        faults: Sentences about what could not be read.
        complete: Whether an earlier run finished everything.

    Raises:
        ValueError: The folder contains results of another input or of other settings.
        OSError: The folder cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, fresh: bool = False) -> None:
        self.path, self.settings = path, settings
        self.done: set[int] = set()
        self.images = self.people = 0
        self.faults: list[str] = []
        self.complete = False
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file, not a folder for results")
        if fresh:
            self._clear()
        path.mkdir(parents=True, exist_ok=True)
        remove_partials(path)
        before = self._before()
        if before is None:
            self._write(complete=False)
            return
        changed = sorted(
            key
            for key in settings.keys() | before["settings"].keys()
            if settings.get(key) != before["settings"].get(key)
        )
        if changed:
            raise ValueError(
                f"{path} contains results of another run ({', '.join(changed)} differ): choose "
                "another --out, or --fresh to replace them"
            )
        self.complete = bool(before.get("complete")) and (path / FITS_FILE).exists()
        self.faults = list(before.get("faults", [])) if self.complete else []
        for file in sorted((path / PARTS).glob("[0-9]*.json")):
            if file.with_suffix(".npz").exists():
                facts = read_json(file)
                self.done.add(int(file.stem))
                self.images += int(facts["images"])
                self.people += int(facts["people"])
                self.faults += list(facts["faults"])

    def save_part(self, number: int, part: Part, images: int, faults: tuple[str, ...]) -> None:
        """Store a finished chunk."""
        folder = self.path / PARTS
        folder.mkdir(exist_ok=True)
        part.save(folder / f"{number:06d}.npz")
        facts = {"images": images, "people": len(part), "faults": list(faults)}
        # Last: with it, the chunk is done.
        write_whole(folder / f"{number:06d}.json", json.dumps(facts).encode())
        self.done.add(number)
        self.images += images
        self.people += len(part)
        self.faults += faults

    def parts(self) -> list[Path]:
        """Files of the finished chunks, in order."""
        return [self.path / PARTS / f"{number:06d}.npz" for number in sorted(self.done)]

    def join(self) -> Fits | None:
        """Write ``fits.npz`` with all finished chunks; None without any."""
        if self.complete:
            return Fits.load(self.path)
        files = self.parts()
        if not files:
            return None
        fits = Fits.joined([Fits.load(file) for file in files])
        fits.save(self.path / FITS_FILE)
        return fits

    def finish(self, faults: Sequence[str] = ()) -> None:
        """Mark the run as complete, and delete the chunks.

        Args:
            faults: Sentences about files of the input that could not be read.
        """
        self.faults += faults
        self._write(complete=True)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)

    def _before(self) -> dict[str, Any] | None:
        """The content of an earlier run's file; None without one."""
        file = self.path / RUN_FILE
        if not file.exists():
            return None
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise ValueError(f"{file} is not the file of a run; --fresh replaces it")
        return content

    def _write(self, *, complete: bool) -> None:
        content = {
            "settings": self.settings,
            "complete": complete,
            "images": self.images,
            "people": self.people,
            "faults": self.faults,
        }
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        write_whole(self.path / RUN_FILE, text.encode())

    def _clear(self) -> None:
        """Delete what a run writes, and nothing else."""
        if not (self.path / RUN_FILE).exists():
            return
        for name in (PARTS, "people", "overlays", "meshes", "frames", "motion"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (FITS_FILE, "index.html", RUN_FILE):
            (self.path / name).unlink(missing_ok=True)
