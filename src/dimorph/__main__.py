"""`python -m dimorph`."""

from dimorph.cli import main

if __name__ == "__main__":
    main()
