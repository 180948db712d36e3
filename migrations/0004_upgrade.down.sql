-- Undoes migration 5.

ALTER TABLE @schema@.nodes DROP COLUMN upgrade;
