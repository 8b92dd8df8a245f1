"""What becomes of a turn whose process died: nobody else will end it."""

import logging
from datetime import datetime

from agent_mcp.domain import Failure, PendingInput, SessionMeta, TurnRecord, now
from agent_mcp.errors import TurnInterrupted
from agent_mcp.settle import INTERRUPTED, settle
from agent_mcp.storage.store import Store

_NOT_RUN = "The tool was not run: it was not decided on, and then given up."

logger = logging.getLogger(__name__)


def interrupted(record: TurnRecord, *, kept: bool) -> TurnRecord:
    """The record of a turn that its process left unfinished."""
    after = (
        "What it had done is kept in the session, closed with a note"
        if kept
        else "Its prompt was withdrawn and the session is as it was before"
    )
    text = (
        f"The turn {record.turn_id} broke off before it was finished: its server stopped, or could not write its end. "
        f"{after}: ask again."
    )
    failure = Failure(code=TurnInterrupted.code, message=text)
    return record.model_copy(update={"status": "failed", "ended_at": now(), "failure": failure})


def _counted(meta: SessionMeta, *, turns: int, at: datetime) -> SessionMeta:
    return meta.model_copy(update={"turns": turns, "last_active_at": max(at, meta.last_active_at)})


def _life(meta: SessionMeta) -> dict[str, object]:
    """What a reply tells of the session after the turn."""
    return {"expires_at": meta.expires_at, "session_usage": meta.usage}


def refuse_pending(store: Store, record: TurnRecord, *, note: str) -> TurnRecord:
    """Ends a turn that waits for somebody's input: what was asked for is refused, the history closed with `note`.

    Blocking; the session's turn lock must be held.
    """
    meta = store.find_session(record.session_id)
    response = ""
    life: dict[str, object] = {}
    if meta is not None:
        history = store.history(meta)
        settle(history, note=note, tool_note=_NOT_RUN, saved=record.conversation)
        history.make_durable(since=record.first_message or 0)
        said = history.read(offset=min(record.first_message or 0, history.count()))
        response = said[-1].text if said else ""
        turns = len(history.prompts())
        after = store.change_session(record.session_id, lambda meta: _counted(meta, turns=turns, at=now()), sync=False)
        life = _life(after)
    update = {"status": "cancelled", "stop_reason": "cancelled", "ended_at": now(), "response": response}
    ended = record.model_copy(update={**update, **life})
    store.save_turn(ended, sync=True)
    return ended


def recover(store: Store, record: TurnRecord) -> TurnRecord:
    """Ends an open turn of a dead process, and settles its session. Blocking; its turn lock must be held.

    A turn that was killed after its last message was kept is completed; any other is interrupted, also one that was
    settled and no further. Returns the record as it is now.
    """
    meta = store.find_session(record.session_id)
    if meta is None or record.first_message is None or meta.last_turn != record.turn_id:
        ended = interrupted(record, kept=False)
    else:
        store.clear_begun(record.session_id)
        history = store.history(meta)
        finished = not settle(history, partial=store.find_partial(record.turn_id), saved=record.conversation)
        said = history.read(offset=min(record.first_message, history.count()))
        if said and finished and not said[-1].text.endswith(INTERRUPTED):
            history.make_durable(since=record.first_message)
            ended = record.model_copy(
                update={
                    "status": "completed",
                    "ended_at": now(),
                    "response": said[-1].text,
                    "stop_reason": "end_turn",
                }
            )
        else:
            ended = interrupted(record, kept=bool(said))
        # Also where nothing is counted: the index may have the prompt that was withdrawn, and would keep it.
        # A turn that nobody ended for days does not bring an expired session back to life. Whoever was killed in here
        # may have counted it already, so all are counted.
        turns = len(history.prompts()) if said else 0
        after = store.change_session(
            record.session_id,
            lambda meta: _counted(meta, turns=turns, at=record.created_at) if said else meta,
            sync=False,
        )
        if said:
            ended = ended.model_copy(update=_life(after))
    logger.info("turn %s, which was left open, is %s", record.turn_id, ended.status)
    store.save_turn(ended, sync=True)
    return ended


def recover_left(store: Store, record: TurnRecord) -> TurnRecord:
    """As `recover`, for a turn that may have ended meanwhile, which is left as it is."""
    return recover(store, record) if record.is_open else record


def refuse_left(store: Store, record: TurnRecord) -> TurnRecord:
    """As `refuse_pending`, for a turn that may have gone on or ended meanwhile, which is left as it is."""
    return refuse_pending(store, record, note=INTERRUPTED) if record.is_pending else record


def dismiss(store: Store, record: TurnRecord, *, question: PendingInput) -> TurnRecord:
    """Notes that a person saw what the turn waits for, and decided nothing."""
    seen = question.model_copy(update={"dismissed": True})
    pending = tuple(seen if item == question else item for item in record.pending)
    noted = record.model_copy(update={"pending": pending})
    store.save_turn(noted, sync=True)
    return noted
