"""What a model can do with the cluster: tools with a name, a description, a JSON schema and an executor.

``Toolbox(client)`` runs them by name with JSON arguments, which is what a model's tool call is; an agent
has one as ``ctx.tools``. ``toolbox.py`` runs a call, ``arguments.py`` reads its arguments and derives the
schema; ``cluster.py``, ``agent.py`` and ``talk.py`` have the tools themselves, ``placement.py`` and
``mailbox.py`` what these stand on.
"""

from loopal_cluster.tools.agent import Agent, CancelAgent, WaitAgent
from loopal_cluster.tools.arguments import argument
from loopal_cluster.tools.cluster import ListAgents, ListHubs
from loopal_cluster.tools.mailbox import Mail, Mailbox
from loopal_cluster.tools.talk import Inbox, SendMessage
from loopal_cluster.tools.tool import PermissionLevel, Tool, ToolContext, ToolResult
from loopal_cluster.tools.toolbox import TOOLS, Toolbox

__all__ = [
    "TOOLS",
    "Agent",
    "CancelAgent",
    "Inbox",
    "ListAgents",
    "ListHubs",
    "Mail",
    "Mailbox",
    "PermissionLevel",
    "SendMessage",
    "Tool",
    "ToolContext",
    "ToolResult",
    "Toolbox",
    "WaitAgent",
    "argument",
]
