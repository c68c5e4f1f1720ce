"""Migrations of a fleet's database, run by alembic."""
