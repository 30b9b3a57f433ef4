"""The agent of a node: keeps verified trees for all pods there, fetched once, through whichever pod asks. Needs aiohttp."""
