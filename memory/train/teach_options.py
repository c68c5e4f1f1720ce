"""How a memory is taught by a frozen policy's own loss."""

from dataclasses import dataclass, field

from vlamem.memory.train.loop import TrainConfig

__all__ = ["TeachOptions"]


@dataclass(frozen=True)
class TeachOptions:
    """How a memory is taught.

    Attributes:
        train: of the gradient updates. Its `write_cost` is that of writing at every tick in units of what the memory
            has gained, task by task, so that a task pays for its writes as it learns to use them; it rises over `ramp`.
            Over its `noise_anneal` the noise on the gate's decisions falls from 1 to 0: drawn to the end, a gate learns
            to write at several ticks with a chance of less than 1/2 each, and in use at none.
        rows: episodes of a batch.
        moments: ticks of each at which the policy's loss is asked for.
        uniform: shares of these that are drawn from the whole episode, at first and at last; the rest as often as their
            weight of choice says. What is remembered is learned at choices; in use a memory proposes between them too,
            where it must do no harm.
        widen: shares of the updates between which the first share becomes the last.
        feature_noise: standard deviation of what is added to z, in units of each entry's own.
        scene_shift: greatest share of the way to the scene of another episode of the task by which all z of an episode
            are moved. Scenes are few: read off them, the answers of the demonstrations would be learned by heart.
        floor: least gain that writes are charged by after the ramp, as a share of the bare policy's loss: a task that
            gains nothing from its writes loses them then.
        catch_up: how many times more often a demonstration is drawn whose task has moments of choice and is not yet
            remembered: what is learned quickly would else take most of the batches to the end.
        write_dropout: share of ticks at which the gate may not write. One write at one tick, which is cheapest, fails
            when the robot is a little slower than its demonstrator.
        average: of parameters over updates, share that is kept of the average at each.
        look_every: updates between two looks at episodes that are not trained on, with their own and another's state.
        patience: looks without a lower loss, after the write cost has fully come, that end the training.
        seed: of parameters and batches.
    """

    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            updates=2400,
            learning_rate=3e-3,
            weight_decay=0.05,
            write_cost=0.1,
            ramp=(0.55, 0.75),
            noise_anneal=(0.5, 0.75),
        )
    )
    rows: int = 16
    moments: int = 8
    uniform: tuple[float, float] = (0.2, 0.6)
    widen: tuple[float, float] = (0.35, 0.55)
    feature_noise: float = 0.15
    scene_shift: float = 0.3
    floor: float = 0.3
    catch_up: float = 5.0
    write_dropout: float = 0.1
    average: float = 0.98
    look_every: int = 50
    patience: int = 5
    seed: int = 0
