"""`python -m prunus` is `prunus`."""

from prunus.cli.main import entry

entry()
