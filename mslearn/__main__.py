"""The command line: `mslearn data | train | experiment | ledger | build | grade | doctor | …`."""

import argparse
import importlib
import sys

COMMANDS = {
    "data": "list the texts, or fetch them",
    "train": "train a named recipe, such as `base`",
    "experiment": "run a named experiment and store its result",
    "ledger": "check every equation of every page, and reject wrong versions of each",
    "build": "execute notebooks and generate the exercises",
    "grade": "mark a class's notebooks, each in a sandbox",
    "mutate": "put small faults into the reference answers and count which the checks catch",
    "bench": "measure: train, learn, generate, live, bpe, grade",
    "doctor": "say what is wrong with this installation, and the mend",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; each lives in the module of its subject as `configure` and `command`."""
    parser = argparse.ArgumentParser(prog="mslearn", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    argv = sys.argv[1:] if argv is None else argv
    modules = {
        "train": "recipes",
        "experiment": "experiments",
        "grade": "classroom",
        "mutate": "mutants",
    }
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        if argv and argv[0] == name:  # import only what this command needs
            module = importlib.import_module(f"mslearn.{modules.get(name, name)}")
            module.configure(subparser)
            subparser.set_defaults(run=module.command)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, OSError) as error:
        print(f"mslearn: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
