"""The MCP door: tools, resources and progress over the service."""
