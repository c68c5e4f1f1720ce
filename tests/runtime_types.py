"""The type checker of jaxtyping's import hook: beartype, and shapes and dtypes of what is annotated with them."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# jaxtyping decorates method by method, and beartype knows Self within a class that it decorates as a whole alone
checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))
