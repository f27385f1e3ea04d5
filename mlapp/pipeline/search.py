"""The annotation `Search`: the range of a number that `mlapp tune` searches."""

from __future__ import annotations

from dataclasses import dataclass

from mlapp.errors import DeclarationError


@dataclass(frozen=True)
class Search:
    """The range of a parameter for `mlapp tune`: `C: Annotated[float, Search(1e-3, 10, log=True)] = 1.0`.

    Args:
        low: the lowest value, included.
        high: the highest value, included.
        log: sample uniformly on a logarithmic scale, if the order of magnitude matters.
        step: only `low`, `low + step`, …

    Raises:
        DeclarationError: an empty range, or a logarithmic scale that is not positive.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise DeclarationError(f"Search({self.low}, {self.high}) is empty.", "Give the lower number first.")
        if self.log and self.low <= 0:
            raise DeclarationError(
                f"Search({self.low}, {self.high}, log=True) starts at {self.low}.", "Start above 0, or leave log out."
            )
        if self.log and self.step is not None:
            raise DeclarationError(f"{self} has both log and step.", "Choose one of them.")
