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
_PAGE = (
    "test_told_by_a_page.py::"
    "test_what_a_page_tells_the_model_to_read_is_read_from_the_public_web_and_the_operators_files_only"
)

OF_DOORS = (
    # Whose it is: each subject has a store of its own
    Guard(
        "a subject's own directory",
        "storage/subjects.py",
        "hashlib.sha256(subject.encode()).hexdigest()[:32]",
        '"everybody"',
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "no name of a subject is a path",
        "storage/subjects.py",
        "hashlib.sha256(subject.encode()).hexdigest()[:32]",
        "subject",
        "test_subjects.py::test_a_subject_lies_in_a_directory_that_no_name_can_choose",
    ),
    Guard(
        "a subject's own store",
        "service/stores.py",
        "settings.data_dir, subject, process=self._process",
        'settings.data_dir, "local", process=self._process',
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "who makes a call of REST",
        "http/callers.py",
        '    return cast("Caller", connection.scope[_KEY])',
        '    return cast("Caller", Caller(subject=LOCAL_SUBJECT))',
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "who makes a request of MCP over HTTP",
        "http/app.py",
        "    return await caller_of(ctx.request)",
        '    return Caller(subject="local")',
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who calls a tool",
        "server/app.py",
        "        caller = await caller_of(ctx)\n        call = Call(",
        "        caller = await local_caller(ctx)\n        call = Call(",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who lists resources",
        "server/app.py",
        "resources.list_resources(await caller_of(ctx)",
        "resources.list_resources(await local_caller(ctx)",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who reads a resource",
        "server/app.py",
        "resources.read(await caller_of(ctx)",
        "resources.read(await local_caller(ctx)",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who gets a prompt",
        "server/app.py",
        "prompts.get(await caller_of(ctx)",
        "prompts.get(await local_caller(ctx)",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who completes an id",
        "server/app.py",
        "completions.complete(await caller_of(ctx)",
        "completions.complete(await local_caller(ctx)",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "who looks after a task",
        "server/tasks.py",
        "                caller = await caller_of(ctx)\n",
        '                caller = Caller(subject="local")\n',
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2026-07-28]",
    ),
    Guard(
        "who listens",
        "server/notices.py",
        "self._watch(await self._caller_of(ctx)) as watch",
        'self._watch(Caller(subject="local")) as watch',
        "test_isolation.py::test_nobody_is_told_of_what_is_anothers[2026-07-28]",
    ),
    Guard(
        "who is told unasked",
        "server/notices.py",
        "        caller = await self._caller_of(ctx)\n",
        '        caller = Caller(subject="local")\n',
        "test_isolation.py::test_nobody_is_told_of_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "a subject's own watch, for streams",
        "server/notices.py",
        "return caller.subject, caller.actors",
        'return "", None',
        "test_isolation.py::test_nobody_is_told_of_what_is_anothers[2026-07-28]",
    ),
    Guard(
        "a subject's own watch, for connections",
        "server/notices.py",
        "return caller.subject, caller.actors",
        'return "", None',
        "test_isolation.py::test_nobody_is_told_of_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "actors of one subject share no watch",
        "server/notices.py",
        "return caller.subject, caller.actors",
        "return caller.subject, None",
        "test_isolation.py::test_an_actor_is_not_told_of_another_actors_session[2026-07-28]",
    ),
    Guard(
        "an actor hears of its own sessions alone",
        "service/change_cases.py",
        "tuple(uri for uri in uris if _may_hear(caller, store, uri))",
        "tuple(uris)",
        "test_isolation.py::test_an_actor_is_not_told_of_another_actors_session[2025-11-25]",
    ),
    Guard(
        "a token file stays its owner's",
        "token_file.py",
        "os.chown(path, owner.st_uid, owner.st_gid)",
        "pass",
        "test_who_calls.py::test_what_root_writes_stays_the_servers_users",
    ),
    Guard(
        "what a tool gives fits into a history",
        "contained.py",
        'event.tool_result["content"] = bounded(event.tool_result["content"])',
        "pass",
        "test_sandboxes.py::test_more_than_a_history_holds_is_cut_and_the_turn_goes_on",
    ),
    Guard(
        "notebooks are bounded together",
        "toolbox/notebooks.py",
        "size > max(MOST_BYTES, _size(before))",
        "size < 0",
        "test_read_files.py::test_the_notebooks_of_a_session_are_bounded_together",
    ),
    Guard(
        "a cancel of a request of the subject's own",
        "server/cancels.py",
        "return (caller.subject, connection,",
        'return ("", connection,',
        "test_isolation.py::test_where_no_connections_are_kept_nobody_cancels_anothers_request_by_its_number",
    ),
    Guard(
        "a connection of the one who began it",
        "http/identify.py",
        '        connection.scope["user"] = AuthenticatedUser(access)\n',
        "",
        "test_isolation.py::test_a_connection_belongs_to_whoever_began_it",
    ),
    Guard(
        "a key of the subject's own",
        "ids.py",
        '"\\0".join((subject, actor_id, key))',
        '"\\0".join((actor_id, key))',
        "test_isolation.py::test_two_subjects_use_the_same_key_for_the_same_actor_and_do_not_meet",
    ),
    Guard(
        "a key of the actor's own",
        "ids.py",
        '"\\0".join((subject, actor_id, key))',
        '"\\0".join((subject, key))',
        "test_idempotency.py::test_another_actor_has_keys_of_their_own",
    ),
    Guard(
        "a subject's own queues",
        "turns.py",
        "self._queues.join((ask.subject, ask.session_id))",
        'self._queues.join(("", ask.session_id))',
        "test_isolation.py::test_what_runs_in_a_session_of_another_subject_with_the_same_id_is_not_waited_for_nor_ended",
    ),
    Guard(
        "a subject's own memory",
        "memory/room.py",
        "self._opened.pop(subject, None) or",
        "next(iter(self._opened.values()), None) or",
        "test_isolation.py::test_two_subjects_use_the_same_key_for_the_same_actor_and_do_not_meet",
    ),
    Guard(
        "a memory that is opened once",
        "memory/room.py",
        "self._opened.pop(subject, None) or",
        "",
        "test_subjects.py::test_a_subjects_memory_is_opened_once_whoever_of_it_asks",
    ),
    Guard(
        "a memory's queue in sight of the whole subject",
        "memory/worker.py",
        "self._run(store.whole, subject)",
        "self._run(store, subject)",
        "test_subjects.py::test_a_turn_teaches_its_actor_though_what_another_actor_said_is_being_learnt",
    ),
    Guard(
        "a subject's own folders on another machine",
        "compose.py",
        'session=f"{store.subject}/{session_id}"',
        "session=session_id",
        "test_subjects.py::test_own_ids_of_two_subjects_do_not_meet_on_the_machine_where_code_runs",
    ),
    # Within a subject: for whom a caller may act
    Guard(
        "actors that a caller may act for",
        "domain.py",
        "if requested is not None and not self.may_act_for(requested):",
        "if False:",
        "test_who_calls.py::test_a_token_acts_for_its_subject_and_for_whom_its_patterns_cover",
    ),
    Guard(
        "a store as its caller may see it",
        "storage/store.py",
        "        view._caller = caller\n",
        "",
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "sessions of other actors",
        "storage/store.py",
        "return meta if meta is None or self._shows(meta.actor_id) else None",
        "return meta",
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "turns of other actors",
        "storage/store.py",
        "return record if record is None or self._shows(record.actor_id) else None",
        "return record",
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "sessions of other actors in lists",
        "storage/store.py",
        "actors=self._caller.actors if self._caller is not None else None",
        "actors=None",
        "test_isolation.py::test_no_request_shows_or_changes_what_is_anothers[2025-11-25]",
    ),
    Guard(
        "sessions of other actors that are to be deleted",
        "storage/store.py",
        "        if self._caller is not None:\n            return self.find_session(session_id) is not None\n",
        "",
        "test_isolation.py::test_no_call_shows_or_changes_what_is_anothers",
    ),
    Guard(
        "damaged sessions, whose actor can't be told",
        "storage/store.py",
        "                if self._caller is not None:\n                    return None  # Whose it is can't be told.\n",
        "",
        "test_subjects.py::test_a_damaged_session_is_there_only_for_who_may_act_for_all",
    ),
    Guard(
        "a subject's MCP servers when an agent is made",
        "toolbox/mcp_servers.py",
        "(slash and not tool) or not (subject is None or server.entry.serves(subject)):",
        "(slash and not tool):",
        "test_mcp_servers.py::test_names_are_checked_when_an_agent_is_made",
    ),
    Guard(
        "a subject's MCP servers when an agent is used",
        "toolbox/__init__.py",
        "return self._servers.find(name, subject) is not None",
        "return self._servers.find(name, None) is not None",
        "test_mcp_servers.py::test_another_subjects_server_is_not_given_even_to_a_definition_that_names_it",
    ),
    # Who is let in
    Guard(
        "hosts",
        "http/access.py",
        "(hosts is None or _fits(host, hosts)) and",
        "",
        "test_rest.py::test_a_page_that_a_browser_has_open_reaches_nothing",
    ),
    Guard(
        "origins",
        "http/access.py",
        " and (origin is None or _fits(origin, self._allowed.origins))",
        "",
        "test_rest.py::test_a_page_that_a_browser_has_open_reaches_nothing",
    ),
    Guard(
        "an address that others reach",
        "letting_in.py",
        "if not loopback and not authenticates(settings) and not settings.trust_platform:",
        "if False:",
        "test_who_calls.py::test_an_address_that_others_reach_needs_somebody_who_authenticates[0.0.0.0]",
    ),
    Guard(
        "an audience for an issuer's tokens",
        "letting_in.py",
        "if settings.oauth_issuer is not None and not settings.oauth_audience:",
        "if False:",
        "test_who_calls.py::test_an_address_that_others_reach_needs_somebody_who_authenticates[0.0.0.0]",
    ),
    Guard(
        "a token's secret",
        "token_file.py",
        "if hmac.compare_digest(token.sha256, digest):",
        "if True:",
        "test_who_calls.py::test_without_a_token_only_health_and_the_document_of_the_calls_are_seen",
    ),
    Guard(
        "a token file that changed",
        "token_file.py",
        "if seen != self._seen:",
        "if self._seen is None:",
        "test_who_calls.py::test_a_revoked_token_ends_with_the_next_request",
    ),
    Guard(
        "a token file that can't be read",
        "token_file.py",
        "                    self._tokens = ()\n",
        "",
        "test_who_calls.py::test_a_token_file_that_cannot_be_read_lets_nobody_in_and_says_so",
    ),
    Guard(
        "an issuer's audience",
        "oauth.py",
        'options={"require": ["exp", "iss", "aud", "sub"]},',
        'options={"require": ["exp", "iss", "aud", "sub"], "verify_aud": False},',
        "test_who_calls.py::test_a_token_that_is_not_right_in_every_point_is_refused",
    ),
    Guard(
        "an issuer's name in its tokens",
        "oauth.py",
        'options={"require": ["exp", "iss", "aud", "sub"]},',
        'options={"require": ["exp", "iss", "aud", "sub"], "verify_iss": False},',
        "test_who_calls.py::test_a_token_that_is_not_right_in_every_point_is_refused",
    ),
    Guard(
        "the end of an issuer's tokens",
        "oauth.py",
        'options={"require": ["exp", "iss", "aud", "sub"]},',
        'options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False},',
        "test_who_calls.py::test_a_token_that_is_not_right_in_every_point_is_refused",
    ),
    Guard(
        "what an issuer's tokens must say",
        "oauth.py",
        'options={"require": ["exp", "iss", "aud", "sub"]},',
        "options={},",
        "test_who_calls.py::test_a_token_that_is_not_right_in_every_point_is_refused",
    ),
    Guard(
        "an issuer's signature",
        "oauth.py",
        'options={"require": ["exp", "iss", "aud", "sub"]},',
        'options={"verify_signature": False, "verify_aud": True, "verify_iss": True, "verify_exp": True},',
        "test_who_calls.py::test_a_token_that_is_not_right_in_every_point_is_refused",
    ),
    Guard(
        "an issuer's own metadata",
        "oauth.py",
        'if metadata.get("issuer") != self.issuer:',
        "if False:",
        "test_who_calls.py::test_keys_are_taken_only_from_where_the_issuer_itself_says_that_they_are[another issuer]",
    ),
    Guard(
        "an issuer's keys by a safe way",
        "oauth.py",
        'if parts.scheme != "https" and not (parts.scheme == "http" and local):',
        "if False:",
        "test_who_calls.py::test_keys_are_taken_only_from_where_the_issuer_itself_says_that_they_are[keys over http]",
    ),
    Guard(
        "an issuer's keys without a detour",
        "oauth.py",
        "follow_redirects=False",
        "follow_redirects=True",
        "test_who_calls.py::test_keys_are_taken_only_from_where_the_issuer_itself_says_that_they_are[moved keys]",
    ),
    Guard(
        "an issuer that is asked no more than it needs",
        "oauth.py",
        "now - self._tried > _RETRY_SECONDS",
        "True",
        "test_who_calls.py::test_unknown_keys_do_not_make_the_issuer_be_asked_again_and_again",
    ),
    Guard(
        "users of an issuer, and of the token file",
        "oauth.py",
        'subject=f"{self.issuer}#{self.sub}"',
        "subject=self.sub",
        "test_who_calls.py::test_an_issuers_user_is_nobody_of_the_token_file_though_both_have_one_name",
    ),
    # How much
    Guard(
        "requests that say how long they are",
        "http/access.py",
        "if told.isascii() and told.isdigit() and int(told) > self._longest:",
        "if False:",
        "test_who_calls.py::test_a_body_without_end_is_not_read_to_its_end",
    ),
    Guard(
        "requests that do not say how long they are",
        "http/access.py",
        "            if taken > self._longest:\n",
        "            if False:\n",
        "test_who_calls.py::test_a_body_without_end_is_not_read_to_its_end",
    ),
    Guard(
        "requests a minute",
        "http/identify.py",
        "        self._rate.take(identity.caller.subject, now=time.monotonic())\n",
        "",
        "test_who_calls.py::test_a_subject_that_asks_too_often_is_told_when_to_come_back",
    ),
    Guard(
        "requests a minute of each subject",
        "http/identify.py",
        "self._rate.take(identity.caller.subject,",
        'self._rate.take("",',
        "test_who_calls.py::test_a_subject_that_asks_too_often_is_told_when_to_come_back",
    ),
    Guard(
        "turns at once",
        "service/turn_cases.py",
        "if terms is None and 0 < caller.max_turns <= theirs:",
        "if False:",
        "test_rest_turns.py::test_more_turns_at_once_than_a_subject_may_have_wait_for_nothing_and_are_told_when_to_come_back",
    ),
    Guard(
        "turns at once over HTTP",
        "http/identify.py",
        "return replace(identity.caller, max_turns=self._turns)",
        "return identity.caller",
        "test_rest_turns.py::test_more_turns_at_once_than_a_subject_may_have_wait_for_nothing_and_are_told_when_to_come_back",
    ),
    Guard(
        "turns at once of each subject",
        "service/turn_cases.py",
        "sum(turn.subject == caller.subject for turn",
        "sum(True for turn",
        "test_rest_turns.py::"
        "test_more_turns_at_once_than_a_subject_may_have_wait_for_nothing_and_are_told_when_to_come_back",
    ),
    # The web
    Guard(
        "addresses on the internet",
        "toolbox/guard.py",
        "if not addresses or not all(is_public(address) for address in addresses):",
        "if not addresses:",
        "test_web_fetch.py::test_no_form_of_a_local_address_is_reached_directly_or_by_a_redirect",
    ),
    Guard(
        "all addresses of a name",
        "toolbox/guard.py",
        "not all(is_public(address)",
        "not any(is_public(address)",
        "test_web_fetch.py::test_no_form_of_a_local_address_is_reached_directly_or_by_a_redirect",
    ),
    Guard(
        "addresses as they were checked",
        "toolbox/guard.py",
        "            url = request.url.copy_with(host=address)\n",
        "            url = request.url.copy_with(host=(await self._internet.resolve(host, 80))[-1])\n",
        "test_web_fetch.py::test_a_name_that_changes_its_meaning_is_connected_to_where_it_was_checked",
    ),
    Guard(
        "redirects by the same checks",
        "toolbox/guard.py",
        "await self._addresses(request.url))",
        '([request.url.host] if vars(self).setdefault("seen", []) else self.seen.append(1) or '
        "await self._addresses(request.url)))",
        "test_web_fetch.py::test_no_form_of_a_local_address_is_reached_directly_or_by_a_redirect",
    ),
    Guard(
        "ports of other services",
        "toolbox/guard.py",
        "if not is_open_port(port):",
        "if False:",
        "test_web_fetch.py::test_no_form_of_a_local_address_is_reached_directly_or_by_a_redirect",
    ),
    Guard(
        "the operator's domains",
        "toolbox/guard.py",
        "if not in_domains(host, self._internet.domains):",
        "if False:",
        "test_web_fetch.py::test_only_the_operators_domains_are_reached",
    ),
    Guard(
        "names in a certificate",
        "toolbox/guard.py",
        '"sni_hostname": host}',
        '"sni_hostname": "safe.example"}',
        "test_web_fetch.py::test_a_certificate_must_be_the_hosts_whose_name_was_asked_for",
    ),
    Guard(
        "how much is read of a page",
        "toolbox/guard.py",
        "                if left < 0:\n",
        "                if False:\n",
        "test_web_fetch.py::test_what_is_no_text_or_too_much_is_refused",
    ),
)
"""Who is who, who is let in, how much of anything, and where web tools go."""

GUARDS = (
    *OF_DOORS,
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
        "    check_message(record.to_message())\n",
        "",
        "test_repair.py::test_a_repaired_session_goes_on_and_what_was_damaged_is_kept[message_1.json-content no list]",
    ),
    Guard(
        "a record that can't be read hides no other one",
        "storage/turn_files.py",
        "            except OSError:\n                logger.warning(",
        "            except ZeroDivisionError:\n                logger.warning(",
        "test_history_damage.py::test_what_is_no_record_among_the_turns_hides_nothing_and_stops_no_server[a loop]",
    ),
    Guard(
        "what a power cut left of a text is no text",
        "storage/turn_files.py",
        'text.replace("\\0", "")',
        "text",
        "test_history_damage.py::test_a_killed_turn_whose_text_was_half_written_does_not_stop_its_session",
    ),
    Guard(
        "a link in the place of a directory",
        "storage/history.py",
        "            if place.is_symlink():\n",
        "            if False:\n",
        "test_history_damage.py::test_a_damaged_directory_is_named_listed_and_repaired[agents-a link]",
    ),
    Guard(
        "what is damaged beside the messages is listed too",
        "storage/upkeep.py",
        "            history.check_files()\n",
        "",
        "test_history_damage.py::test_a_damaged_file_is_named_and_nothing_is_overwritten[session.json-cut in half]",
    ),
    Guard(
        "an agent's file that is JSON and no agent's",
        "storage/history.py",
        "            check_agent(agent, own_state=OWN_STATE)\n",
        "            pass\n",
        "test_history_damage.py::"
        "test_a_damaged_file_is_named_and_nothing_is_overwritten[agent.json-no state of its own]",
    ),
    Guard(
        "what no file and no model takes is put right",
        "storage/fenced.py",
        "        put_right(message)  # in place: the model is to see what is kept\n",
        "",
        "test_malformed.py::test_whatever_a_tool_returns_the_turn_is_answered_and_the_session_goes_on",
    ),
    Guard(
        "characters that a model cuts in two",
        "models/guarded.py",
        "                for whole_event in pieces.take(event):\n",
        "                for whole_event in [event]:\n",
        "test_malformed.py::test_a_character_that_a_model_cuts_in_two_is_put_together_and_half_of_one_costs_no_reply",
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
        "what a turn could not count is counted by the next one",
        "turn_steps.py",
        "return recount(meta).model_copy(",
        "return meta.model_copy(",
        "test_proof_settling.py::test_what_a_turn_could_not_count_behind_its_record_is_counted_by_the_next_one[killed]",
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
        "with suppress(OSError):  # Another process that lives has just finished this one.",
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
        "a turn that has ended writes no more",
        "turn_steps.py",
        "        agent.manager.fence()\n",
        "        pass\n",
        "test_session_life.py::test_a_tool_that_outlives_its_session_and_asks_its_agent_on_brings_nothing_back",
    ),
    Guard(
        "no lock of a deleted session is left",
        "turns.py",
        "            await self._loop.in_thread(store.clear_session_lock, session_id)\n",
        "",
        "test_proof_deletion.py::test_a_session_that_two_processes_ask_in_is_deleted_by_a_third",
    ),
    # Tools and memory
    Guard(
        "a yes is for just these arguments",
        "approvals.py",
        """f"{use['name']}\\0{arguments}".encode()""",
        """use["name"].encode()""",
        "test_approvals.py::test_a_yes_for_one_command_is_never_taken_for_another_one_under_the_same_tool_use_id",
    ),
    Guard(
        "in a called agent nobody is asked",
        "approvals.py",
        "if not self._may_interrupt:",
        "if False:",
        "test_delegation.py::test_in_a_called_agent_nobody_can_be_asked_or_approve",
    ),
    Guard(
        "an actor's facts are its own",
        "memory/local.py",
        'FROM facts WHERE actor_id = ? ORDER BY row", (actor,)',
        'FROM facts WHERE actor_id = ? OR 1 ORDER BY row", (actor,)',
        "test_memory.py::test_no_actor_sees_another_ones_facts_however_alike_they_are",
    ),
    Guard(
        "what was read from others waits for somebody's word",
        "memory/local.py",
        "if memory.confirmed or not confirmed_only)[:limit]",
        "if True)[:limit]",
        "test_memory.py::test_what_an_agent_notes_in_a_turn_that_read_what_others_wrote_waits_for_somebodys_word",
    ),
    Guard(
        "what is forgotten leaves no byte",
        "storage/database.py",
        '            db.execute("VACUUM")\n'
        '            busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()\n',
        "            busy = 0\n",
        "test_erasure.py::test_after_an_erasure_no_byte_of_it_is_left_while_other_servers_run",
    ),
    # The catalog
    Guard(
        "a list is of the index that was filled for it",
        "storage/upkeep.py",
        "if self._catalog.made() == made:",
        "if True:",
        "test_catalog.py::test_a_list_whose_index_is_lost_between_the_filling_and_the_reading_is_read_again",
    ),
    Guard(
        "a copy in the place of the index is known as one",
        "storage/index_file.py",
        "return marks == [self._version, _mark(side.inode)]",
        "return marks[0] == self._version",
        "test_catalog.py::test_a_copy_that_took_the_catalogs_place_is_not_believed_whatever_it_says",
    ),
    Guard(
        "a search within a session fills a new index",
        "storage/store.py",
        "        self._upkeep.before_search_in(session_id)\n",
        "",
        "test_catalog.py::test_the_models_own_search_finds_what_was_said_before_the_catalog_was_lost",
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
    # What a page can talk a model into
    Guard(
        "only public addresses are reached",
        "toolbox/guard.py",
        "if not addresses or not all(is_public(address) for address in addresses):",
        "if not addresses:",
        _PAGE,
    ),
    Guard(
        "the address that was judged is connected to",
        "toolbox/guard.py",
        "url = request.url.copy_with(host=address)",
        "url = request.url",
        _PAGE,
    ),
    Guard(
        "no link is followed out of the operator's directories",
        "toolbox/files.py",
        "flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "flags = os.O_RDONLY | os.O_NONBLOCK",
        _PAGE,
    ),
    Guard(
        "no tool of the operator's stands in for memory",
        "toolbox/__init__.py",
        "*_OUTSIDE, *_MEMORY,",
        "*_OUTSIDE,",
        "test_operator_tools.py::test_a_tool_by_the_name_of_a_built_in_one_is_left_out_and_doctor_says_so",
    ),
    # Models
    Guard(
        "what came from a cache counts",
        "models/guarded.py",
        "event = _with_all_that_was_read(event)",
        "pass",
        "test_prompt_caching.py::test_what_was_in_the_cache_counts_in_a_budget_too",
    ),
    Guard(
        "boto does not try again by itself",
        "models/building.py",
        'retries={"total_max_attempts": 1},',
        'retries={"total_max_attempts": 4},',
        "test_failures.py::test_a_model_that_always_throttles_is_tried_again_in_sight_until_the_turns_time_is_over",
    ),
    Guard(
        "a wrapped error is judged by what is within",
        "models/failures.py",
        "for one in _within(error)]",
        "for one in [error]]",
        "test_providers.py::test_a_throttled_or_dropped_call_is_made_again_once_and_told",
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
