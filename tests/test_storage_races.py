"""What other processes do in the directory at the same moment is no error."""

from pathlib import Path

from in_process import ask, running


async def test_what_others_have_just_finished_writing_does_not_keep_a_server_from_beginning(data_dir: Path) -> None:
    async with running(data_dir) as service:
        await ask(service, "My name is John")
    for name in (".write_gone.tmp", "turns/.write_gone.tmp", "agents/.write_gone.tmp", ".new-gone"):
        # A name that is there when the directory is listed, and nothing when it is looked at.
        (data_dir / name).symlink_to(data_dir / "nothing")
    async with running(data_dir) as service:
        assert "John" in (await ask(service, "My name is John")).response
