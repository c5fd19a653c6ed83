"""`python -m amgen` and `torchrun -m amgen`: the same as the `amgen` command."""

from amgen_cli.entry import main

if __name__ == "__main__":
    main()
