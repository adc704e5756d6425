"""What a model can do with the cluster: tools with a name, a description, a JSON schema and an executor.

``Toolbox(client)`` runs them by name with JSON arguments, which is what a model's tool call is; an agent
has one as ``ctx.tools``. ``toolbox.py`` runs a call, ``arguments.py`` reads its arguments and derives the
schema, ``cluster.py`` and ``agent.py`` have the tools themselves.
"""

from loopal_cluster.tools.agent import Agent, WaitAgent
from loopal_cluster.tools.arguments import argument
from loopal_cluster.tools.cluster import ListAgents, ListHubs, SendMessage
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolResult
from loopal_cluster.tools.toolbox import TOOLS, Toolbox

__all__ = [
    "TOOLS",
    "Agent",
    "ListAgents",
    "ListHubs",
    "PermissionLevel",
    "SendMessage",
    "Tool",
    "ToolResult",
    "Toolbox",
    "WaitAgent",
    "argument",
]
