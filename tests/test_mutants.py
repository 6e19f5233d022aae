"""Small faults in references: where they are put, and that a missing check lets them through."""

import ast
from dataclasses import replace

import pytest
import toyset

from mslearn import mutants
from mslearn.exercises import Exercise

ANSWER = '''def f(x: Int = -1, k=2.0) -> Float[Tensor, "a 3"]:
    """Adds 1 to x > 0."""
    total = 0
    for each in x[1:]:
        if each > 0 and not k:
            total += max(each, 3) - g(x, k, keepdim=True)
    return [n / 2 for n in x if n][:total]
'''


def exercise(source: str) -> Exercise:
    return Exercise("98.1", "f", "f", 1, "low", "low", 1, (), (), None, None, source, "")


def changes(source: str) -> list[str]:
    return [each.change.split(" in `")[0] for each in mutants.mutants(exercise(source))]


def test_every_kind_of_place_has_its_fault():
    assert set(changes(ANSWER)) == {
        "-1 → 0",
        "2.0 → 4.0",
        "0 → 1",
        "1 → 2",
        "2 → 3",
        "3 → 4",
        "no lower bound",
        "no upper bound",
        "Gt → GtE",
        "And → Or",
        "Add → Sub",
        "Sub → Add",
        "Div → Mult",
        "condition turned",
        "no condition",
        "max → min",
        "True → False",
        "no keepdim=",
        "arguments swapped",
        "no `total += max(each, 3) - g(x, k, keepdim=True)`",
    }


def test_each_mutant_is_python_and_unlike_every_other():
    sources = [each.source for each in mutants.mutants(exercise(ANSWER))]
    assert len({ast.dump(ast.parse(each)) for each in sources}) == len(sources)
    assert all(
        "Adds 1 to x > 0." in each and 'Float[Tensor, "a 3"]' in each.replace("'", '"')
        for each in sources
    )
    assert ast.unparse(ast.parse(ANSWER)) not in sources


def test_mutants_of_one_line_have_names_of_their_own():
    names = [str(each) for each in mutants.mutants(exercise("x = 1 + 1 + 1"))]
    assert len(set(names)) == len(names) == 5
    assert names[0] == "98.1: Add → Sub in `x = 1 + 1 + 1`"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toyset.load(tmp_path_factory.mktemp("course"))


def test_checks_catch_faults_and_a_missing_check_lets_one_through(toy):
    every, alive = mutants.survivors(toy)
    assert every > 8 and not [each for each in alive if each.key == "97.3"]
    step = toy.exercises["97.3"]
    blind = replace(step.rules[0], test=lambda answer, g: None)
    weaker = {**toy.exercises, "97.3": replace(step, rules=(blind,))}
    _, more = mutants.survivors(replace(toy, exercises=weaker))
    assert {each.key for each in more} - {each.key for each in alive} == {"97.3"}


def test_an_endless_mutant_is_caught(toy, monkeypatch):
    monkeypatch.setattr(mutants, "LIMITS", mutants.Limits(call=2.0, total=60.0))
    source = "def softmax(z):\n    while z is None:\n        pass\n    return z.softmax(-1)"
    one = replace(toy.exercises["97.1"], source=source)
    _, alive = mutants.survivors(replace(toy, exercises={"97.1": one}))
    assert "condition turned" not in str(alive)
