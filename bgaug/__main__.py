"""`python -m bgaug`: the command `bgaug`."""

from bgaug.cli.start import main

main()
