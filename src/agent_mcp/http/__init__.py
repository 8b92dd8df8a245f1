"""The door to HTTP: who calls, REST, and the application that carries MCP beside it."""
