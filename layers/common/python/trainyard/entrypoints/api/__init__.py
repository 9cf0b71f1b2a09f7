"""The routes of the HTTP API, by what they are about; functions/api puts them together."""
