"""What the memory panel's page says beside its figures: what was tried, and what is left."""

NOTES = """

## What was tried

All shares below are of held-out layouts: ticks at which a memory is asked and proposes what is nearer to the sentence
that tells the answer than to any other of the 147 that the suite knows.

- **A head that sees the scene** learns it by heart: on 41 layouts of recall_colour and without a cost of writing, 27 %
  right after 200 updates with training error near 0. The same head, whose sentence is made of the read-out and of what
  the policy was told alone: 100 % right after 300.
- **The residual as the only target** leaves sentences that differ little in the policy's context for last: sequence
  47 %, count_press 19 % right (500 updates, writes on 1.4 % of ticks). With the sentence asked for as a choice among
  all as well, in training alone: sequence 64 %, count_press 51 %, writes on 4.8 % (600 updates, other policy weights
  and more layouts).
- **Few layouts** were the limit before training was: demonstrations recorded as frames are encoded forty times faster
  than episodes are played, and a frame is held until the next.
- **A residual scaled by the confidence** moves the policy a part of the way from one sentence to another, which is no
  sentence: a trusted residual is heard whole.
- **Played episodes beside recorded frames.** A gate from the same frames and half as many played episodes reached 69 %
  in closed loop on these initial states (58 of 84; sequence 50 %, latest_wins 75 %). The choice between the two was
  made on training layouts (53 against 51 of 60) and on the error of held-out features (0.42 against 0.49).

## What is left

This page is a first one: 12 episodes a task, and the controls that have to be trained (always-write, random, periodic,
GRU, KV caches), the ways of speaking and the axes of delay, chunk length and noise are still to be played. The gap to
the oracle is in shell_game, count_press and patrol; on training layouts shell_game is 10 of 10 and count_press 4 of 10,
so that the one wants more layouts and the other a memory that counts better.
"""
