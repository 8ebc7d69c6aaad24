"""Which messages are to be answered, and which of those answers were never posted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "questions",
        sa.Column("message_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("why", sa.String(length=40), nullable=False),
        sa.Column("owed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_questions_message_id")),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_questions")),
    )
    op.create_index(op.f("ix_questions_owed"), "questions", ["owed"], unique=False)
    # Messages that were answered before this table existed are questions too, so that `again` finds them.
    op.execute(
        "INSERT INTO questions (message_id, why, owed) "
        "SELECT DISTINCT answers, 'before', 0 FROM messages WHERE from_bot AND answers IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_questions_owed"), table_name="questions")
    op.drop_table("questions")
