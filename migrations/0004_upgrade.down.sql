-- Undoes migration 4.

ALTER TABLE @schema@.nodes DROP COLUMN upgrade, DROP COLUMN reload;
