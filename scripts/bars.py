"""How far a bench is, on the terminal: its lines, and a bar while it plays episodes, arm after arm."""

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class ProgressBar:
    """Lines go to standard output at once; the bar goes to standard error and begins with the first arm."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        """Shows one line above the bar."""
        with tqdm.external_write_mode():
            print(line, flush=True)

    def begin(self, title: str, done: int, planned: int) -> None:
        """The bar starts anew: its title, how many episodes are done already, and how many are planned."""
        bar: tqdm[Any] = self._bar if self._bar is not None else tqdm(unit="episode")
        bar.reset(planned)
        bar.set_description(title)
        bar.update(done)
        bar.refresh()
        self._bar = bar

    def step(self) -> None:
        """One more episode is done."""
        if self._bar is not None:
            self._bar.update()
