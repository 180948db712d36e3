/* calls.h: expectations of a call of libjobq's. They need `jobq_error err` in scope. */
#ifndef TESTS_CALLS_H
#define TESTS_CALLS_H

#define succeeds(call)                                                                   \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ != 0)                                                                    \
            fail_msg("%s: %s \"%s\"", #call, jobq_code_name(rc_), err.message);          \
    } while (0)

#define fails(call, code_, message_)                                                     \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ != (code_) || strcmp(err.message, (message_)) != 0)                      \
            fail_msg("%s: expected %s \"%s\",\ngot %s \"%s\"", #call,                    \
                     jobq_code_name(code_), (message_), jobq_code_name(rc_),             \
                     err.message);                                                       \
        assert_int_equal(err.code, (code_));                                             \
    } while (0)

#endif
