"""``manage.py up``: starts everything that one machine runs, and keeps it running.

Policy is pure and apart: ``lives`` (when a child that ended starts again), ``placement`` (which
models get a worker), ``said`` (which lines of a child's log a person should see). ``children``
spawns and ends processes, ``guard`` ends them should we be killed, ``checks`` refuses bad settings
by name, ``tree`` says which processes there are, ``supervisor`` is the loop over all of it.
"""
