"""What of a run lies in its directory: checkpoints, which of them stay, and whose directory it is.

Read `checkpoint`, which writes, and `stored`, which reads, then `leaves`, what is stored and how it
is compared; `best` chooses the one that stays, `sums` finds flipped bits, `faults` tells what
cannot be read or written, `lock` keeps two runs apart.
"""
