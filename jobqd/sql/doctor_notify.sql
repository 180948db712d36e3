-- And the other session's.
NOTIFY "@channel@_doctor"
