"""Names and manners of other packages, for code that moves to trio_ws step by step."""
