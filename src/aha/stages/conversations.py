"""Conversations of the user's own, to fine-tune on."""

from __future__ import annotations

from typing import ClassVar

from aha.configuration import Config, Field
from aha.data.conversations import Conversation, write_conversations
from aha.data.rows import Place, Row, text_of
from aha.data.sources import Reading, Source, read_source, source_identity
from aha.errors import ConfigError
from aha.files import write_json
from aha.stages.problems import AUDIT
from aha.stages.sft import EXAMPLES
from aha.training.stage import StageContext, StageResult


class ConversationsConfig(Config):
    """Where they come from."""

    source: Source = Field(
        description="rows with `messages` (role, content, reasoning_content), or with `question`, `answer` and perhaps "
        "`reasoning`"
    )

    def data_identity(self) -> str:
        """Of the rows."""
        return source_identity(self.source)


class OwnConversations:
    """The stage: reads a source and writes `examples.jsonl` and `audit.json`."""

    kind: ClassVar[str] = "conversations"

    def run(self, context: StageContext[ConversationsConfig]) -> StageResult:
        """Streams the rows through."""
        config = context.config
        audit = {}
        if context.distributed.is_first:
            reading = Reading()
            read = read_source(config.source, conversation_of, reading)
            kept = write_conversations(context.folder / EXAMPLES, read)
            audit = {"rows": reading.rows, "bad_rows": reading.bad, "complaints": reading.complaints, "kept": kept}
            write_json(context.folder / AUDIT, audit)
            for complaint in reading.complaints:
                context.progress.notify(f"{context.name}: skipped {complaint}")
            context.progress.notify(f"{context.name}: {kept} conversations")
        return StageResult(context.distributed.broadcast_object(audit))


def conversation_of(row: Row, place: Place) -> Conversation:
    """A row as a conversation.

    Raises:
        ConfigError: it is neither a list of messages nor a question with its answer.
    """
    if "messages" in row:
        try:
            return Conversation.from_json({"messages": row["messages"]})
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error
    reasoning = row.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, str):
        raise ConfigError(f"{place}: 'reasoning' must be a text")
    return Conversation.of(
        text_of(row, place, "question", "prompt"), text_of(row, place, "answer", "response", "completion"), reasoning
    )
