"""One module a version of the schema, each with the one before it."""
