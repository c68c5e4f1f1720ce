"""Run by alembic for each migration: the connection and its transaction come from `admission.initialise`."""

from alembic import context

from vlamem.memory.success.store.fleet.tables import SCHEMA

context.configure(
    connection=context.config.attributes["connection"], version_table="schema_version", version_table_schema=SCHEMA
)
context.run_migrations()
