"""Rules of wording that a reader relies on without looking."""

import ast
import re
from collections.abc import Iterator

from tests.standards.sources import functions, product_files, tree

QUESTION = re.compile(r"(?:\w+\.)*(?:(?:is|has)(?:_\w+)?|(?:read|parse)_\w+|_\w+)")
"""Names that may answer with a boolean: questions, readers of a boolean on the wire, and the
private ones, which nobody outside their file can mistake."""

MAX_POSITIONAL_ARGUMENTS = 5

SAYS_WHETHER: dict[str, str] = {
    "broker/issuance/ports.py::OrderStore.change_challenge": "a change, and whether it was the one "
    "that made the order ready: known only inside the store's transaction",
    "broker/issuance/ports.py::CaStore.revoke_ca_certificate": "a change, and whether it was new",
    "broker/policy/yamlevents.py::_Scanner.check_token": "what ruamel.yaml calls it",
    "broker/storage/authority.py::Authority.revoke_ca_certificate": "implements the port",
    "broker/storage/orders.py::Orders.change_challenge": "implements the port",
}
"""``file::function`` → why an answer of yes or no is right although the name is no question."""


def returns_bool(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function is annotated to return a boolean."""
    return isinstance(function.returns, ast.Name) and function.returns.id == "bool"


def is_number(node: ast.expr | None) -> bool:
    """Tell whether an expression is a bare number or arithmetic on bare numbers."""
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    )


def is_duration(node: ast.expr | None) -> bool:
    """Tell whether an expression makes a length of time."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "timedelta"
    )


def undocumented_numbers(module: ast.Module) -> list[str]:
    """Return the number constants of a module that no docstring follows."""
    bare = []
    for statement, following in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            target: ast.expr = statement.target
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        else:
            continue
        explained = (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        )
        number = is_number(statement.value) or is_duration(statement.value)
        if number and isinstance(target, ast.Name) and not explained:
            bare.append(target.id)
    return bare


def in_product() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield each function of the product as ``file::function``."""
    for path in product_files():
        for name, function in functions(path):
            yield f"{path}::{name}", function


def test_only_questions_answer_yes_or_no() -> None:
    """A public function that returns a boolean is named ``is_`` or ``has_``."""
    wrong = {
        name
        for name, function in in_product()
        if returns_bool(function) and not QUESTION.fullmatch(name.partition("::")[2])
    }
    assert wrong == set(SAYS_WHETHER)


def test_verification_never_answers_with_a_boolean() -> None:
    """What is verified comes back as its proven type, or an exception says why not."""
    wrong = [
        name
        for name, function in in_product()
        if function.name.lstrip("_").startswith("verify") and returns_bool(function)
    ]
    assert wrong == []


def test_every_number_has_its_reason() -> None:
    """A constant that is a number or a duration is followed by its unit and reason."""
    bare = {str(path): undocumented_numbers(tree(path)) for path in product_files()}
    assert {path: names for path, names in bare.items() if names} == {}


def test_at_most_five_arguments_go_by_position() -> None:
    """Past five, a caller has to name what it passes."""
    wrong = [
        name
        for name, function in in_product()
        if len([a for a in function.args.args if a.arg not in {"self", "cls"}])
        + len(function.args.posonlyargs)
        > MAX_POSITIONAL_ARGUMENTS
    ]
    assert wrong == []


def test_a_number_without_its_reason_is_noticed() -> None:
    """The check itself tells an explained number from a bare one."""
    source = 'A: Final = 3 * 7\n"""In days."""\nB = timedelta(days=3)\nC: Final = 5\nD = "text"\n'
    assert undocumented_numbers(ast.parse(source)) == ["B", "C"]
