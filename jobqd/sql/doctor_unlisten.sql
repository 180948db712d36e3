UNLISTEN "@channel@_doctor"
