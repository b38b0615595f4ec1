//! Raspberry Pi Pico 2: reads a line of text over UART and answers `label<TAB>fingerprint`. 115,200 baud, GP0 sends,
//! GP1 receives.
//!
//! A line has at most 1,024 bytes. Send the next one after the answer to the previous one.
#![no_std]
#![no_main]

use embedded_io::Read as _;
use firmware::{Arena, Line, Received, Session, arena_bytes, engine, model};
use kinglet::backend::Backend;
use panic_halt as _;
use rp235x_hal as hal;

use hal::block::ImageDef;
use hal::clocks::Clock as _;
use hal::fugit::RateExtU32 as _;
use hal::uart::{DataBits, StopBits, UartConfig, UartPeripheral};

/// Block that the boot ROM looks for.
// SAFETY: memory.x has this section, and the boot ROM alone reads it.
#[unsafe(link_section = ".start_block")]
#[used]
pub static IMAGE: ImageDef = ImageDef::secure_exe();

/// Rows per chunk: more need more memory and read the weights less often.
const CHUNK: usize = 8;
/// Budget for the arena and the stack in bytes: an eighth of this machine's RAM, the rest is for the application.
const RAM: usize = 64 * 1024;
/// Maximum length of a line in bytes.
const LINE: usize = 1024;
/// Frequency of the board's crystal.
const CRYSTAL_HZ: u32 = 12_000_000;

static ARENA: Arena<{ arena_bytes(CHUNK, RAM) }> = Arena::new();

#[hal::entry]
fn main() -> ! {
    let Some(mut board) = hal::pac::Peripherals::take() else { panic!("main runs once") };
    let mut watchdog = hal::Watchdog::new(board.WATCHDOG);
    let clocks = hal::clocks::init_clocks_and_plls(
        CRYSTAL_HZ,
        board.XOSC,
        board.CLOCKS,
        board.PLL_SYS,
        board.PLL_USB,
        &mut board.RESETS,
        &mut watchdog,
    );
    let Ok(clocks) = clocks else { panic!("the clocks do not start") };
    let sio = hal::Sio::new(board.SIO);
    let pins = hal::gpio::Pins::new(board.IO_BANK0, board.PADS_BANK0, sio.gpio_bank0, &mut board.RESETS);
    let wires = (pins.gpio0.into_function(), pins.gpio1.into_function());
    let config = UartConfig::new(115_200.Hz(), DataBits::Eight, None, StopBits::One);
    let uart =
        UartPeripheral::new(board.UART0, wires, &mut board.RESETS).enable(config, clocks.peripheral_clock.freq());
    let Ok(mut uart) = uart else { panic!("115,200 baud cannot be had") };

    let mut engine = engine(model(), ARENA.take(), Backend::detect(), CHUNK);
    let engine = match &mut engine {
        Ok(engine) => engine,
        Err(failure) => loop {
            // Repeatedly: nobody may have listened the first time.
            say(&mut uart, format_args!("error: {failure}"));
            hal::arch::delay(150_000_000);
        },
    };
    let mut session = Session::new(engine);
    let mut line = Line::<LINE>::new();
    loop {
        let mut byte = [0];
        if let Err(error) = uart.read(&mut byte) {
            line.clear();
            say(&mut uart, format_args!("error: the line was not received: {error:?}"));
            continue;
        }
        match line.push(byte[0]) {
            Received::More => {}
            Received::TooLong { max } => say(&mut uart, format_args!("error: the line has more than {max} bytes")),
            Received::Whole(mut text) => match session.take(&mut text).and_then(|_| session.end()) {
                Ok(Some(answer)) => say(&mut uart, format_args!("{answer}")),
                Ok(None) => {}
                Err(failure) => say(&mut uart, format_args!("error: {failure}")),
            },
        }
    }
}

/// Sends a line.
fn say(uart: &mut impl core::fmt::Write, line: core::fmt::Arguments<'_>) {
    // A UART accepts everything.
    let _ = write!(uart, "{line}\r\n");
}
