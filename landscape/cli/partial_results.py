"""Measures of the checkpoints of one command, kept in its output directory as they are done."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    """Where the measures of one of several checkpoints are kept.

    Attributes:
        directory: of the command; None keeps nothing on a disk.
        number: of the checkpoint among those of the command.
        last: whether none comes after it that would start from its eigenvectors.
        so_far: what was done when the run was interrupted.
    """

    directory: "OutputDirectory | None"
    number: int
    last: bool
    so_far: "Sharpness | None" = None
    _kept: "Kept | None" = field(default=None, init=False)

    def opened(self, objective: "Objective", terminal: Terminal, inputs: dict[str, Any], seed: int) -> "Kept | None":
        """What an earlier run has kept; of several processes the first one reads and writes, and all know the same.

        Raises:
            UsageError: it is of other inputs.
        """
        if self.directory is None:
            return None
        from landscape.measures import Kept, provenance

        manifest = inputs | provenance(objective, seed)
        manifest |= {f"digest of {what}": digest for what, digest in objective.fingerprints.items()}
        directory, where = self.directory, self.directory.place / _FOLDER / str(self.number)
        kept = Kept(where, manifest, for_next=not self.last, making=lambda: directory.shared, processes=group())
        self._kept = kept
        for problem in kept.problems:
            terminal.warn(problem)
        if kept.measurements:
            listed = ", ".join(kept.measurements)
            terminal.note(f"{inputs['checkpoint']}: found from an earlier run, not computed again: {listed}")
        return kept

    def done(self) -> None:
        """The checkpoint after this one is done too: the eigenvectors that it started from are of no more use."""
        if self._kept is not None:
            self._kept.forget_directions()
