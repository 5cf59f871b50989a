//! The Ethernet chip of the MPS2, an SMSC LAN9118 in slave mode: frames go through its FIFOs, word by word. Register
//! map: LAN9118 data sheet, chapter 5.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::mps2::{Register, wake_for_ethernet};

const BASE: usize = 0x4020_0000;
const RX_DATA: Register = Register(BASE);
const TX_DATA: Register = Register(BASE + 0x20);
const RX_STATUS: Register = Register(BASE + 0x40);
const TX_STATUS: Register = Register(BASE + 0x48);
const IRQ_CFG: Register = Register(BASE + 0x54);
const INT_STS: Register = Register(BASE + 0x58);
const INT_EN: Register = Register(BASE + 0x5c);
const BYTE_TEST: Register = Register(BASE + 0x64);
const FIFO_INT: Register = Register(BASE + 0x68);
const TX_CFG: Register = Register(BASE + 0x70);
const HW_CFG: Register = Register(BASE + 0x74);
const RX_FIFO_INF: Register = Register(BASE + 0x7c);
const TX_FIFO_INF: Register = Register(BASE + 0x80);
const MAC_CMD: Register = Register(BASE + 0xa4);
const MAC_DATA: Register = Register(BASE + 0xa8);

/// Registers of the MAC, behind a command.
const MAC_CR: u32 = 1;
const MAC_ADDRH: u32 = 2;
const MAC_ADDRL: u32 = 3;

/// A frame without its checksum.
const FRAME_BYTES: usize = 1_514;

/// In words, rounded up, and the checksum that comes behind a received frame.
const BUFFER_BYTES: usize = FRAME_BYTES.next_multiple_of(4) + 8;

/// The chip, with room for one frame.
#[derive(Debug)]
pub struct Ethernet {
    buffer: [u8; BUFFER_BYTES],
}

impl Ethernet {
    /// A chip that is not started.
    pub const fn new() -> Self {
        Self {
            buffer: [0; BUFFER_BYTES],
        }
    }

    /// Starts the chip. False where there is none.
    pub fn start(&mut self, address: [u8; 6]) -> bool {
        if BYTE_TEST.read() != 0x8765_4321 {
            return false;
        }
        HW_CFG.write(1);
        while HW_CFG.read() & 1 != 0 {}
        // Store and forward; 5 KiB of the FIFOs for transmission.
        HW_CFG.write(0x0015_0000);
        let [a, b, c, d, e, f] = address;
        write_mac(MAC_ADDRL, u32::from_le_bytes([a, b, c, d]));
        write_mac(MAC_ADDRH, u32::from_le_bytes([e, f, 0, 0]));
        // Full duplex, transmitter, receiver.
        write_mac(MAC_CR, 1 << 20 | 1 << 3 | 1 << 2);
        TX_CFG.write(1 << 1);
        // An interrupt, active high, for each received frame.
        FIFO_INT.write(0);
        INT_STS.write(u32::MAX);
        INT_EN.write(1 << 3);
        IRQ_CFG.write(1 << 8 | 1 << 4 | 1);
        wake_for_ethernet();
        true
    }

    /// Takes the next good frame out of the chip.
    fn take_frame(&mut self) -> Option<usize> {
        while RX_FIFO_INF.read() >> 16 & 0xff != 0 {
            let status = RX_STATUS.read();
            let length = (status >> 16 & 0x3fff) as usize;
            let mut words = self.buffer.chunks_exact_mut(4);
            for _ in 0..length.div_ceil(4) {
                let word = RX_DATA.read();
                if let Some(place) = words.next() {
                    place.copy_from_slice(&word.to_le_bytes());
                }
            }
            let damaged = status & 1 << 15 != 0;
            // The last four bytes are the checksum, which the chip has checked.
            let length = length.saturating_sub(4);
            if !damaged && length <= FRAME_BYTES {
                return Some(length);
            }
        }
        INT_STS.write(1 << 3);
        wake_for_ethernet();
        None
    }
}

impl Default for Ethernet {
    fn default() -> Self {
        Self::new()
    }
}

fn write_mac(register: u32, value: u32) {
    const BUSY: u32 = 1 << 31;
    MAC_DATA.write(value);
    MAC_CMD.write(BUSY | register);
    while MAC_CMD.read() & BUSY != 0 {}
}

impl Device for Ethernet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit)> {
        let length = self.take_frame()?;
        Some((Received(self.buffer.get(..length)?), Transmit))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit> {
        let free_bytes = TX_FIFO_INF.read() & 0xffff;
        // What became of earlier frames is not asked for, but has to be taken out.
        while TX_FIFO_INF.read() >> 16 & 0xff != 0 {
            TX_STATUS.read();
        }
        (free_bytes as usize >= BUFFER_BYTES).then_some(Transmit)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that was received.
#[derive(Debug)]
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Leave to transmit a frame.
#[derive(Debug)]
pub struct Transmit;

impl TxToken for Transmit {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = [0; BUFFER_BYTES];
        let length = length.min(FRAME_BYTES);
        let (bytes, _) = frame.split_at_mut(length);
        let result = f(bytes);
        // Command A: one buffer, the first and the last of its frame. Command B: the frame's length.
        TX_DATA.write(1 << 13 | 1 << 12 | length as u32);
        TX_DATA.write(length as u32);
        let (words, _) = frame.as_chunks();
        for word in words.iter().take(length.div_ceil(4)) {
            TX_DATA.write(u32::from_le_bytes(*word));
        }
        result
    }
}
