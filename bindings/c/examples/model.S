/* The bundle as a part of the program. Compile with -DMODEL='"path/of/model.kinglet"'. */
    .section .rodata
    .global kinglet_model_begin
    .global kinglet_model_end
    .balign 64
kinglet_model_begin:
    .incbin MODEL
kinglet_model_end:
    .section .note.GNU-stack, "", %progbits
