"""What is kept of members who were forgotten: keyed hashes of their ids, and of their names, which the bot avoids."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "forgotten",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("platform", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("everyday", sa.Boolean(), nullable=True),
        sa.Column("forgotten_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forgotten")),
        sa.UniqueConstraint("platform", "digest", name=op.f("uq_forgotten_platform_digest")),
    )


def downgrade() -> None:
    op.drop_table("forgotten")
