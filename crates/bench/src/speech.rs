//! The packets that a call would make of a file, for whoever looks for them where they must not be.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use shoal_base::id::to_hex;
use shoal_call::media::{Adaptation, FRAME, Sender};

/// Bytes of a WAV file's plainest header.
const HEADER: usize = 44;

/// Print the Opus packets that a call makes of the beginning of a file
#[derive(Debug, Args)]
pub(crate) struct Packets {
    /// 16-bit PCM, one channel, 48 kHz
    #[arg(long)]
    file: PathBuf,
    /// How many
    #[arg(long, default_value_t = 25)]
    count: usize,
}

/// Prints them as a list of hexadecimal texts.
#[expect(clippy::print_stdout, reason = "stdout is this program's interface")]
pub(crate) fn packets(args: &Packets) -> Result<()> {
    let bytes = fs::read(&args.file).with_context(|| format!("{}", args.file.display()))?;
    let sound = bytes.get(HEADER..).context("no sound in it")?;
    let (pairs, _) = sound.as_chunks::<2>();
    let samples: Vec<i16> = pairs.iter().map(|b| i16::from_le_bytes(*b)).collect();
    // As it is until the other end has told of the path: half a second.
    let mut sender = Sender::new(Adaptation::default().rate(), false)?;
    let mut packets = Vec::new();
    for frame in samples.chunks_exact(FRAME).take(args.count) {
        packets.extend(sender.push(frame)?.map(|sent| to_hex(&sent.payload)));
    }
    ensure!(!packets.is_empty(), "the file is shorter than a packet");
    println!("{}", serde_json::to_string(&packets)?);
    Ok(())
}
