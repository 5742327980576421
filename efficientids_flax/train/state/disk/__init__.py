"""What of a run lies in its directory: checkpoints, which of them stay, and whose directory it is.

Read `checkpoint`, then `leaves`, what is stored and how it is compared; `best` chooses the one that
stays, `faults` tells what cannot be read or written, `lock` keeps two runs apart.
"""
