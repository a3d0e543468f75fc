"""What a server keeps of a run that was given a secret: nothing of it.

`flows.config` refuses settings that hold one. A run that was started from the dashboard is stored with them before
that, so the refused run's parameters are replaced.
"""

from __future__ import annotations

import logging
from typing import Any

from artifacts.redaction import redact, without_secrets

log = logging.getLogger(__name__)


def forget_secrets(flow: Any, flow_run: Any, state: Any) -> None:
    """A Prefect state hook: put stars for every secret among the parameters that the server keeps. Never raises."""
    del flow, state
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            kept = client.read_flow_run(flow_run.id)
            if (clean := without_secrets(kept.parameters)) != kept.parameters:
                client.update_flow_run(flow_run.id, parameters=clean, name=redact(kept.name)).raise_for_status()
                log.warning("the run was given a secret among its settings, which the server does not keep any more")
    except Exception as error:  # how the run ended is not to be hidden by this
        log.warning("whether the run's parameters hold a secret could not be looked at: %s", type(error).__name__)
