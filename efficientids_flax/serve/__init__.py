"""Recommendations over HTTP: the code behind `efficientids serve OUT`. Needs the extra `serve`.

Read `limits`, what one client may ask for; `answers`, which answers questions in batches; `web`,
which translates between HTTP and questions; `service`, which loads and reloads exports; `sockets`
and `connections`, who may connect and for how long; `listening`, the process and its shutdown; and
`logs`. The shell commands are in `commands`.
"""
