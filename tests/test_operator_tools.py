"""Tools of the operator's own modules never take the name of another tool that a model may know."""

import os
from pathlib import Path

from bedrock_server import BedrockServer, say
from conftest import call, connect
from engine import bedrock_env, serving
from life import shell

SAFE = ["calculator", "current_time", "handoff_to_user", "notebook", "read_files", "search_session", "stop"]
ALLOWED = ["file_editor", "http_request", "python_repl", "shell"]

TOOL = '''
@tool
def {name}() -> str:
    """The operator's."""
    return "mine"
'''


async def test_a_tool_by_the_name_of_a_built_in_one_is_left_out_and_doctor_says_so(
    data_dir: Path, tmp_path: Path
) -> None:
    more = {"AGENT_MCP_ALLOW_TOOLS": ",".join(ALLOWED), "AGENT_MCP_FILES": str(tmp_path)}
    with BedrockServer(lambda received: say("Yes.")) as model:
        async with serving(data_dir, env=bedrock_env(model, **more)) as server:
            tools = [*SAFE, *ALLOWED, "web_fetch", "web_search"]
            await server.call("create_agent", name="Full", tools=tools, memory="explicit")
            await server.ask("Hi", agent_id="full")
        known = model.requests[0].tools  # all that a model can be given
    assert {*tools, "remember", "recall"} == set(known)
    taken = [*known, "agent_writer", "mcp_files"]
    code = "from strands import tool\n" + "".join(TOOL.format(name=name) for name in [*taken, "mine"])
    (tmp_path / "taken_tools.py").write_text(code)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    env = {"PYTHONPATH": path, "AGENT_MCP_TOOLS": "taken_tools"}
    seen = await shell(data_dir, "doctor", env=env)
    assert seen.code == 1
    for name in taken:
        assert f"FAIL  tools: AGENT_MCP_TOOLS: taken_tools has a tool {name!r}" in seen.out
        assert f"py:{name}," not in seen.out
    async with connect(data_dir, env=env) as client:
        made = await call(client, "create_agent", name="Mine", tools=["py:mine"])
    assert made["tools"] == ["py:mine"]
