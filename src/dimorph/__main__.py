"""`python -m dimorph`."""

from dimorph.cli.main import main

if __name__ == "__main__":
    main()
