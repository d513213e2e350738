"""`python -m prunus` is `prunus`."""

from prunus.cli import entry

entry()
