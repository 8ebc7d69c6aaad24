"""Row numbers are never reused; indexes to find members by name and a conversation's old messages by time.

SQLite gives the number of a deleted row to the next one unless the key is AUTOINCREMENT
(https://sqlite.org/autoinc.html), so an answer to a message deleted meanwhile could be stored as an answer to somebody
else's. PostgreSQL's sequences never did that.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("conversations", "messages")
"""Tables whose row numbers other tables, or an answer being composed, refer to."""


def upgrade() -> None:
    op.drop_index(op.f("ix_messages_platform_author"), table_name="messages")
    if op.get_bind().dialect.name == "sqlite":
        for table in TABLES:
            with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": True}):
                pass
    op.create_index(op.f("ix_messages_author_platform"), "messages", ["author", "platform"], unique=False)
    op.create_index(op.f("ix_messages_author_name"), "messages", ["author_name"], unique=False)
    op.create_index(
        op.f("ix_messages_conversation_id_sent_at"), "messages", ["conversation_id", "sent_at"], unique=False
    )
    op.create_index(op.f("ix_feedback_member_platform"), "feedback", ["member", "platform"], unique=False)
    op.create_index(op.f("ix_members_member"), "members", ["member"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_members_member"), table_name="members")
    op.drop_index(op.f("ix_feedback_member_platform"), table_name="feedback")
    op.drop_index(op.f("ix_messages_conversation_id_sent_at"), table_name="messages")
    op.drop_index(op.f("ix_messages_author_name"), table_name="messages")
    op.drop_index(op.f("ix_messages_author_platform"), table_name="messages")
    if op.get_bind().dialect.name == "sqlite":
        for table in TABLES:
            with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": False}):
                pass
    op.create_index(op.f("ix_messages_platform_author"), "messages", ["platform", "author"], unique=False)
