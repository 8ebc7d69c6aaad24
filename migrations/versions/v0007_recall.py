"""A channel's setting for recalling what a member said there long ago."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("channels") as table:
        table.add_column(sa.Column("recall", sa.Boolean(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("channels") as table:
        table.drop_column("recall")
