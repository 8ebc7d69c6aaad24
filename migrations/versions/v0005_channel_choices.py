"""More settings of a channel: when the bot answers, whom, and with which persona."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("channels") as table:
        table.add_column(sa.Column("answers", sa.String(length=10), nullable=True))
        table.add_column(sa.Column("cool_down", sa.Float(), nullable=True))
        table.add_column(sa.Column("ignored", sa.Text(), nullable=True))
        table.add_column(sa.Column("again_by", sa.String(length=10), nullable=True))
        table.add_column(sa.Column("reset_by", sa.String(length=10), nullable=True))
        table.add_column(sa.Column("persona", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("channels") as table:
        for name in ("persona", "reset_by", "again_by", "ignored", "cool_down", "answers"):
            table.drop_column(name)
