"""People whom LFW and CFP spell differently."""

LFW_NAME_OF_CFP_NAME: dict[str, str] = {}
