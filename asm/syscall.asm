; Raw system calls, with 0 to 6 arguments.
;
; Purpose:   make one system call and nothing else. The result is what the kernel returned: -4095..-1 is an errno.
; In:        rdi = number, then rsi, rdx, rcx, r8, r9, [rsp+8] = arguments 1 to 6 (System V AMD64 calling convention)
; Out:       rax
; Clobbered: rcx and r11 (by the SYSCALL instruction), and the argument registers
;
; Why not the C library's syscall(3): that writes `errno`, which is thread-local. A child that shares its parent's
; memory shares the thread-local storage of the thread that cloned it, and a signal handler interrupts its owner.
; Why not Rust: the address of each SYSCALL instruction must be known and be ours, so that a filter on the
; instruction pointer can tell these calls from those of the rest of the program.

        bits 64
        default rel

        section .note.GNU-stack noalloc noexec nowrite progbits
        section .text

        global asm_tracer_syscall0:function hidden
        global asm_tracer_syscall1:function hidden
        global asm_tracer_syscall2:function hidden
        global asm_tracer_syscall3:function hidden
        global asm_tracer_syscall4:function hidden
        global asm_tracer_syscall5:function hidden
        global asm_tracer_syscall6:function hidden
        global asm_tracer_syscall_end:function hidden

        align 16
asm_tracer_syscall0:
        mov     rax, rdi
        syscall
        ret

        align 16
asm_tracer_syscall1:
        mov     rax, rdi
        mov     rdi, rsi
        syscall
        ret

        align 16
asm_tracer_syscall2:
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        syscall
        ret

        align 16
asm_tracer_syscall3:
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        mov     rdx, rcx
        syscall
        ret

        align 16
asm_tracer_syscall4:
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        mov     rdx, rcx
        mov     r10, r8
        syscall
        ret

        align 16
asm_tracer_syscall5:
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        mov     rdx, rcx
        mov     r10, r8
        mov     r8, r9
        syscall
        ret

        align 16
asm_tracer_syscall6:
        mov     rax, rdi
        mov     rdi, rsi
        mov     rsi, rdx
        mov     rdx, rcx
        mov     r10, r8
        mov     r8, r9
        mov     r9, [rsp + 8]
        syscall
        ret

; The end of what a filter on the instruction pointer lets through.
asm_tracer_syscall_end:
