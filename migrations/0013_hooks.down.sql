-- Takes back 0013_hooks.up.sql.

DROP TRIGGER on_discard ON @schema@.finished_failed;
DROP FUNCTION @schema@._on_discard();
DROP FUNCTION @schema@._declared_sweep();
DROP FUNCTION @schema@._hooks_declare(text, jsonb);
DROP TABLE @schema@.hooks;
