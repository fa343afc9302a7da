"""A guest that does nothing but write to its disks and read back: a program of one sector, which its BIOS boots.

It needs no memory to speak of, no kernel and no file system, so it works within seconds even where an emulated machine
emulates it.  In each round it writes one sector to each of its first disks, reads it again and compares; then it says
the number of the round at its serial port.  Whatever goes wrong it says, and stops: `E`, the disk, and what the BIOS
said of it.
"""

import re
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .programs import need, run

SECTOR = 512
#: The sectors that are written, one a round and then from the first again.
FIRST, COUNT = 8, 64
#: A table of partitions would begin here: the kernel takes zeros for an empty one.
TABLE = 446

SOURCE = """\
    .code16
    .equ first_disk, 0x80
    .equ written, 0x8000            # the sector as it is written, and as it is read
    .equ read, 0x8200
    .equ serial, 0x3f8
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $_start, %sp
    sti
    cld
    ljmp $0, $begin
begin:
    xorl %ebp, %ebp                 # the round
round:
    incl %ebp
    movb $first_disk, %dl
disk:
    movzbl %dl, %eax                # the sector is full of the round and the disk, which is the highest byte
    shll $24, %eax
    orl %ebp, %eax
    movw $written, %di
    movw $SECTOR / 4, %cx
    rep stosl
    movw %bp, %ax
    andw $COUNT - 1, %ax
    addw $FIRST, %ax
    movw %ax, where
    movw $1, sectors
    movw $written, memory
    movw $packet, %si
    movw $0x4300, %ax               # write
    int $0x13
    jc failed
    xorl %eax, %eax
    movw $read, %di
    movw $SECTOR / 4, %cx
    rep stosl
    movw $1, sectors
    movw $read, memory
    movw $packet, %si
    movb $0x42, %ah                 # read
    int $0x13
    jc failed
    movb $0xff, %ah
    movw $written, %si
    movw $read, %di
    movw $SECTOR / 4, %cx
    repe cmpsl
    jne failed
    incb %dl
    cmpb $first_disk + DISKS, %dl
    jb disk
    movl %ebp, %ebx
    movw $8, %cx
    call number
    movb $'\\n', %al
    call put
    hlt                             # until the clock ticks, twice: others want the processor, too
    hlt
    jmp round
failed:
    movb %dl, %bh                   # the disk and what the BIOS said of it; ff is that it read something else
    movb %ah, %bl
    shll $16, %ebx
    movb $'E', %al
    call put
    movw $4, %cx
    call number
    movb $'\\n', %al
    call put
stop:
    cli
    hlt
    jmp stop

number:                             # the first cx digits of ebx
    roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    addb $'0', %al
    cmpb $'9', %al
    jbe digit
    addb $'a' - '9' - 1, %al
digit:
    call put
    loop number
    ret
put:
    movb %al, %ah
wait:
    movw $serial + 5, %dx
    inb %dx, %al
    testb $0x20, %al
    jz wait
    movw $serial, %dx
    movb %ah, %al
    outb %al, %dx
    ret

    .balign 4
packet:
    .byte 16, 0
sectors:
    .word 1
memory:
    .word written, 0
where:
    .quad 0
"""


def boot_sector(disks: int) -> bytes:
    """The first sector of the disk that it boots from; it writes to this many disks, from that one on."""
    need("guest", "as", "ld")
    settings = {"SECTOR": SECTOR, "FIRST": FIRST, "COUNT": COUNT, "DISKS": disks}
    source = "".join(f"    .equ {name}, {value}\n" for name, value in settings.items()) + SOURCE
    with tempfile.TemporaryDirectory() as folder:
        code, made = Path(folder, "code.o"), Path(folder, "code")
        run(["as", "--32", "-o", code, "-"], source)
        run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", made, code])
        program = made.read_bytes()
    if len(program) > TABLE:
        raise ValueError(f"the guest's program has {len(program)} bytes, and a boot sector has room for {TABLE}")
    return program.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def rounds(said: str) -> int:
    """How many rounds it has done without a fault; of 0 it says nothing.  Raises AssertionError if there was one."""
    assert "E" not in said, f"the guest could not write or read: {said[-200:]}"
    numbers = [int(line, 16) for line in re.findall(r"^([0-9a-f]{8})$", said, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)), f"the guest started anew: {said[-200:]}"
    return len(numbers)


def wrong(disk: bytes, number: int, done: int) -> Iterable[str]:
    """What is not as the guest left it on its disk of this number (0 is the first) after so many rounds.

    It may have begun one more round before it was ended.
    """
    for sector in range(COUNT):
        begin = (FIRST + sector) * SECTOR
        found = set(struct.unpack(f"<{SECTOR // 4}I", disk[begin : begin + SECTOR]))
        last = done - (done - sector) % COUNT
        possible = {(0x80 + number) << 24 | last if last > 0 else 0}
        if (done + 1) % COUNT == sector:
            possible.add((0x80 + number) << 24 | (done + 1))
        if len(found) != 1 or not found <= possible:
            yield f"sector {FIRST + sector}: {sorted(found)} instead of {sorted(possible)}"
