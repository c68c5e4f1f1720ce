"""What tests of benches share: a progress that remembers its lines."""


class Progress:
    """As a bench is given one; nothing is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[tuple[str, int, int]] = []
        self.steps = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, title: str, done: int, planned: int) -> None:
        self.begun.append((title, done, planned))

    def step(self) -> None:
        self.steps += 1
