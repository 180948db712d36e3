# Writes OUT, the man page: PAGE with the tables of options as PROGRAM prints them in place of @OPTIONS@, through
# SCDOC. Run by cmake -P.
execute_process(COMMAND ${PROGRAM} config man OUTPUT_VARIABLE OPTIONS RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${PROGRAM} config man: ${failed}")
endif()
configure_file(${PAGE} ${OUT}.scd @ONLY)
execute_process(COMMAND ${SCDOC} INPUT_FILE ${OUT}.scd OUTPUT_FILE ${OUT} RESULT_VARIABLE failed)
if(failed)
  file(REMOVE ${OUT})
  message(FATAL_ERROR "${SCDOC} ${OUT}.scd: ${failed}")
endif()
