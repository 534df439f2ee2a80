"""The config inside a checkpoint, read as data.

It is Python text: names given literals, `dict(...)`, lists. A statement of any other kind is
refused.
"""

import ast
from typing import Any

#: Longer than a config with the names of 100,000 people; parsing takes up to 1 GB of memory.
MOST_CHARACTERS = 2_000_000


def read_config(text: str) -> dict[str, Any]:
    """What a config's text assigns, from literals and `dict(...)` alone.

    Raises:
        ValueError, SyntaxError: it is too long, more than data, or no Python.
        RecursionError, MemoryError: it is nested too deep for Python's parser.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it is {len(text)} characters long, and {MOST_CHARACTERS} are read")
    values: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = _literal(value)
            case _:
                raise ValueError(f"line {statement.lineno} is more than `name = value`")
    return values


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            pairs = {word.arg: _literal(word.value) for word in keywords}
            if None not in pairs:
                return pairs
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                _literal(key): _literal(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Constant() | ast.UnaryOp(operand=ast.Constant()) | ast.Set() | ast.BinOp():
            return ast.literal_eval(node)
    raise ValueError(f"line {node.lineno} holds {ast.unparse(node)[:80]!r}, which is no literal")
