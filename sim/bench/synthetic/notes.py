"""What the numbers of the full run mean, and what was tried on the way to them."""

NOTES = """\
## What was tried

The sensory noise is 0.02 a dimension on events and look-alikes (length 1 each for key, value and mark), 0.05 on
recall, 0.03 against quiet events of length 0.3. Events and the surprise streams use 16 keys, recall 64. The GRU is
matched by parameters (64 entries of h): 4,224 bytes of h would take 200 times AURA-Mem's parameters.

**Repeats.** A gate g = [p > 1/2], trained straight through with a cost on p, found the events and left the
look-alikes (write probability 0.00) but wrote every repeat (1.00: 1.9 times the oracle's writes at 10 % events, 5
times at 2 %). A larger cost lost events before it lost repeats. Drawing the decision in training (logistic noise)
raised accuracy from 96 to 99.5 % and left the repeats. Charging -log(1 - p) in place of p, whose gradient does not
vanish for a gate that is sure, ended them: 1.02 times the oracle's writes after 300 updates, with 4 % of events lost
at a cost of 1; a cost of 0.5 and more updates brought the events back.

**Collapse.** Charged the whole cost from the first update, the gate closed for good within 30 updates. The cost now
rises between 30 % and 50 % of the updates, after short episodes.

**Length.** Trained at 256 ticks from empty states, accuracy over 4,096 ticks was 65 % (noise 0.05) and 84 % (noise
0.02), under the oracle gate as well: W grew with every write, by the same amount in each 256 ticks. Starting from
states filled with noise: 82 % at noise 0.05. Bounding the spectral norm of Wvr, which had reached 1.04, by 1/2 did
not mend it (78 %). Starting 95 % of the episodes from the state that an earlier one left did: 98.8 % over 4,096
ticks, at first with more repeats written (1.4 times the oracle's writes after 700 updates at a cost of 0.5 and a
learning rate of 0.02); 1,000 updates at a cost of 1.5 and a rate of 0.01 ended that.

**Keys and noise.** With 32 keys in a d_k of 32 and noise 0.05 accuracy stayed at 96 % (10 % events) and 90 % (20 %);
with 16 keys it is 99 % and more. The first version of the streams had noise 0.1 and 32 keys, where accuracy was
82 %. Tried again with carried states and 1,000 updates, two seeds: 91 % at 10 % events, 61 % over 4,096 ticks and 1.4
times the oracle's writes, since a read that noise blurs leaves an error at repeats, which are then written (43 % of
them; look-alikes 0 %). Noise 0.05 and 16 keys: 99.8 % at 10 % events and 96.7 % over 4,096 ticks, at 1.06 times the
oracle's writes in one seed and 1.53 in the other. So what is called hard here is easier than the first version, and the
gate's sparing of repeats is not robust at noise 0.05.

**Counterfactual signal.** With 300 updates of one flipped tick in each of 4 copies a row it reached 71 % at 10 %
events, where the straight-through signal stood at 97 % (one seed, noise 0.05): it labels some tens of ticks an update,
the other all.

**Recall.** With all numbers of bindings mixed from the first update and the cost of the event streams, the gate wrote
nothing in any of five seeds (11 % right, chance), while the oracle gate answered 99.5 % at 8 bindings: one seed's gate
closed before the memory was of use, the others learned (error 0.7) until the cost rose and closed them, since five
ticks in eight have to be written at 64 bindings. Eight bindings alone for the first 30 % of the updates, for every
arm, and a cost of 0.2 in place of 1.5: 84 % at 8 bindings and 44 % at 64, as the cost rose while the larger numbers
were new. With the cost rising between 50 and 80 % of the updates: 99 and 60 %, two seeds leaving out bindings. With a
cost of 0.1 the gate writes the bindings and nothing else. The sweep of learning rates had told nothing either, every
arm being at chance after 100 updates; on recall it now takes 300.

**Learning rates.** Each arm on each family has a sweep of its own over five rates, one run of 100 updates each (300 on
recall), scored by the error of the last fifth on streams that are not scored later; baselines and AURA-Mem alike. LRU
slots have 500 updates: after 100 a rate looked best that diverged later (12 % right in place of 50). On the surprise
streams nearly every arm is at chance after 100 updates, so that the rates there are as good as drawn. Write cost and
number of updates were chosen on streams of the kind that is scored, for the straight-through gate alone: the baselines
write at every tick and have no such cost.

**A rate that is asked for.** A multiplier on the cost, moved by the average rate, ended at 0.085 writes a tick for an
asked 0.12. Two causes: training draws its decisions, so what was held was the mean of p, while p > 1/2 decides when the
gate is used; and the multiplier wound itself up against the open gate while next to nothing was charged yet. Now the
doubt ends before training does, the multiplier moves with the ramp of the cost, and its steps move the gate's bias too:
0.0497, 0.127 and 0.290 on held-out streams for 0.05, 0.12 and 0.3, by the multiplier alone.
"""
