; A clone whose child begins in a function of its own, on a stack of its own.
;
; Purpose:   clone(2) for a child that shares our memory and not our stack.
; In:        rdi = flags, rsi = the stack's end (16-byte aligned), rdx = where the pidfd goes,
;            rcx = entry, r8 = its argument (System V AMD64 calling convention)
; Out:       rax = the child's pid, or an errno as -4095..-1. The child never returns from here.
; Clobbered: rcx, r11, rsi, r8, r10
;
; Why not Rust: in the child the call returns with another stack pointer, so that nothing a compiler put on the stack
; before it may be used after it.

        bits 64
        default rel

        section .note.GNU-stack noalloc noexec nowrite progbits
        section .text

        global asm_tracer_clone:function hidden
        global asm_tracer_clone_end:function hidden

        align 16
asm_tracer_clone:
        sub     rsi, 16
        mov     [rsi], r8               ; the argument
        mov     [rsi + 8], rcx          ; the entry
        xor     r10d, r10d              ; no child_tid
        xor     r8d, r8d                ; no thread-local storage of its own
        mov     eax, 56                 ; clone
        syscall
        test    rax, rax
        jz      .child
        ret
.child:
        xor     ebp, ebp                ; the outermost frame
        pop     rdi
        pop     rax
        call    rax
        ud2
; The end of what a filter on the instruction pointer lets through.
asm_tracer_clone_end:
