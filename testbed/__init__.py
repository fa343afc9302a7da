"""A real OpenStack of today on one machine, to be proven against; see README.md beside this."""
