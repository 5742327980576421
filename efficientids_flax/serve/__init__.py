"""Recommendations over HTTP, as `efficientids serve OUT` gives them; needs the extra of that name.

Read `limits`, what one client may ask for, then `answers`, from questions to answers in batches,
`web`, from HTTP to questions and back, `service`, how it gets ready and takes another export,
`sockets` and `connections`, who is let in and for how long, `listening`, the process and its end,
and `logs`; `commands` has what the shell calls.
"""
