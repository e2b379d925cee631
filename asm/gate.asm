; The places at which a trapped call of this process is made after all.
;
; Purpose:   a filter traps the calls of this process everywhere but here. The SIGSYS handler sends a thread to one of
;            these places by the context that it returns to, so that the call is made outside of the handler, with the
;            thread's own stack, mask and alternate stack.
; In:        the registers of the call, set by the return from the handler; rcx = the place, r11 = the flags, which is
;            what lets that return be a fast one
; Out:       rax = the result; rcx = the instruction after the original call, r11 = the flags, as the kernel leaves them.
;            Everything else is as the program had it.
; Clobbered: nothing else. The flags are the program's, so nothing here writes them without restoring them.
;
; Why not Rust: the address of each SYSCALL instruction is what the filter goes by, and the stack is not ours to use: the
; red zone below it is the program's, the calls include those after which another process or thread has it.

        bits 64
        default rel

        section .note.GNU-stack noalloc noexec nowrite progbits

SITES           equ 2048

; A ring that this code writes to; `ring.rs` has the same layout.
RING_ATTEMPTS   equ 0
RING_DROPPED    equ 8
RING_TAIL       equ 16
RING_MASK       equ 24
RING_SLOTS      equ 32
SLOT_SHIFT      equ 8                   ; a slot has 256 bytes

        section .bss align=64

        global asm_tracer_gate_slots:data hidden
        global asm_tracer_gate_results:data hidden
        global asm_tracer_sigsys_handler:data hidden

; Where the table's entries go back to: the instruction after each original call, or 0.
asm_tracer_gate_slots:
        resq    SITES
; The ring for results, or 0.
asm_tracer_gate_results:
        resq    1
; The handler in Rust.
asm_tracer_sigsys_handler:
        resq    1

        section .text align=64

        global asm_tracer_gate_start:function hidden
        global asm_tracer_gate_end:function hidden
        global asm_tracer_gate_restorer:function hidden
        global asm_tracer_gate_rewritten:function hidden
        global asm_tracer_gate_table:function hidden
        global asm_tracer_sigsys_entry:function hidden

asm_tracer_gate_start:

; Returns from the handler; what the kernel's action has as its restorer.
asm_tracer_gate_restorer:
        mov     eax, 15                 ; rt_sigreturn
        syscall
        ud2

; Makes a call whose registers the handler changed, and puts the program's back. rsp leads to what `rewrite.rs` wrote.
        align 16
asm_tracer_gate_rewritten:
        syscall
        mov     rdi, [rsp + 8]
        mov     rsi, [rsp + 16]
        mov     rdx, [rsp + 24]
        mov     r10, [rsp + 32]
        mov     r8, [rsp + 40]
        mov     r9, [rsp + 48]
        mov     rcx, [rsp]
        mov     rsp, [rsp + 56]
        jmp     rcx

; One entry for each place in the program that was seen to make a call. Nothing but rip differs from the program.
        align 64
asm_tracer_gate_table:
%assign site 0
%rep SITES
        syscall
        jmp     [asm_tracer_gate_slots + 8 * site]
%assign site site + 1
%endrep

asm_tracer_gate_end:

; Where the kernel delivers SIGSYS: calls the handler with a fourth argument, room below the kernel's frame that is in the
; red zone until the return, and above the stack pointer from then on.
        align 16
asm_tracer_sigsys_entry:
        sub     rsp, 120
        lea     rcx, [rsp + 8]
        call    [asm_tracer_sigsys_handler]
        add     rsp, 120
        ret
