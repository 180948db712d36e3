-- After each question of doctor, whatever became of it.
ROLLBACK
