"""Who the bot is in a channel."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("channels", sa.Column("persona", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("channels", "persona")
