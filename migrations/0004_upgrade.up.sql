-- How a node's last upgrade in place ended: {"at", "from", "to", "error"}; null: there was none. And how far its last reload is:
-- {"at", "state": "begun", "done", "failed" or "refused", "leaving": processes from before that run a job, "error",
-- "file": the configuration that it reads, "crons": why the database refuses a cron of that}.

ALTER TABLE @schema@.nodes ADD COLUMN upgrade jsonb, ADD COLUMN reload jsonb;
