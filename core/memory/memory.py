"""The bot's database: every query and every change. Raises StorageError, none of SQLAlchemy's errors.

Composed of seven parts over one store; each part has a file of its own, where its methods are documented.
"""

from sqlalchemy import Engine

from core.memory.channels import Channels
from core.memory.feedback import Feedback
from core.memory.forgotten import ForgottenMembers
from core.memory.members import Members
from core.memory.messages import Messages
from core.memory.queries import Queries
from core.memory.questions import Questions
from core.memory.store import Store


class Memory:
    """Open with `open_memory`. Safe to use from several threads; each call is one transaction, but for large
    deletions, which are many short ones."""

    def __init__(self, engine: Engine) -> None:
        store = Store(engine)
        self.close = store.close
        self.borrowed = store.borrowed
        self.compact = store.compact

        messages, queries, questions = Messages(store), Queries(store), Questions(store)
        feedback, members, channels = Feedback(store), Members(store), Channels(store)

        self.remember = messages.remember
        self.remember_opening = messages.remember_opening
        self.complete = messages.complete
        self.remember_reply = messages.remember_reply
        self.posted = messages.posted
        self.reset = messages.reset
        self.edit = messages.edit
        self.edit_message = messages.edit_message
        self.remove = messages.remove
        self.remove_place = messages.remove_place

        self.window = queries.window
        self.chain = queries.chain
        self.root = queries.root
        self.knows_opening = queries.knows_opening
        self.exchanges_before = queries.exchanges_before
        self.said = queries.said
        self.reply_of = queries.reply_of
        self.details = queries.details
        self.answers = queries.answers
        self.in_thread = queries.in_thread
        self.everything = queries.everything

        self.feedback = feedback.feedback
        self.feedback_counts = feedback.feedback_counts
        self.judgements = feedback.judgements
        self.judged = feedback.judged
        self.judged_questions = feedback.judged_questions
        self.questions = feedback.questions

        self.consent = members.consent
        self.consented = members.consented
        self.consented_since = members.consented_since
        self.set_consent = members.set_consent
        self.find_members = members.find_members
        self.forget = members.forget
        self.export = members.export

        forgotten = ForgottenMembers(store)
        self.keep_forgotten = forgotten.keep_forgotten
        self.forgotten_names = forgotten.forgotten_names
        self.forgotten_members = forgotten.forgotten_members
        self.names_of = forgotten.names_of
        self.author_names = forgotten.author_names
        self.texts_with = forgotten.texts_with

        self.channel_settings = channels.channel_settings
        self.change_settings = channels.change_settings
        self.move_channel = channels.move_channel
        self.purge = channels.purge
        self.purge_channels = channels.purge_channels
        self.retentions = channels.retentions

        self.ask = questions.ask
        self.settle = questions.settle
        self.newest_row = questions.newest_row
        self.unanswered = questions.unanswered
        self.take_on = questions.take_on
        self.question_of = questions.question_of
        self.newest_question = questions.newest_question
        self.live_reply = questions.live_reply
        self.withdraw = questions.withdraw
