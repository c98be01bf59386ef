"""Measures of each checkpoint, saved in the output directory as soon as they are computed."""

import shlex
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from landscape.cli import processes
from landscape.cli.terminal import Terminal
from landscape.machine.distributed import group

if TYPE_CHECKING:
    from landscape.cli.output_directory import OutputDirectory
    from landscape.measures import Kept
    from landscape.objective import Objective
    from landscape.results import Sharpness

_FOLDER = "measures"


@dataclass
class Keeping:
    """Storage for the measures of one of several checkpoints.

    Attributes:
        directory: output directory of the command; None saves nothing.
        number: index of the checkpoint in the command, or another name of its folder.
        last: whether this is the last checkpoint, so that no other one starts from its eigenvectors.
        so_far: the measures computed when the run was interrupted.
    """

    directory: "OutputDirectory | None"
    number: int | str
    last: bool
    so_far: "Sharpness | None" = None
    _kept: "Kept | None" = field(default=None, init=False)

    def opened(self, objective: "Objective", terminal: Terminal, inputs: dict[str, Any], seed: int) -> "Kept | None":
        """The measures that an earlier run saved. Under torchrun the first process reads and writes, and all get the same.

        Raises:
            UsageError: they belong to other inputs.
        """
        if self.directory is None:
            return None
        from landscape.measures import Kept, provenance

        manifest = inputs | provenance(objective, seed)
        manifest |= {f"digest of {what}": digest for what, digest in objective.fingerprints.items()}
        directory, where = self.directory, self.directory.place / _FOLDER / str(self.number)
        start = directory.start(manifest)
        kept = Kept(where, manifest, for_next=not self.last, making=lambda: directory.shared, start=start, processes=group())
        self._kept = kept
        for problem in kept.problems:
            terminal.warn(problem)
        return kept

    def after_interrupt(self, before: int) -> str:
        """What an interrupted command has kept, and how it goes on.

        Args:
            before: number of checkpoints that were done before this one.
        """
        if self.directory is None:
            return "nothing is kept on the disk without --out FOLDER, which keeps every measure as soon as it is done"
        parts = [f"all measures of {before} checkpoint{'s' * (before != 1)}"] if before else []
        if self._kept is not None and self._kept.measurements:
            parts.append(", ".join(self._kept.measurements))
        elif self._kept is not None and self._kept.started:
            parts.append("what was checked and chosen at the start")
        again = "the same command" if processes.SIZE > 1 else shlex.join(["landscape", *sys.argv[1:]])
        if not parts:
            return f"nothing is kept yet: the first measure had not begun; again: {again}"
        return f"kept in {self.directory.place}: {'; '.join(parts)}; the same command continues: {again}"

    def done(self) -> None:
        """Delete the eigenvectors once the next checkpoint, which started from them, is done."""
        if self._kept is not None:
            self._kept.forget_directions()
