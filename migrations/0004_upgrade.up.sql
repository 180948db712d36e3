-- How a node's last upgrade in place ended: {"at", "from", "to", "error"}; null: there was none.

ALTER TABLE @schema@.nodes ADD COLUMN upgrade jsonb;
