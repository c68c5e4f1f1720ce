"""The type checker of jaxtyping's import hook: beartype, and shapes and dtypes of what is annotated with them."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates method by method, and beartype knows Self within a class that it decorates as a whole alone
# PEP 484: an int will do for a float
checked = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object})))
