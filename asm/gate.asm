; The places at which a trapped call of this process is made after all.
;
; Purpose:   a filter traps the calls of this process everywhere but here. The SIGSYS handler sends a thread to one of
;            these places by the context that it returns to, so that the call is made outside of the handler, with the
;            thread's own stack, mask and alternate stack.
; In:        the registers of the call, set by the return from the handler; rcx = the place, r11 = the flags, which is
;            what lets that return be a fast one
; Out:       rax = the result; r11 = the flags, as the kernel leaves them; rcx = the instruction after the original call
;            where the call was changed, and after the one in the table otherwise. Everything else is as the program
;            had it.
; Clobbered: nothing else. The flags are the program's, so nothing here writes them without restoring them.
;
; Why not Rust: the address of each SYSCALL instruction is what the filter goes by, and the stack is not ours to use: the
; red zone below it is the program's, the calls include those after which another process or thread has it.

        bits 64
        default rel

        section .note.GNU-stack noalloc noexec nowrite progbits

SITES           equ 2048

; The ring that results are written to; `ring.rs` has the same layout.
RING_REFUSED    equ 0
RING_TAIL       equ 8
RING_MASK       equ 16
SLOT_SHIFT      equ 8                   ; a slot has 256 bytes: its state, and the record
SLOT_TIME       equ 8
SLOT_SITE       equ 16
SLOT_VALUE      equ 24
SLOT_THREAD     equ 32
POSITION_SHIFT  equ 24                  ; in a state, below which it is free, claimed by a thread, or full
FULL            equ 1
THREAD_MASK     equ 0x3fffff

        section .bss align=64

        global asm_tracer_gate_slots:data hidden
        global asm_tracer_gate_results:data hidden
        global asm_tracer_gate_recorder:data hidden
        global asm_tracer_sigsys_handler:data hidden

; Where the table's entries go back to: the instruction after each original call, or 0.
asm_tracer_gate_slots:
        resq    SITES
; The ring for results, and its slots.
asm_tracer_gate_results:
        resq    2
; Where the entries that record results go on.
asm_tracer_gate_recorder:
        resq    1
; The handler in Rust.
asm_tracer_sigsys_handler:
        resq    1

        section .text align=64

        global asm_tracer_gate_start:function hidden
        global asm_tracer_gate_end:function hidden
        global asm_tracer_gate_restorer:function hidden
        global asm_tracer_gate_rewritten:function hidden
        global asm_tracer_gate_rewritten_recorded:function hidden
        global asm_tracer_gate_record:function hidden
        global asm_tracer_gate_table:function hidden
        global asm_tracer_gate_recording_table:function hidden
        global asm_tracer_sigsys_entry:function hidden
        global asm_tracer_sigsys_elsewhere:function hidden

asm_tracer_gate_start:

; Returns from the handler; what the kernel's action has as its restorer.
asm_tracer_gate_restorer:
        mov     eax, 15                 ; rt_sigreturn
        syscall
        ud2

; Writes the result of a call down, by `Ring::push` of `ring.rs`, and never waits.
; In: rax = the result, rcx leads to the address after the call, r11 = the flags. All registers and flags are kept, but rcx
; and r11, which the kernel has clobbered. The stack below the red zone is used, as by a signal.
%macro RECORD_RESULT 0
        lea     rsp, [rsp - 128]
        push    rax
        lahf                            ; not pushfq: popfq would set the flag by which somebody steps through this
        seto    al
        push    rax
        push    rdx
        push    rsi
        push    rdi
        push    r8
        push    rcx
        push    r11
        mov     eax, 186                ; gettid
        syscall
        and     eax, THREAD_MASK
        lea     r8d, [rax + rax]        ; what claims a slot for this thread
        mov     rdi, [asm_tracer_gate_results]
%%again:
        mov     rdx, [rdi + RING_TAIL]
        mov     rsi, rdx
        and     rsi, [rdi + RING_MASK]
        shl     rsi, SLOT_SHIFT
        add     rsi, [asm_tracer_gate_results + 8]
        mov     rcx, rdx
        shl     rcx, POSITION_SHIFT     ; free for this position
        mov     rax, [rsi]
        cmp     rax, rcx
        jne     %%not_free
        lea     r11, [rcx + r8]
        lock cmpxchg [rsi], r11
        jne     %%again
        mov     rax, rdx
        lea     r11, [rdx + 1]
        lock cmpxchg [rdi + RING_TAIL], r11
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        mov     [rsi + SLOT_TIME], rax
        mov     rax, [rsp + 8]
        mov     rax, [rax]
        mov     [rsi + SLOT_SITE], rax
        mov     rax, [rsp + 56]
        mov     [rsi + SLOT_VALUE], rax
        mov     eax, r8d
        shr     eax, 1
        mov     [rsi + SLOT_THREAD], rax
        lea     rax, [rcx + r8]
        lea     r11, [rcx + FULL]
        lock cmpxchg [rsi], r11         ; not ours any more if this thread was taken for dead
        jmp     %%done
%%not_free:
        xor     rax, rcx
        shr     rax, POSITION_SHIFT
        jnz     %%full
        mov     rax, rdx                ; claimed already: who did may not have got round to this
        lea     r11, [rdx + 1]
        lock cmpxchg [rdi + RING_TAIL], r11
        jmp     %%again
%%full:
        cmp     rdx, [rdi + RING_TAIL]
        jne     %%again
        lock inc qword [rdi + RING_REFUSED]
%%done:
        pop     r11
        pop     rcx
        pop     r8
        pop     rdi
        pop     rsi
        pop     rdx
        pop     rax
        add     al, 127                 ; overflows if there was one
        sahf
        pop     rax
        lea     rsp, [rsp + 128]
%endmacro

; Makes a call whose registers the handler changed, and puts the program's back. rsp leads to what `frame.rs` wrote.
        align 16
asm_tracer_gate_rewritten_recorded:
        syscall
        mov     rcx, rsp
        RECORD_RESULT
        jmp     asm_tracer_gate_rewritten.restore

        align 16
asm_tracer_gate_rewritten:
        syscall
.restore:
        mov     rdi, [rsp + 8]
        mov     rsi, [rsp + 16]
        mov     rdx, [rsp + 24]
        mov     r10, [rsp + 32]
        mov     r8, [rsp + 40]
        mov     r9, [rsp + 48]
        mov     rcx, [rsp]
        mov     rsp, [rsp + 56]
        jmp     rcx

; Where the recording entries go on. rcx leads to the entry's slot.
        align 16
asm_tracer_gate_record:
        RECORD_RESULT
        mov     rcx, [rcx]
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

; The same for calls whose results are recorded.
        align 64
asm_tracer_gate_recording_table:
%assign site 0
%rep SITES
        syscall
        lea     rcx, [asm_tracer_gate_slots + 8 * site]
        jmp     [asm_tracer_gate_recorder]
        nop
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

; Calls the function in r9 with the first four arguments, on the stack that ends at r8.
        align 16
asm_tracer_sigsys_elsewhere:
        push    rbp
        mov     rbp, rsp
        mov     rsp, r8
        call    r9
        mov     rsp, rbp
        pop     rbp
        ret
