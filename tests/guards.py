"""Takes out each guard in turn, and shows that a named test fails without it.

    python tests/guards.py              all guards, two at a time
    python tests/guards.py lock fsync   those whose name contains one of the words
    python tests/guards.py --list       only their names

A guard is a piece of the source on which something depends that must always be true: a lock, a check, a sync. A row
of `GUARDS` says where it stands, what becomes of it, and which test must fail then. The script copies the tree, applies
one row to the copy and runs the test there:

    guarded       the test passes with the guard and fails without it
    NOT guarded   the test passes without the guard: nobody would notice if it were lost
    broken        the test does not pass as things are, or does not run at all with the guard taken out

To add a row, copy the exact text from the source, enough of it that it occurs once in its file, and write in `new` what
is to stand there instead: still Python, and wrong in just the one way. `test_guards.py` sees to it that every row still
fits the source and names a test that there is, so whoever changes a guard's text changes its row too.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_SECONDS = 180
"""How long one test may take. Without a guard it may hang, which counts as failed."""
_AT_ONCE = 2


@dataclass(frozen=True)
class Guard:
    """A guard: in `file` (below src/agent_mcp) `old`, which occurs there once, becomes `new`; then `test` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str

    @property
    def source(self) -> Path:
        return Path("src", "agent_mcp", self.file)

    def taken_out(self, text: str) -> str:
        """The file's text without the guard; raises ValueError where the row fits no more."""
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its text occurs {found} times in {self.file}, not once")
        return text.replace(self.old, self.new)


_FULL = "test_proof_full.py::test_whatever_write_of_a_turn_is_refused_what_was_there_is_kept_and_the_next_ask_works"

GUARDS = (
    # One turn at a time
    Guard(
        "the lock between processes",
        "turns.py",
        "            await place.front()\n            await lock.acquire()\n\n        try:",
        "            await place.front()\n\n        try:",
        "test_processes.py::test_two_processes_take_turns_in_one_session",
    ),
    Guard(
        "the queue in a process",
        "turns.py",
        "            await place.front()\n            await lock.acquire()\n\n        try:",
        "            await lock.acquire()\n\n        try:",
        "test_turns.py::test_pipelined_asks_of_one_session_take_turns_in_order_of_arrival",
    ),
    Guard(
        "the queue's length",
        "turn_queue.py",
        "if len(places) > LONGEST:",
        "if False:",
        "test_turns.py::test_the_thirty_third_ask_that_would_wait_is_refused_and_leaves_nothing",
    ),
    # Settled before and after
    Guard(
        "settling at a turn's end",
        "turn_steps.py",
        "        settle(history, note=outcome.note, partial=partial, saved=record.conversation)\n",
        "        pass\n",
        "test_cancel.py::test_a_turn_cancelled_in_its_text_keeps_it_with_a_note",
    ),
    Guard(
        "the turn of a killed process is completed where all of it was kept",
        "recovery.py",
        "if said and finished and not said[-1].text.endswith(INTERRUPTED):",
        "if False:",
        "test_processes.py::test_a_turn_whose_server_died_after_its_last_message_was_kept_is_completed",
    ),
    Guard(
        "results for uses of tools that have none",
        "settle.py",
        "if calls := _tool_uses(end):",
        "if calls := list[str]():",
        "test_settle.py::test_a_settled_history_is_valid_final_and_keeps_every_whole_turn",
    ),
    Guard(
        "a state that counts too many messages as removed",
        "settle.py",
        "return max(removed) < count or not any(removed)",
        "return True",
        "test_settle.py::test_whatever_a_state_counts_as_removed_the_next_message_gets_the_next_number",
    ),
    # Damage
    Guard(
        "a lost message in the middle",
        "storage/history.py",
        "            if index not in known:\n                raise damaged(self.session_id, self._message(index))\n",
        "            pass\n",
        "test_history_damage.py::test_a_lost_message_in_the_middle_is_named_and_not_written_over",
    ),
    Guard(
        "messages without their agent's file",
        "storage/history.py",
        "if known and not self._agent_file.is_file():",
        "if False:",
        "test_history_damage.py::test_a_damaged_file_is_named_and_nothing_is_overwritten[agent.json-missing]",
    ),
    Guard(
        "a link in a message's place",
        "storage/fenced.py",
        "if path.is_symlink():",
        "if False:",
        "test_history_damage.py::test_a_damaged_file_is_named_and_nothing_is_overwritten[message_1.json-a link]",
    ),
    Guard(
        "a message that is JSON and no message",
        "storage/fenced.py",
        '    for block in message["content"]:\n        block.keys()\n',
        "",
        "test_repair.py::test_a_repaired_session_goes_on_and_what_was_damaged_is_kept[message_1.json-content no list]",
    ),
    Guard(
        "what is damaged is set aside",
        "storage/repair.py",
        "        os.rename(path, to)\n",
        "        os.unlink(path) if path.is_file() else os.rename(path, to)\n",
        "test_repair.py::test_a_repaired_session_goes_on_and_what_was_damaged_is_kept[message_1.json-cut in half]",
    ),
    Guard(
        "something else in a session's place",
        "storage/session_files.py",
        "if directory.is_symlink() or not directory.is_dir():\n            raise damaged(session_id, directory)",
        "if False:\n            raise damaged(session_id, directory)",
        "test_repair.py::test_what_stands_in_a_sessions_place_is_listed_as_damaged_and_set_aside",
    ),
    # Durable
    Guard(
        "messages are synced",
        "storage/history.py",
        "        durable.sync_files([*(self._message(i) for i in range(since, self.count())), self._agent_file])\n",
        "",
        "test_durable.py::test_files_and_directories_are_synced_before_the_reply_is_written",
    ),
    Guard(
        "the directories of messages are synced",
        "storage/history.py",
        "            durable.sync_directory(directory)\n",
        "            pass\n",
        "test_durable.py::test_files_and_directories_are_synced_before_the_reply_is_written",
    ),
    Guard(
        "the record of a turn that ended is synced",
        "turn_steps.py",
        "    store.save_turn(record, sync=True)\n    store.change_session(record.session_id, change, sync=False)\n",
        "    store.save_turn(record, sync=False)\n    store.change_session(record.session_id, change, sync=False)\n",
        "test_durable.py::test_files_and_directories_are_synced_before_the_reply_is_written",
    ),
    # Full and forbidden
    Guard(
        "a turn that broke off behind its last message is kept",
        "turn_steps.py",
        '            if record.status == "completed":\n                return record\n',
        "            pass\n",
        f"{_FULL}[a turn with a tool-once]",
    ),
    Guard(
        "the end of a turn is written once it can be",
        "turns.py",
        "                self._unkept.add(admitted, lambda store, record: end_unbegun(admitted, error))\n",
        "                pass\n",
        f"{_FULL}[a turn with a tool-from there on]",
    ),
    Guard(
        "a turn that was settled and no further is not completed",
        "recovery.py",
        " and not said[-1].text.endswith(INTERRUPTED)",
        "",
        f"{_FULL}[a turn that is cancelled in a tool-once]",
    ),
    Guard(
        "what the system refuses of a conversation is a storage_error",
        "storage/fenced.py",
        "    except OSError as error:\n",
        "    except ZeroDivisionError as error:\n",
        f"{_FULL}[a turn with a tool-once]",
    ),
    # Killed
    Guard(
        "settling before a turn",
        "turn_steps.py",
        "    if left is not None and left.is_open:\n        recover(store, left)\n",
        "    if False:\n        pass\n",
        "test_proof_kills.py::"
        "test_killed_in_any_phase_every_answered_turn_is_kept_once_and_the_next_ask_succeeds"
        "[between the last message and the metadata]",
    ),
    # Together
    Guard(
        "files that others have just finished",
        "storage/durable.py",
        "with suppress(FileNotFoundError):  # Another process that lives has just finished this one.",
        "with suppress(ZeroDivisionError):",
        "test_storage_races.py::test_what_others_have_just_finished_writing_does_not_keep_a_server_from_beginning",
    ),
    Guard(
        "deleting a session ends its turns first",
        "turns.py",
        "                    await place.front()\n                    await lock.acquire()\n",
        "                    pass\n",
        "test_session_life.py::test_deleting_a_session_cancels_what_runs_and_waits_in_it_first",
    ),
    # Deleted (no agent is kept between turns: this is what stands for its eviction)
    Guard(
        "the record of a turn goes with its session",
        "storage/store.py",
        "            for turn_id in turns:\n                self._turns.remove(turn_id)\n",
        "            pass\n",
        "test_session_life.py::test_a_deleted_session_leaves_nothing_behind",
    ),
    Guard(
        "no lock of a deleted session is left",
        "turns.py",
        "            await self._loop.in_thread(store.clear_session_lock, session_id)\n",
        "",
        "test_proof_deletion.py::test_a_session_that_two_processes_ask_in_is_deleted_by_a_third",
    ),
    # Bounded
    Guard(
        "old records of turns are removed at the start",
        "storage/store.py",
        "            removed = self._turns.remove_old()\n",
        "            removed: list[TurnId] = []\n",
        "test_bounded.py::test_a_turns_record_is_gone_after_seven_days_and_what_was_said_is_not",
    ),
    Guard(
        "old records of turns are removed while a server runs",
        "storage/upkeep.py",
        "                    self._clear_turns()\n",
        "                    pass\n",
        "test_bounded.py::test_a_server_that_runs_for_long_removes_old_records_too",
    ),
    Guard(
        "streams of notices are counted",
        "server/notices.py",
        "ListenHandler(self._bus, max_subscriptions=_MOST_LISTENERS,",
        "ListenHandler(self._bus, max_subscriptions=10**6,",
        "test_bounded.py::test_only_so_many_streams_of_notices_are_kept_at_once",
    ),
    Guard(
        "connections that are told of changes are counted",
        "server/notices.py",
        "and len(self._connections) >= _MOST_LISTENERS:",
        "and False:",
        "test_bounded.py::test_only_so_many_connections_of_the_older_revisions_are_told_at_once",
    ),
    Guard(
        "what waits for a follower is bounded",
        "events.py",
        "deque(maxlen=_MOST_EVENTS)",
        "deque()",
        "test_bounded.py::test_what_waits_for_a_follower_that_is_slow_is_the_latest_and_no_more",
    ),
    # What leaves the process
    Guard(
        "traces leave what was said out",
        "trace_export.py",
        "super().add_span_processor(WithoutContents(span_processor))",
        "super().add_span_processor(span_processor)",
        "test_traces.py::test_a_turn_over_http_is_traced_without_what_was_said_or_searched",
    ),
    Guard(
        "of a trace only what is listed leaves",
        "trace_export.py",
        "return name in _NAMES and _NAME.fullmatch(value) is not None",
        "return True",
        "test_traces.py::test_a_turn_over_http_is_traced_without_what_was_said_or_searched",
    ),
    Guard(
        "the web framework's own traces are off",
        "http/app.py",
        '        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},\n',
        "",
        "test_traces.py::test_a_turn_over_http_is_traced_without_what_was_said_or_searched",
    ),
    Guard(
        "traces have only a moment at the end",
        "traces.py",
        "ending.join(_STOP_SECONDS)",
        "ending.join()",
        "test_traces.py::test_a_collector_that_does_not_answer_holds_nothing_up[hanging]",
    ),
    Guard(
        "metrics need the scope",
        "http/metrics.py",
        "if SCOPE not in request.user.scopes:",
        "if False:",
        "test_metrics.py::test_with_tokens_this_machine_reads_and_others_need_the_scope",
    ),
    Guard(
        "what a proxy hands on is not this machine's",
        "http/metrics.py",
        "        and not any(name in request.headers for name in _FORWARDED)\n",
        "",
        "test_metrics.py::test_where_nobody_authenticates_only_this_machine_reads",
    ),
    Guard(
        "metrics are for this machine",
        "http/metrics.py",
        "        and is_loopback(request.client.host)\n",
        "",
        "test_metrics.py::test_a_peer_on_another_machine_is_not_this_one_whatever_it_names",
    ),
    Guard(
        "where the data lie is not told",
        "storage/failures.py",
        "The server's data directory can't be used",
        "The server's data directory {root} can't be used",
        "test_where_it_is.py::test_what_is_refused_for_the_disk_names_no_place_over_http_and_the_log_does",
    ),
    Guard(
        "the data directory is closed to other users",
        "storage/locks.py",
        "for directory in (self._directory.parent, self._directory):",
        "for directory in (self._directory,):",
        "test_where_it_is.py::test_what_is_kept_can_be_read_by_the_servers_user_only",
    ),
)


def copied(to: Path) -> Path:
    """A copy of what the tests need of the tree."""
    for name in ("src", "tests", "docs", "sessions"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, to / path.name)
    return to


def run(tree: Path, tests: Sequence[str]) -> int:
    """Pytest's exit code for some tests of a tree, whatever marker they carry; 1 where they take too long."""
    paths = os.pathsep.join(filter(None, [str(tree / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        done = subprocess.run(
            [*command, f"--timeout={_SECONDS}", *(f"tests/{test}" for test in tests)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS * max(2, len(tests)),
        )
    except subprocess.TimeoutExpired:
        return 1
    return done.returncode


def judge(guard: Guard) -> str:
    """What becomes of the guard's test without the guard."""
    with tempfile.TemporaryDirectory() as directory:
        tree = copied(Path(directory))
        path = tree / guard.source
        try:
            path.write_text(guard.taken_out(path.read_text(encoding="utf-8")), encoding="utf-8")
        except (OSError, ValueError) as error:
            return f"broken ({error})"
        code = run(tree, [guard.test])
    return {0: "NOT guarded", 1: "guarded"}.get(code, f"broken (pytest ended with {code})")


def broken_as_it_is(guards: Iterable[Guard]) -> set[str]:
    """The tests that don't pass although nothing was taken out."""
    tests = sorted({guard.test for guard in guards})
    with tempfile.TemporaryDirectory() as directory:
        tree = copied(Path(directory))
        if run(tree, tests) == 0:
            return set()
        return {test for test in tests if run(tree, [test]) != 0}


def main() -> int:
    parser = argparse.ArgumentParser(description="Take out each guard and see a test fail.")
    parser.add_argument("words", nargs="*", help="only guards whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="only list the guards")
    given = parser.parse_args()
    chosen = [guard for guard in GUARDS if not given.words or any(word in guard.name for word in given.words)]
    if given.list:
        print("\n".join(f"{guard.name}: {guard.test}" for guard in chosen))
        return 0
    unsound = broken_as_it_is(chosen)

    def verdict_of(guard: Guard) -> str:
        return judge(guard) if guard.test not in unsound else "broken (it fails as things are)"

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(verdict_of, chosen)
        verdicts: list[str] = []
        for guard, verdict in zip(chosen, found, strict=True):
            verdicts.append(verdict)
            print(f"{verdict:12}  {guard.name}  ({guard.test})", flush=True)
    guarded = verdicts.count("guarded")
    print(f"{guarded} of {len(verdicts)} guarded")
    return 0 if guarded == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
