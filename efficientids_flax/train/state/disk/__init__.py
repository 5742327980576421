"""The directory of a run: its checkpoints, which of them are kept, and a lock.

Read `checkpoint`, which writes, and `stored`, which reads, then `leaves`, what is stored and how it
is compared. `best` chooses the best checkpoint, `manager` reads its metrics, `sums` detects flipped
bits, `faults` has the errors of reading and writing, `lock` keeps other runs out.
"""
