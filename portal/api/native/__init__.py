"""``/api/v1``: the house's own things under their own names, for programs with a team's key.

A key reaches its own team and nothing else, whoever made it.
"""
