"""The engine room: everything that turns a job into tokens. No Django below this line."""
