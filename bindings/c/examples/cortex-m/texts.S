/* The texts. Compile with -DTEXTS='"path"'. */
    .section .rodata
    .global texts_begin
    .global texts_end
texts_begin:
    .incbin TEXTS
texts_end:
    .section .note.GNU-stack, "", %progbits
