-- Whether a notification of one session reaches another: this session's part.
LISTEN "@channel@_doctor"
